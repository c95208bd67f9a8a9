"""Person models: how people change with what they see, simulated for many people at once.

A person looks at the jobs of a list from the top. With base(j) the judge's reward of job j, the reward at some moment
is

    interest(j) = keep·base(j) + drift(j)                         at first keep = 1 and drift = 0
    reward(j)   = max(interest(j) - λ·satiation(family of j), floor)

where the floor is what ignoring a job is worth, and satiation never raises a reward. Each seen job j changes the
person:

- *satiation* (Leqi, Kilinc-Karzan, Lipton & Montgomery 2021, "Rebounding bandits for modeling satiation effects", arXiv
  2011.06741): the family's satiation rises by one, and is multiplied by `recovery` every day.
- *drift* (Dean & Morgenstern 2022, "Preference dynamics under personalized recommendations", arXiv 2205.13026; Jiang et
  al. 2019, "Degenerate feedback loops in recommender systems", arXiv 1902.10730): interest moves toward what was
  liked, interest ← (1 - e)·interest + e·similar(j, ·) with e = drift·reward where that is positive.
- *depletion* (Chakrabarti, Kumar, Radlinski & Upfal 2008, "Mortal multi-armed bandits"): every posting closes one day,
  by a chance per day that differs between families. A job that was seen is not offered again, as in `dynaq.env`.
- *patience* (the end of a session in RecSim, Ie et al. 2019, arXiv 1909.04847): after so many poor jobs the person
  stops looking, and the rest of the list stays unseen.

A strength of 0 switches a dynamic off; with all off, every reward is the judge's, to the bit. People differ: a person's
strengths are drawn around the configured ones from the seed and the applicant's id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from dynaq.agent.stacked_mlp import agent_generator
from dynaq.errors import InputError
from dynaq.judging.judgement import LABEL_VALUES, LABELS, Judgement, judgement_from_probabilities

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

FLOOR = min(LABEL_VALUES.values())
POOR = 0.25  # a reward below it is a poor job: nearer to a click than to a save
NO_JOB = -1  # in a list that is shorter than others
FAMILY_DISTANCE = 0.7  # within which jobs are of one family
FAMILY_SPREAD = 1.0  # deviation of the logarithm of a family's closing rate


@dataclass(frozen=True)
class PersonConfig:
    """Strengths of the dynamics; 0 is off.

    Args:
        satiation: λ, reward that one more recent job of the same family costs.
        recovery: share of the satiation that is left a day later.
        drift: share of the way that interest moves toward a job that was applied to.
        depletion: median chance per day that a posting closes.
        patience: poor jobs after which a session ends.
        days: mean days from one session to the next.
        spread: deviation of the logarithm of a person's own satiation and drift.
    """

    satiation: float = 0.0
    recovery: float = 0.7
    drift: float = 0.0
    depletion: float = 0.0
    patience: int = 0
    days: float = 2.0
    spread: float = 0.3

    def __post_init__(self) -> None:
        shares = {"recovery": self.recovery, "drift": self.drift, "depletion": self.depletion}
        for name, value in shares.items():
            if not 0.0 <= value < 1.0:
                raise InputError(f"person model: {name} is {value}; it must be at least 0 and below 1")
        if min(self.satiation, self.patience, self.spread) < 0 or self.days < 1:
            raise InputError("person model: satiation, patience and spread are at least 0, and days at least 1")

    def only(self, *dynamics: str) -> PersonConfig:
        """These dynamics as they are, the others off."""
        off = {name: 0 for name in DYNAMICS if name not in dynamics}
        return replace(self, **off)


DYNAMICS = ("satiation", "drift", "depletion", "patience")


def families_of(embedding: npt.NDArray[np.floating], distance: float = FAMILY_DISTANCE) -> Indices:
    """Job families by similarity: a job joins the first family whose first job is within `distance`, `[n_jobs]`.

    embedding: `[n_jobs, d]`, as `dynaq.agent.pair_features.job_embedding` makes it.
    """
    leaders: list[int] = []
    found = np.empty(len(embedding), np.int64)
    for job, row in enumerate(embedding):
        far = np.linalg.norm(embedding[leaders] - row, axis=1)
        near = np.flatnonzero(far <= distance)
        if not len(near):
            leaders.append(job)
        found[job] = near[0] if len(near) else len(leaders) - 1
    return found


def squared_distances(rows: npt.NDArray[np.floating], columns: npt.NDArray[np.floating] | None = None) -> Array:
    """Of every pair of a row with a column `[rows, columns]`; without columns, of every pair of rows."""
    others = rows if columns is None else columns
    norms, other_norms = np.square(rows).sum(1), np.square(others).sum(1)
    squared: Array = np.maximum(norms[:, None] + other_norms - 2.0 * rows @ others.T, 0.0).astype(np.float64)
    return squared


def median_squared(squared: Array) -> float:
    """Squared distance of the median pair of a catalogue; 1 where all jobs are alike. squared: `[n_jobs, n_jobs]`."""
    return float(np.median(squared)) or 1.0


def rewards_at(squared: Array, far: float) -> Array:
    """What a job is worth to somebody whose interest is another job, by their squared distance: 1 at none, and FLOOR
    from `far` on, which is the median pair of the catalogue."""
    worth: Array = FLOOR + (1.0 - FLOOR) * np.maximum(1.0 - squared / far, 0.0)
    return worth


def similar_rewards(embedding: npt.NDArray[np.floating]) -> Array:
    """`rewards_at` for every pair of jobs of a catalogue, `[n_jobs, n_jobs]`, 1 for a job itself."""
    squared = squared_distances(embedding)
    similar = rewards_at(squared, median_squared(squared))
    np.fill_diagonal(similar, 1.0)
    return similar


@dataclass
class Dynamics:
    """How people change, as known or as learned; see the module.

    satiates, drifts: `[people]`, strengths. recovery: per day. days: mean from one session to the next. hazards:
    `[n_jobs]`, chance per day that a posting closes. keep, drift, satiation: the present state, the last `[people,
    families]`.
    """

    satiates: Array
    drifts: Array
    recovery: float
    days: float
    hazards: Array
    keep: Array
    drift: Array
    satiation: Array

    @property
    def changes(self) -> bool:
        """Whether what is shown now can make a difference to later sessions."""
        return bool(self.satiates.any() or self.drifts.any() or self.hazards.any())

    def rewards(self, base: Array, families: Indices) -> Array:
        """Reward of every job now, `[people, n_jobs]`, given the rewards without history."""
        interest = self.keep[:, None] * base + self.drift
        return reward_of(interest, self.satiates[:, None] * self.satiation[:, families])


def reward_of(interest: Array, tired: Array) -> Array:
    """Interest less what satiation costs, which lowers nothing below the floor."""
    reward: Array = np.maximum(interest - tired, np.minimum(interest, FLOOR))
    return reward


class People:
    """The state of `applicants`, `[people]` of them, over a catalogue of `n_jobs`.

    Args:
        families: `[n_jobs]`, the family of each job, numbered from 0.
        similar: `[n_jobs, n_jobs]`, see `similar_rewards`.
        seed: of the people, the days between their sessions, and the days on which postings close.

    Attributes:
        satiation: `[people, families]`.
        keep, drift: `[people]` and `[people, n_jobs]`, see the module.
        seen: `[people, n_jobs]`, jobs that were looked at.
        day: `[people]`, days since the start.
        closes: `[n_jobs]`, the day on which a posting closes.
        looking: `[people]`, False once a person has stopped looking in this session.
    """

    def __init__(
        self, config: PersonConfig, applicants: Sequence[str], families: Indices, similar: Array, seed: int
    ) -> None:
        self.config, self.families, self._similar = config, families, similar
        n, jobs = len(applicants), len(families)
        self._rngs = [
            np.random.default_rng(agent_generator(seed, name, "person").initial_seed()) for name in applicants
        ]
        strengths = np.exp(config.spread * np.array([rng.standard_normal(2) for rng in self._rngs]))
        self._satiates = config.satiation * strengths[:, 0]
        self._drifts = np.minimum(config.drift * strengths[:, 1], 1.0)
        self.satiation = np.zeros((n, int(families.max()) + 1))
        self.keep, self.drift = np.ones(n), np.zeros((n, jobs))
        self.seen = np.zeros((n, jobs), bool)
        self.day = np.zeros(n, np.int64)
        self.looking = np.ones(n, bool)
        self._poor = np.zeros(n, np.int64)
        self.hazards = closing_rates(config.depletion, int(families.max()) + 1, seed)[families]
        chance = np.random.default_rng([seed, 2]).random(jobs)
        with np.errstate(divide="ignore"):
            self.closes = 1.0 + np.floor(np.log1p(-chance) / np.log1p(-self.hazards))  # geometric; infinite at rate 0

    @property
    def open(self) -> Mask:
        """Jobs that can be offered to each person today, `[people, n_jobs]`."""
        still: Mask = (self.closes > self.day[:, None]) & ~self.seen
        return still

    def rewards(self, base: Array) -> Array:
        """Reward of every job now, `[people, n_jobs]`, given the judge's."""
        return self.dynamics().rewards(base, self.families)

    def dynamics(self) -> Dynamics:
        """The true dynamics and the present state, for who may know them."""
        c = self.config
        return Dynamics(
            self._satiates, self._drifts, c.recovery, c.days, self.hazards, self.keep, self.drift, self.satiation
        )

    def look(self, jobs: Indices, base: Array) -> Array:
        """Everybody who still looks sees one job. Returns the rewards `[people]`, NaN for those who see none.

        jobs: `[people]`, NO_JOB for none. base: `[people]`, the judge's rewards of these jobs.
        """
        who = np.flatnonzero(self.looking & (jobs != NO_JOB))
        found = np.full(len(jobs), np.nan)
        if not len(who):
            return found
        at, family = jobs[who], self.families[jobs[who]]
        interest = self.keep[who] * base[who] + self.drift[who, at]
        reward = reward_of(interest, self._satiates[who] * self.satiation[who, family])
        found[who] = reward
        self.seen[who, at] = True
        self.satiation[who, family] += 1.0
        if self.config.drift:
            moved = self._drifts[who] * np.maximum(reward, 0.0)
            self.keep[who] *= 1.0 - moved
            self.drift[who] += moved[:, None] * (self._similar[at] - self.drift[who])
        self._poor[who] += reward < POOR
        if self.config.patience:
            self.looking[who] = self._poor[who] < self.config.patience
        return found

    def end_session(self) -> Indices:
        """Everybody goes and comes back some days later. Returns these days, `[people]`."""
        gaps = np.array([rng.geometric(1.0 / self.config.days) for rng in self._rngs], np.int64)
        self.day += gaps
        self.satiation *= self.config.recovery ** gaps[:, None]
        self.looking[:] = True
        self._poor[:] = 0
        return gaps


