"""Layouts: which blocks make up a state and an action, and which block pairs' similarity counts.

`classic` is the layout of a database that was filled by hand to the four-collection schema: state
hard skills | soft skills, action technical skills | soft skills | title | experience, similarity = cosine of the state
with the action's first two blocks. `extended` adds the profile and the description and compares blocks pair by pair.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dynaq.errors import InputError

BLOCK_DIM = 384  # of the default encoder, and of a store that says nothing else

# Block name -> field of `job_embeddings` / `candidates_embeddings`.
JOB_BLOCKS = {
    "technical_skills": "tech_skills_vectors",
    "soft_skills": "soft_skills_embeddings",
    "title": "job_title_embeddings",
    "experience": "experience_requirements_embeddings",
    "description": "description_embeddings",
}
CANDIDATE_BLOCKS = {
    "hard_skills": "hard_skill_embeddings",
    "soft_skills": "soft_skills_embeddings",
    "profile": "profile_embeddings",
}
OPTIONAL_JOB_BLOCKS = frozenset({"experience"})  # zeros when missing
# Relative weight of each block in the distance of two jobs; blocks that the layout lacks do not count.
JOB_BLOCK_WEIGHTS = {"title": 1.0, "description": 1.0, "technical_skills": 0.5, "soft_skills": 0.2}


@dataclass(frozen=True)
class Layout:
    """Blocks of a state `[state_dim]` and an action `[action_dim]`, and the compared (state block, action block) pairs.

    block_dim: numbers of each block, the encoder's dimension.
    joint: the similarity is one cosine over the concatenation of the compared blocks (classic); otherwise the mean of
    the pairs' cosines, each over one block.
    """

    name: str
    state: tuple[str, ...]
    action: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    joint: bool = False
    block_dim: int = BLOCK_DIM

    @property
    def state_dim(self) -> int:
        """Numbers in a state."""
        return len(self.state) * self.block_dim

    @property
    def action_dim(self) -> int:
        """Numbers in an action."""
        return len(self.action) * self.block_dim

    def state_slice(self, block: str) -> slice:
        """Where a block lies in a state. Raises ValueError when the layout lacks it."""
        i = self.state.index(block)
        return slice(i * self.block_dim, (i + 1) * self.block_dim)

    def action_slice(self, block: str) -> slice:
        """Where a block lies in an action. Raises ValueError when the layout lacks it."""
        i = self.action.index(block)
        return slice(i * self.block_dim, (i + 1) * self.block_dim)


CLASSIC = Layout(
    name="classic",
    state=("hard_skills", "soft_skills"),
    action=("technical_skills", "soft_skills", "title", "experience"),
    pairs=(("hard_skills", "technical_skills"), ("soft_skills", "soft_skills")),
    joint=True,
)
EXTENDED = Layout(
    name="extended",
    state=("hard_skills", "soft_skills", "profile"),
    action=("technical_skills", "soft_skills", "title", "experience", "description"),
    pairs=(
        ("hard_skills", "technical_skills"),
        ("soft_skills", "soft_skills"),
        ("profile", "title"),
        ("profile", "description"),
    ),
)
LAYOUTS = {layout.name: layout for layout in (CLASSIC, EXTENDED)}


def get_layout(name: str, block_dim: int = BLOCK_DIM) -> Layout:
    """The layout of that name, with blocks of `block_dim` numbers. Raises InputError naming the known ones."""
    try:
        layout = LAYOUTS[name]
    except KeyError:
        raise InputError(f"layout {name!r} does not exist; use one of {', '.join(LAYOUTS)}") from None
    return layout if layout.block_dim == block_dim else replace(layout, block_dim=block_dim)
