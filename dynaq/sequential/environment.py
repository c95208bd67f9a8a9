"""The job market in which people change, as a Gymnasium environment: `dynaq/JobMarket-v1`.

    import dynaq.sequential
    env = gymnasium.make("dynaq/JobMarket-v1", cache=cache, source=judge, person=PersonConfig(satiation=0.3))

It is `dynaq/JobMarket-v0` with a person (`dynaq.sequential.people`) between the judge and the reward. A list of
`list_size` jobs is shown job by job: after it, or once the person stops looking, some days pass. A learner that takes
one job per step sees each answer before it chooses the next; a slate is `list_size` steps of which the answers are
looked at together, which is how the agents of `dynaq.sequential` act (the decomposition of SlateQ, Ie et al. 2019,
arXiv 1905.12767). With `slate_size` as large as the catalogue, a learner acts over all of it.

With every dynamic off and `history` 0, spaces, slates, observations and rewards are those of v0, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np

from dynaq.agent.pair_features import job_embedding
from dynaq.env import FloatArray, JobMarketEnv
from dynaq.errors import InputError
from dynaq.judging.history import Did, History, PastEvent, how_long_ago
from dynaq.judging.judgement import Judgement, JudgementSource, Label
from dynaq.sequential.people import Indices, People, PersonConfig, changed, families_of, similar_rewards
from dynaq.tensor_cache import TensorCache

DID: Mapping[Label, Did] = {"APPLY": "apply", "SAVE": "save", "CLICK": "click", "IGNORE": "ignore"}
MOST_DAYS = 30.0  # by which time gaps are scaled; longer ones count as this long
MOST_COUNT = 10.0  # by which counts per family are scaled


class SequentialJobMarketEnv(JobMarketEnv):
    """One applicant per episode, who changes with what is shown.

    Observation: that of v0, then of each of the last `history` events its reward and how many days ago it was, then of
    each job of the slate its family's count in the episode, and its similarity to each of those events' jobs:
    `[… + 2·history + slate_size·(1 + history)]`, in [-1, 1]. The info also holds `history`, the events in full.

    Args:
        person: how people change; the default is off.
        list_size: jobs of a session.
        history: events of the observation.
        families: `[n_jobs]`, the family of each job; None: by similarity.
        world_seed: of the person and the days on which postings close; None: each episode draws its own.
        sessions: after which an episode ends; None: only with the budget.
        memory: events of the episode that a judge with memory (`dynaq.judging.history`) is told with each question; 0
            tells it nothing. Such a judge may tire of repetition by itself, which comes on top of the person's own
            satiation and drift.

    An episode ends with the budget or the last session, or when nothing is left to offer. Raises InputError as v0
    does, but a slate may be the whole catalogue.
    """

    def __init__(
        self,
        cache: TensorCache,
        applicants: Sequence[str] | None = None,
        source: JudgementSource | None = None,
        budget: int = 50,
        slate_size: int = 10,
        person: PersonConfig | None = None,
        list_size: int = 5,
        history: int = 10,
        families: Indices | None = None,
        world_seed: int | None = None,
        sessions: int | None = None,
        memory: int = 0,
    ) -> None:
        # A budget of 1: slates may shrink here, so that the catalogue need not hold more jobs than one of them.
        super().__init__(cache, applicants, source, 1, slate_size)
        self._budget = budget
        if min(budget, list_size, 1 if sessions is None else sessions) < 1 or min(history, memory) < 0:
            raise InputError(
                "the environment needs budget, list_size and sessions of at least 1, and history and memory from 0 on"
            )
        self._person = person or PersonConfig()
        self._list_size, self._history, self._world_seed = list_size, history, world_seed
        self._sessions, self._sessions_done, self._memory = sessions, 0, memory
        embedding = job_embedding(cache).numpy()
        self._families = families_of(embedding) if families is None else np.asarray(families, np.int64)
        if len(self._families) != cache.n_jobs:
            raise InputError(f"{len(self._families)} families for {cache.n_jobs} jobs; name one of each job")
        self._similar = similar_rewards(embedding)
        self._events: list[tuple[int, float, int, Label | None]] = []  # job, reward, day, label
        self._people = self._new_people(0)
        if history:
            width = (self.observation_space.shape or (0,))[0] + 2 * history + slate_size * (1 + history)
            self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (width,), np.float32)

    def _new_people(self, seed: int) -> People:
        self._in_list = self._sessions_done = 0
        return People(self._person, [self._applicant], self._families, self._similar, seed)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Begin an episode with a person who has seen nothing yet. The info is v0's, with `history` and `day`."""
        self._events = []
        self._people = self._new_people(0)
        observation, _ = super().reset(seed=seed, options=options)
        # From a copy of the generator, so that v0's own numbers stay the same.
        drawn = int(deepcopy(self.np_random).integers(2**31)) if self._world_seed is None else self._world_seed
        self._people = self._new_people(drawn)
        return observation, self._info()

    def step(self, action: np.int64) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Show one job of the slate; where fewer than `slate_size` are left, the action counts round."""
        if self._slate:
            action = np.int64(int(action) % len(self._slate))
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or self._over, truncated, info

    @property
    def _over(self) -> bool:
        return not self._slate or self._sessions_done == self._sessions

    def next_state(self, state: FloatArray, job: int, judgement: Judgement | None) -> FloatArray:
        """The profile stays; what changes is the person. A list that is at its end is followed by some days."""
        self._in_list += 1
        if self._in_list == self._list_size or not self._people.looking[0]:
            self._people.end_session()
            self._in_list = 0
            self._sessions_done += 1
        return super().next_state(state, job, judgement)

    def _judge(self, job: int) -> tuple[float, Judgement | None]:
        base, judgement = super()._judge(job)
        reward = float(self._people.look(np.array([job]), np.array([base]))[0])
        if judgement is not None:
            judgement = changed(judgement, reward)
        label = judgement.label if judgement is not None else None
        self._events.append((job, reward, int(self._people.day[0]), label))
        return reward, judgement

    def _told(self) -> History:
        today, last = int(self._people.day[0]), self._events[-self._memory :] if self._memory else []
        return tuple(
            PastEvent(event=DID[label], job_id=self._cache.job_ids[job], ago=how_long_ago(today - day))
            for job, _, day, label in reversed(last)
            if label is not None
        )

    def _draw_slate(self) -> None:
        shown = [job for job, *_ in self._events]
        gone = np.flatnonzero(self._people.closes <= self._people.day[0])
        banned = {*self._asked, *shown, *gone.tolist()}
        self._slate = self._cache.sample_jobs(self._slate_size, self.np_random, banned).tolist()

    def _info(self) -> dict[str, Any]:
        events = [
            {"job_id": self._cache.job_ids[job], "reward": reward, "day": day, "label": label}
            for job, reward, day, label in self._events[-self._history :]
        ]
        return super()._info() | ({"history": tuple(events), "day": int(self._people.day[0])} if self._history else {})

    def _observation(self) -> FloatArray:
        nothing = np.zeros(self.observation_space.shape or (), np.float32)
        observation = super()._observation() if self._slate else nothing
        if not self._history:
            return observation
        h, slate = self._history, len(self._slate)
        last = self._events[-h:]
        events, jobs = np.zeros((h, 2)), np.zeros((self._slate_size, 1 + h))
        for row, (job, reward, day, _) in enumerate(reversed(last)):
            events[row] = reward, 1.0 - min((self._people.day[0] - day) / MOST_DAYS, 1.0)
            jobs[:slate, 1 + row] = self._similar[job, self._slate]
        counts = np.bincount(self._families[[job for job, *_ in self._events]], minlength=self._families.max() + 1)
        jobs[:slate, 0] = counts[self._families[self._slate]] / MOST_COUNT
        tail = np.concatenate([events.reshape(-1), jobs.reshape(-1)])
        observation[-len(tail) :] = np.clip(tail, -1.0, 1.0)
        return observation
