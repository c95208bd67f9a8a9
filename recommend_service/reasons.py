"""Why a job is on a list, in plain words. Every sentence is about what was measured; none names a number.

"Close" means closer than most of the catalogue is, since a cosine alone says little: in one store 0.3 is close, in
another 0.6 is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dynaq.records import Candidate
from dynaq.stores import FloatArray
from recommend_service.catalogue import ApplicantVectors, Catalogue, Rows

CLOSE = 0.05  # share of the catalogue that may be closer, for a job to count as close
NAMED = 4  # skills that a sentence names


class Closeness:
    """Which of some jobs are close to an applicant's skills, and to what they did before; each `[len(rows)]`."""

    def __init__(self, catalogue: Catalogue, applicant: ApplicantVectors, rows: Rows) -> None:
        pairs = catalogue.layout.pairs
        own = catalogue.pair_similarities(applicant, rows)
        sampled = catalogue.pair_similarities(applicant, catalogue.sample)
        self.skills = _close(own, sampled, [i for i, (block, _) in enumerate(pairs) if block == "hard_skills"])
        self.past = _close(own, sampled, [i for i, (block, _) in enumerate(pairs) if block == "profile"])


def _close(own: FloatArray, sampled: FloatArray, pairs: Sequence[int]) -> npt.NDArray[np.bool_]:
    close = np.zeros(len(own), bool)
    for pair in pairs:
        line = np.quantile(sampled[:, pair], 1.0 - CLOSE)
        close |= (own[:, pair] >= line) & (own[:, pair] > 0)
    return close


def reasons(
    profile: Candidate, shared: Sequence[str], *, skills: bool, past: bool, wished: bool, by_agent: bool
) -> list[str]:
    """The sentences for one job, the strongest first.

    Args:
        profile: of the applicant.
        shared: skills that both name.
        skills: whether the job is close to their skills.
        past: whether it is close to what they did before.
        wished: whether the list was ordered by their wish and the job is among those that fit it best.
        by_agent: whether their own agent ranked it.
    """
    said = []
    if wished:
        said.append("Fits what you asked for.")
    if shared:
        said.append(f"Asks for {_and(shared[:NAMED])}, which you name.")
    elif skills:
        said.append("Asks for skills that are close to yours.")
    if past and profile.experience:
        said.append(f"Close to what you did before, such as {profile.experience[0].title}.")
    elif past:
        said.append("Close to what you say about yourself.")
    if not said:
        learned = "Your agent expects that it suits you, from answers to jobs like it."
        said.append(learned if by_agent else "Among the closest to your profile of all jobs here.")
    return said


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
