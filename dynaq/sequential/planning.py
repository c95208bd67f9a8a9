"""Planning ahead in the learned model: rollouts, the value network that learns from them, and lists by it.

    Q(s, a) = r(s, a) + C(s, a; θ)

r is what the model expects of job a now, and C what showing a now is worth later, against showing something else: the
family tires, interest moves, the job is gone. A planning update (Dyna, Sutton 1990) imagines, for every person of the
block, `candidates` first jobs from the present state; plays each on through `depth` sessions in the model, with the
greedy list by r in each (model-based value expansion, Feinberg et al. 2018, arXiv 1803.00101); and fits C to the
discounted returns of the later sessions and the rest of this one, less the candidates' mean. Postings close in an
imagined future as they do for all candidates of that person (common random numbers), so that what differs is due to the
first job.

A list's value is the sum of its jobs' values, as in SlateQ (Ie et al. 2019, arXiv 1905.12767), where a person looks at
the jobs one by one; it is built greedily, the model's state following every job that was put on it.

With γ = 0, C is 0: the best list of the present session by the same model. So it is where the model says that people do
not change, since then nothing can be gained by waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from dynaq.agent.stacked_mlp import StackedMLP
from dynaq.errors import InputError
from dynaq.sequential.people import FLOOR, NO_JOB, Array, Dynamics, Indices, Mask, reward_of

VALUE_FEATURES = 7
PULLED = 16  # most promising jobs toward which a job may pull interest
CLOSED = -1e3  # reward of what cannot be shown


@dataclass(frozen=True)
class PlanConfig:
    """Settings of planning.

    Args:
        gamma: discount of a session.
        depth: sessions of a rollout after the present one.
        updates: planning updates before each list.
        candidates: first jobs of each person in an update.
        shortlist: jobs of each person that planning knows of, the most promising ones.
        hidden: widths of the value network.
        learning_rate: of the value network's Adam.
        steps: steps of Adam per update.
        memory: updates whose rollouts the network is fitted to.
    """

    gamma: float = 0.9
    depth: int = 4
    updates: int = 5
    candidates: int = 10
    shortlist: int = 64
    hidden: tuple[int, ...] = (32, 16)
    learning_rate: float = 3e-3
    steps: int = 4
    memory: int = 40

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma <= 1.0 or min(self.depth, self.updates) < 0:
            raise InputError("planning: gamma lies in [0, 1], and depth and updates are at least 0")


@dataclass
class Imagined:
    """A model's state of `[rows]` people over their shortlists; `who` is each row's person.

    base, drift, satiation, open: `[rows, shortlist]`, satiation that of the job's family. keep, satiates, drifts:
    `[rows]`.
    """

    who: Indices
    base: Array
    keep: Array
    drift: Array
    satiation: Array
    open: Mask
    satiates: Array
    drifts: Array

    def of(self, rows: Indices) -> Imagined:
        """A copy of some rows."""
        return Imagined(**{name: value[rows] for name, value in vars(self).items()})

    def rewards(self) -> Array:
        """Of every job now, `[rows, shortlist]`; CLOSED where it cannot be shown."""
        interest = self.keep[:, None] * self.base + self.drift
        return np.where(self.open, reward_of(interest, self.satiates[:, None] * self.satiation), CLOSED)


class Planner:
    """Plans for a block of people over jobs of `families` `[n_jobs]`, with one value network for all.

    similar: `[n_jobs, n_jobs]`, as `dynaq.sequential.people.similar_rewards`.
    """

    def __init__(self, config: PlanConfig, families: Indices, similar: Array, seed: int) -> None:
        self.config, self._families, self._similar = config, families, similar.astype(np.float32)
        self._rng = np.random.default_rng([seed, 3])
        generator = torch.Generator().manual_seed(seed)
        self._network = StackedMLP(
            torch.zeros(1, 1, 0), [VALUE_FEATURES, *config.hidden], [generator], config.learning_rate
        )
        self._memory: list[tuple[torch.Tensor, torch.Tensor]] = []  # features [people, candidates, width], targets

    def lists(self, base: Array, dynamics: Dynamics, open_jobs: Mask, size: int, left: int) -> Indices:
        """Lists of `size` jobs, `[people, size]`, NO_JOB where too few are open, after `updates` planning updates.

        base: `[people, n_jobs]`, the reward without history. open_jobs: `[people, n_jobs]`. left: sessions to come
        after this one.
        """
        start = self._shortlisted(base, dynamics, open_jobs)
        left = left if dynamics.changes else 0
        if self.config.gamma and left:
            for update in range(self.config.updates):
                self._imagine(start, size, update % size, left)
        state = start.of(np.arange(len(base)))
        rows = np.arange(len(base))
        chosen = []
        for _ in range(size):
            values = self._values(state, left)
            best = values.argmax(1)
            reward = state.rewards()[rows, best]
            chosen.append(np.where(reward > CLOSED, self._jobs[rows, best], NO_JOB))
            self._show(state, best, reward)
        return np.stack(chosen, axis=1)

    def _shortlisted(self, base: Array, dynamics: Dynamics, open_jobs: Mask) -> Imagined:
        interest = dynamics.keep[:, None] * base + dynamics.drift
        order = np.where(open_jobs, np.maximum(base, interest), CLOSED)
        size = min(self.config.shortlist, base.shape[1])
        self._jobs = np.argsort(-order, axis=1, kind="stable")[:, :size]
        rows = np.arange(len(base))[:, None]
        family = self._families[self._jobs]
        self._same = (family[:, :, None] == family[:, None, :]).astype(np.float32)
        self._near = self._similar[self._jobs[:, :, None], self._jobs[:, None, :]]
        self._recovered = np.float32(dynamics.recovery**dynamics.days)
        self._hazards = dynamics.hazards[self._jobs]
        self._days = dynamics.days
        kind = np.float32
        return Imagined(
            who=np.arange(len(base)),
            base=base[rows, self._jobs].astype(kind),
            keep=dynamics.keep.astype(kind),
            drift=dynamics.drift[rows, self._jobs].astype(kind),
            satiation=dynamics.satiation[rows, family].astype(kind),
            open=open_jobs[rows, self._jobs],
            satiates=dynamics.satiates.astype(kind),
            drifts=dynamics.drifts.astype(kind),
        )

    def _show(self, state: Imagined, at: Indices, reward: Array) -> None:
        """Every row sees the job at its place `at` of the shortlist."""
        rows = np.arange(len(at))
        state.open[rows, at] = False
        state.satiation += self._same[state.who, at]
        moved = state.drifts * np.maximum(reward, 0.0)
        if moved.any():
            state.keep *= 1.0 - moved
            state.drift += moved[:, None] * (self._near[state.who, at] - state.drift)

    def _values(self, state: Imagined, left: int) -> Array:
        """Q of the shortlists `[people, shortlist]`."""
        rewards = state.rewards()
        if not (self.config.gamma and left and self._memory):
            return rewards
        features = torch.from_numpy(self._features(state, rewards, left).reshape(1, -1, VALUE_FEATURES))
        later: Array = self._network.predict(features).numpy().reshape(rewards.shape)
        return rewards + later

    def _features(self, state: Imagined, rewards: Array, left: int) -> Array:
        """What the network sees of each job, `[people, shortlist, VALUE_FEATURES]`."""
        interest = state.keep[:, None] * state.base + state.drift
        worth = np.where(state.open, np.maximum(interest, 0.0), 0.0)
        supply = np.einsum("abc,ac->ab", self._same, worth) - worth
        top = np.argsort(-np.where(state.open, rewards, CLOSED), axis=1)[:, :PULLED]
        rows = np.arange(len(top))[:, None]
        pull = self._near[rows, :, top].mean(1) - interest[rows, top].mean(1, keepdims=True)
        gone = 1.0 - (1.0 - self._hazards) ** self._days
        ahead = np.full_like(interest, min(left, self.config.depth) / max(1, self.config.depth))
        tired = state.satiates[:, None] * state.satiation
        parts = [np.maximum(rewards, FLOOR), interest, tired, 0.2 * supply, pull, gone, ahead]
        return np.stack(parts, axis=-1).astype(np.float32)

    def _imagine(self, start: Imagined, size: int, slot: int, left: int) -> None:
        """One planning update: rollouts from the list's place `slot`, and steps of the network."""
        people = len(start.who)
        state = start.of(np.arange(people))
        rows = np.arange(people)
        for _ in range(slot):
            best = self._values(state, left).argmax(1)
            self._show(state, best, np.maximum(state.rewards()[rows, best], FLOOR))
        n = min(self.config.candidates, state.base.shape[1])
        values = self._values(state, left)
        first = np.argsort(-values, axis=1)[:, :n]
        features = self._features(state, state.rewards(), left)[rows[:, None], first]
        later = self._later(state, first, size - slot - 1, size, min(left, self.config.depth))
        self._memory.append((torch.from_numpy(features), torch.from_numpy(later - later.mean(1, keepdims=True))))
        del self._memory[: -self.config.memory]
        self._learn()

    def _later(self, state: Imagined, first: Indices, rest: int, size: int, sessions: int) -> Array:
        """Discounted rewards after each first job, `[people, candidates]`: `rest` more jobs now, then `sessions`."""
        people, n = first.shape
        rows = np.arange(people * n)
        imagined = state.of(np.repeat(np.arange(people), n))
        chance = self._rng.random(self._hazards.shape)
        with np.errstate(divide="ignore"):
            closes = np.ceil(np.log1p(-chance) / np.log1p(-self._hazards))[imagined.who]
        self._show(imagined, first.reshape(-1), imagined.rewards()[rows, first.reshape(-1)])
        total = np.zeros(people * n, np.float32)
        for session in range(sessions + 1):
            for _ in range(rest if session == 0 else size):
                rewards = imagined.rewards()
                best = rewards.argmax(1)
                reward = np.maximum(rewards[rows, best], FLOOR)
                total += self.config.gamma**session * reward
                self._show(imagined, best, reward)
            imagined.satiation *= self._recovered
            imagined.open &= closes > (session + 1) * self._days
        return total.reshape(people, n)

    def _learn(self) -> None:
        """Steps of Adam on remembered rollouts, each on those of two updates."""
        for _ in range(self.config.steps):
            drawn = [self._memory[int(i)] for i in self._rng.integers(len(self._memory), size=2)]
            for features, target in drawn:
                value = self._network.forward(features.reshape(1, -1, VALUE_FEATURES)).view(target.shape)
                error = (value - value.mean(1, keepdim=True)) - target
                self._network.descend((2.0 * error / error.numel()).reshape(1, -1))


def greedy(config: PlanConfig) -> PlanConfig:
    """The same settings with γ = 0."""
    return replace(config, gamma=0.0, updates=0)