def closing_rates(median: float, families: int, seed: int) -> Array:
    """Chance per day that a posting of each family closes, `[families]`: log-normal around the median, below 0.9."""
    spread = np.random.default_rng([seed, 1]).standard_normal(families)
    return np.minimum(median * np.exp(FAMILY_SPREAD * spread), 0.9)


def changed(judgement: Judgement, reward: float) -> Judgement:
    """The judgement of a person whose reward is now `reward`: itself if that is the judge's, else a mixture of the two
    labels whose values are nearest above and below."""
    if reward == judgement.reward:
        return judgement
    return judgement_of_reward(judgement.applicant_id, judgement.job_id, reward, f"{judgement.judge}+person")


def judgement_of_reward(applicant_id: str, job_id: str, reward: float, judge: str) -> Judgement:
    """A judgement whose expected reward is `reward`, between the labels of the nearest values."""
    weights = soft_labels(np.array(reward), [LABEL_VALUES[label] for label in LABELS])
    return judgement_from_probabilities(applicant_id, job_id, weights.tolist(), judge=judge)


def soft_labels(rewards: Array, values: Sequence[float]) -> Array:
    """A distribution over labels of these values `[..., labels]` whose mean is the reward: the two nearest values."""
    order = np.argsort(values)
    weights = np.eye(len(values))[:, order]
    return np.stack([np.interp(rewards, np.asarray(values)[order], row) for row in weights], axis=-1)
