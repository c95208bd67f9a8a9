"""The job market as a Gymnasium environment, for third-party learners.

    import dynaq.env
    env = gymnasium.make("dynaq/JobMarket-v0", cache=cache, source=judge)

Each step shows a slate of jobs that this episode has not asked about yet; the action picks one of them. The reward is
the judge's, or without a judge the cosine scaled to [0, 1]. An episode is one applicant's budget. The spaces are one
flat float32 Box and one Discrete, which Stable-Baselines3 and RLlib's value-based algorithms take without a wrapper.
`dynaq.agent.dyna_q` does not use this environment: it scores the whole catalogue, for many applicants at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from dynaq.errors import InputError, JudgeError
from dynaq.judging.history import History
from dynaq.judging.judgement import Judgement, JudgementSource, Slate
from dynaq.tensor_cache import TensorCache

FloatArray = npt.NDArray[np.float32]
ID = "dynaq/JobMarket-v0"


class JobMarketEnv(gymnasium.Env[FloatArray, np.int64]):
    """One applicant per episode, drawn from `applicants` (or named in `reset(options={"applicant_id": ...})`).

    Observation: `[1 + slate_size·state_blocks·action_blocks]` in [-1, 1]: the share of the budget that is left, then
    the cosines between the state's and the action's blocks for each job of the slate.
    Action: index into the slate.

    Args:
        cache: catalogue and cohort.
        applicants: applicants to draw from; None for the whole cohort.
        source: where rewards come from; None for the cosine.
        budget: steps per episode.
        slate_size: jobs to choose from.

    Raises InputError for an unknown applicant, or a catalogue that is too small for the budget and slate size.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium declares it so

    def __init__(
        self,
        cache: TensorCache,
        applicants: Sequence[str] | None = None,
        source: JudgementSource | None = None,
        budget: int = 50,
        slate_size: int = 10,
    ) -> None:
        self._cache, self._source, self._budget, self._slate_size = cache, source, budget, slate_size
        self._applicants = list(cache.applicant_ids if applicants is None else applicants)
        for applicant_id in self._applicants:
            cache.applicant_index(applicant_id)
        if not self._applicants or budget < 1 or slate_size < 1:
            raise InputError("the environment needs an applicant, a budget and a slate_size of at least 1")
        needed = budget - 1 + slate_size
        if len(cache.job_ids) < needed:
            raise InputError(
                f"{len(cache.job_ids)} jobs are too few for a budget of {budget} with slates of {slate_size}; "
                f"use fewer, or a catalogue of at least {needed}"
            )
        width = len(cache.layout.state) * len(cache.layout.action)
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1 + slate_size * width,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(slate_size)
        self._applicant = self._applicants[0]
        self._state = cache.get_applicant_state(self._applicant).numpy()
        self._asked: list[int] = []
        self._slate: list[int] = []
        self._left = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Begin an episode. The info holds `applicant_id` and the slate's `job_ids`."""
        super().reset(seed=seed)
        named = (options or {}).get("applicant_id")
        self._applicant = named or self._applicants[int(self.np_random.integers(len(self._applicants)))]
        self._state = self._cache.get_applicant_state(self._applicant).numpy()
        if self._source is None:
            self._cosines = self._cache.calculate_cosine_similarities(self._applicant)
        self._asked, self._left = [], self._budget
        self._draw_slate()
        return self._observation(), self._info()

    def step(self, action: np.int64) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Ask about one job of the slate. The info also holds the `job_id` that was asked about, and its `label`.

        Raises JudgeError when the judge fails or abstains, because there is no reward then. The environment keeps its
        state, except that a job on which the judge abstained is not offered again.
        """
        if self._left == 0:
            raise gymnasium.error.ResetNeeded("the budget is spent; call reset")
        job = self._slate[int(action)]
        reward, judgement = self._judge(job)
        self._state = self.next_state(self._state, job, judgement)
        self._asked.append(job)
        self._left -= 1
        self._draw_slate()
        info = self._info() | {
            "job_id": self._cache.job_ids[job],
            "label": judgement.label if judgement is not None else None,
        }
        return self._observation(), reward, self._left == 0, False, info

    def next_state(self, state: FloatArray, job: int, judgement: Judgement | None) -> FloatArray:
        """The state after an answer, `[state_dim]`. For now answers leave the applicant's state unchanged."""
        return state

    def _judge(self, job: int) -> tuple[float, Judgement | None]:
        if self._source is None:
            return float(self._cosines[job] + 1.0) / 2.0, None
        job_id = self._cache.job_ids[job]
        ((judgement,),) = self._source.fetch([Slate(self._applicant, (job_id,), self._told())])
        if judgement.reward is None:
            self._asked.append(job)
            self._draw_slate()
            raise JudgeError(f"the judge abstained on {self._applicant!r} and {job_id!r}: {judgement.note}")
        return judgement.reward, judgement

    def _told(self) -> History:
        """What the judge is told that the applicant did before."""
        return ()

    def _draw_slate(self) -> None:
        self._slate = self._cache.sample_jobs(self._slate_size, self.np_random, self._asked).tolist()

    def _info(self) -> dict[str, Any]:
        return {"applicant_id": self._applicant, "job_ids": tuple(self._cache.job_ids[job] for job in self._slate)}

    def _observation(self) -> FloatArray:
        state = _unit_blocks(self._state[None], self._cache.layout.block_dim)[0]
        slate = np.asarray(self._cache.jobs[self._slate], np.float32)
        actions = _unit_blocks(slate, self._cache.layout.block_dim)
        cosines = np.einsum("sd,jbd->jsb", state, actions).reshape(-1)
        observation = np.zeros(self.observation_space.shape or (), np.float32)
        observation[0] = self._left / self._budget
        observation[1 : 1 + cosines.size] = cosines
        return np.clip(observation, -1.0, 1.0)


def _unit_blocks(vectors: FloatArray, block_dim: int) -> FloatArray:
    """`[n, blocks·block_dim]` → `[n, blocks, block_dim]` with unit norm; zero blocks stay zero."""
    blocks = vectors.reshape(len(vectors), -1, block_dim)
    unit: FloatArray = blocks / np.maximum(np.linalg.norm(blocks, axis=-1, keepdims=True), 1e-12)
    return unit


gymnasium.register(ID, entry_point=f"{__name__}:{JobMarketEnv.__name__}")
