"""A block of Dyna-Q agents, one per applicant, that act, learn and plan together.

One round (Sutton 1990, Dyna-Q; Peng et al. 2018, arXiv 1801.06176, for a judged user in place of the environment):

    1. act: propose a slate of jobs not asked about before, best Q first, some at random
    2. ask: query the judge about the slates of the whole block in one call
    3. condition: update the world model with the answers
    4. learn: Q updates on judged pairs, with the reward that the model believes
    5. plan: Q updates on jobs of the catalogue, judged or not, with the reward that the model predicts

The budget counts distinct judged pairs, whether the answer came from the ledger or the judge. What an applicant did
(`dynaq.feedback.answers`) costs no budget and outranks the judge: it is in the replay from the start, it is believed
whatever the judge's noise, and the judge is not asked about its pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from dynaq.agent.acting import ask, explore, probe, valued
from dynaq.agent.candidate_pool import RANDOM_SHARE, CandidatePool
from dynaq.agent.config import DynaQConfig
from dynaq.agent.gold import answered_gold, clear_acts
from dynaq.agent.job_pool import Change, JobPool, Rows, WholeCatalogue
from dynaq.agent.judge_table import JudgeTable
from dynaq.agent.q_function import QFunction
from dynaq.agent.replay_buffer import JudgedPairs, first_of_each
from dynaq.agent.reward_strategy import RewardStrategy
from dynaq.agent.round_metrics import RoundMetrics, Update, count_label, mean_loss
from dynaq.agent.stacked_mlp import agent_generator
from dynaq.agent.world_model import StartingNetworks, make_world_model
from dynaq.errors import InputError
from dynaq.feedback.answers import KEPT
from dynaq.job_index import with_index
from dynaq.judging.judgement import Judgement, JudgementSource, Slate
from dynaq.means import mean_known
from dynaq.tensor_cache import TensorCache


class DynaQBlock:
    """Agents of `applicant_ids` over the catalogue of `cache`.

    Args:
        strategy: the reward that the agents learn from.
        pretrained: cohort-wide networks to start from; None, or networks that fall back, for the cosine prior.
        device: where the tensors live.
        feedback: what applicants did; other applicants and jobs outside the catalogue are ignored. It is believed, and
            up to `checked_acts` of it are gold, too.
        candidates: the jobs of each agent in a catalogue larger than `DynaQConfig.candidates`, as a checkpoint keeps
            them; None: found in the catalogue's index.
        gold: hand-made labels of pairs of any applicants of the cache. The judge is asked about them once, before the
            first round, and they anchor its table; they cost no budget and no agent learns from them directly.

    Raises InputError for an unknown applicant, a duplicate, an empty cohort or an empty catalogue, and for feedback
    with a strategy that needs no judge.
    """

    def __init__(
        self,
        cache: TensorCache,
        applicant_ids: Sequence[str],
        strategy: RewardStrategy,
        config: DynaQConfig,
        pretrained: StartingNetworks | None = None,
        device: str = "cpu",
        feedback: Iterable[Judgement] | None = None,
        gold: Iterable[Judgement] | None = None,
        candidates: Rows | None = None,
    ) -> None:
        self.applicant_ids = list(applicant_ids)
        if not self.applicant_ids:
            raise InputError("no applicants to train; name at least one")
        if len(set(self.applicant_ids)) != len(self.applicant_ids):
            raise InputError("an applicant is named twice; name each once")
        if not cache.n_jobs:
            raise InputError("the catalogue has no jobs; ingest some first")
        self.cache, self.strategy, self.config, self.pretrained = cache, strategy, config, pretrained
        self.device = torch.device(device)
        self.round = 0
        self.failures: dict[str, str] = {}
        agents = len(self.applicant_ids)
        self.generators = [agent_generator(config.seed, a, "learn") for a in self.applicant_ids]
        self._budget = min(config.budget, cache.n_jobs)
        # The number of slots must not depend on the block's other agents.
        slots = self._budget + (min(KEPT, cache.n_jobs) if feedback is not None else 0)
        self.pool = self._make_pool(max(config.candidates, 2 * slots), candidates)
        self._n_jobs = self.pool.size
        self.judged = JudgedPairs(agents, self._n_jobs, slots, self.device)
        self._gold = list(gold) if gold is not None else []
        self._given: list[list[Judgement]] = [[] for _ in self.applicant_ids]
        self._settled = [0] * agents  # judged pairs by which candidates were exchanged
        self.cumulative = [0.0] * agents
        self.finished: dict[int, torch.Tensor] = {}  # agent → its Q `[n_jobs]` at the moment its budget was spent
        self._cosines = self.pool.cosines
        self._inputs = self.pool.inputs(config.representation)
        self.model = make_world_model(self.pool, self._inputs, self.generators, config, pretrained)
        self.q = QFunction(self._inputs, self.generators, config)
        if feedback is not None:
            self._give(feedback)
            self._gold += clear_acts(self._given, config.checked_acts)
        if config.warm_start:
            self._warm_start()

    def _make_pool(self, size: int, candidates: Rows | None) -> JobPool:
        """The jobs of each agent: all, where there are no more than `size`."""
        if candidates is None and self.cache.n_jobs <= size:
            return WholeCatalogue(self.cache, self.applicant_ids, self.device)
        size = size if candidates is None else candidates.shape[1]
        cache = with_index(self.cache)
        return CandidatePool(cache, self.applicant_ids, size, self.device, self.generators, candidates)

    def _places(self, agent: int, jobs: Sequence[str]) -> list[int]:
        """Places of jobs in an agent's pool; those that are not among its candidates are brought in."""
        rows = [self.cache.job_index(job_id) for job_id in jobs]
        if not isinstance(self.pool, CandidatePool):
            return rows
        missing = np.setdiff1d(rows, self.pool.candidates[agent])
        if len(missing):
            kept = self.judged.asked[agent].clone()
            kept[torch.from_numpy(np.isin(self.pool.candidates[agent], rows))] = True
            self._took_in([(agent, self.pool.bring(agent, missing, self._cosines[agent], kept))])
        return [self.pool.place(agent, row) for row in rows]

    def _took_in(self, changes: Sequence[Change]) -> None:
        """Forget what was known of jobs that left an agent's pool. The model's mean follows with its next `observe`."""
        self.model.exchanged(changes, self.judged)
        for agent, places in changes:
            self.q.forget(agent, torch.from_numpy(places))

    def _exchange_candidates(self) -> None:
        """Exchange candidates by the answers of this round, and by what the agents expected before it."""
        if not isinstance(self.pool, CandidatePool) or not self.judged.longest:
            return
        ends = self.judged.counts.tolist()
        agents, liked = [], []
        for i, (end, before) in enumerate(zip(ends, self._settled, strict=True)):
            if i in self.finished or self.applicant_ids[i] in self.failures:
                continue
            rewards = self.judged.rewards[i, :end]
            new = [slot for slot in range(before, end) if rewards[slot] > rewards.mean()]
            new = [new[place] for place in torch.argsort(-rewards[new], stable=True).tolist()]
            agents.append(i)
            liked.append([int(self.judged.jobs[i, slot]) for slot in new])
        self._took_in(self.pool.exchange(agents, liked, self._expected_rewards(), self.judged.asked))
        self.settle()

    def settle(self) -> None:
        """Candidates have been exchanged by all that was judged so far."""
        self._settled = self.judged.counts.tolist()

    def candidates(self) -> Rows | None:
        """Rows of the catalogue that are each agent's candidates, `[agents, size]`; None where they are all of it."""
        return self.pool.candidates if isinstance(self.pool, CandidatePool) else None

    def _job_id(self, agent: int, place: int) -> str:
        return self.cache.job_id(int(self.pool.rows(agent, place)))

    def _give(self, feedback: Iterable[Judgement]) -> None:
        """Put what applicants did into the replay and the world model."""
        if not self.strategy.needs_judge:
            raise InputError(f"strategy {self.strategy.name!r} learns from no feedback; take llm or hybrid")
        feedback = valued(feedback, self.config.label_values)
        self._given = first_of_each(feedback, self.applicant_ids, self.cache.has_job, KEPT)
        places = [self._places(i, [j.job_id for j in own]) for i, own in enumerate(self._given)]
        given = [(i, p, j) for i, own in enumerate(self._given) for p, j in zip(places[i], own, strict=True)]
        if given:
            self.judged.give(*map(list, zip(*given, strict=True)))
            self.model.observe(self.judged)

    def _warm_start(self) -> None:
        """Fit Q on the rewards that the model expects before the first judgement."""
        self.q.start_from(self._expected_rewards())
        updates = []
        for _ in range(self.config.warm_start_updates):
            updates = self._plan(1)
        self._stop_broken(updates)
        self.q.sync(tau=1.0)

    @property
    def trust(self) -> JudgeTable | None:
        """The current estimate of what the judge's answers are worth; None where the model takes it as given."""
        return self.model.table if self.strategy.needs_judge else None

    @property
    def _by_trust(self) -> bool:
        """Whether the hybrid strategy weighs texts against judge by the judge's trust."""
        known = self.model.table is not None and self.model.text_rewards is not None
        return known and self.strategy.name == "hybrid" and self.config.weighting == "trust"

    def _weight(self) -> torch.Tensor:
        """Weight in each agent's reward of the cosine, or of the reward expected from the texts, `[agents]`."""
        if self._by_trust and self.model.table is not None:
            return torch.full((len(self.applicant_ids),), (1.0 - self.model.table.trust) ** 2, device=self.device)
        return self.strategy.cosine_weight(self.judged.counts)

    def _text_rewards(self) -> torch.Tensor:
        """What the judge's reward is blended with, `[agents, n_jobs]`: cosines, or rewards expected from the texts."""
        if self._by_trust and self.model.text_rewards is not None:
            return self.model.text_rewards
        return self._cosines

    @property
    def done(self) -> bool:
        """True when every agent has spent its budget, got as many abstentions, asked about all jobs, or failed."""
        return not any(self._remaining())

    def _remaining(self) -> list[int]:
        """Pairs that each agent may still ask about."""
        asked = self.judged.asked.sum(1)
        # An abstention costs a call but no budget; without this limit, a judge that always abstains would be asked
        # about every job.
        patience = self._budget - (asked - self.judged.counts)
        left = torch.minimum(torch.minimum(self._budget - self.judged.spent, patience), self._n_jobs - asked).tolist()
        return [0 if a in self.failures else pairs for a, pairs in zip(self.applicant_ids, left, strict=True)]

    @property
    def epsilon(self) -> torch.Tensor:
        """Chance of a random job on the next slate, `[agents]`."""
        c = self.config
        return (c.epsilon_start * c.epsilon_decay ** self.judged.counts.float()).clamp(min=c.epsilon_end)

    def q_values(self) -> npt.NDArray[np.float32]:
        """Q of every job of the catalogue, `[agents, n_jobs]`, in its order, or of the `candidates` in theirs.

        A finished agent keeps the Q with which it finished, however long the rest of its block continues.
        """
        values = self.q.values()
        for agent, final in self.finished.items():
            values[agent] = final
        return values.cpu().numpy()

    def recommendations(self, k: int) -> list[list[tuple[str, float]]]:
        """The k jobs with the highest Q per agent, best first, judged or not; ties go to the earlier job."""
        ranked = []
        places = np.arange(self._n_jobs)
        for agent, q in enumerate(self.q_values()):
            order = np.lexsort((self.pool.rows(np.full_like(places, agent), places), -q))[:k]
            ranked.append([(self._job_id(agent, place), float(q[place])) for place in order])
        return ranked

    def fit(
        self, source: JudgementSource | None = None, on_round: Callable[[list[RoundMetrics]], None] | None = None
    ) -> DynaQBlock:
        """Run rounds until every agent is done, calling `on_round` after each. Returns the block itself.

        Raises JudgeError when the judge fails; earlier rounds are kept, and another `fit` continues from there.
        """
        for metrics in self.rounds(source):
            if on_round is not None:
                on_round(metrics)
        return self

    def rounds(self, source: JudgementSource | None = None) -> Iterator[list[RoundMetrics]]:
        """Like `fit`, one round at a time, for callers with work to do between rounds."""
        while not self.done:
            yield self.step(source)

    def step(self, source: JudgementSource | None = None) -> list[RoundMetrics]:
        """One round of every agent that is not done. Returns one record per such agent.

        Raises JudgeError when the judge fails; the round then has no effect and can be repeated.
        """
        if self.done:
            return []
        epsilon, weight = self.epsilon.tolist(), self._weight().tolist()
        generators = [g.get_state() for g in self.generators]
        try:
            self._ask_gold(source)
            slates = self.propose()
            answers = self._ask(slates, source)
        except BaseException:
            for generator, state in zip(self.generators, generators, strict=True):
                generator.set_state(state)
            raise
        predicted = self.model.mean.cpu()
        rewards = self._keep(slates, answers, weight)
        updates = self._train()
        self._finish()
        errors: dict[int, list[float]] = {i: [] for i in slates}
        known: dict[int, list[Judgement]] = {i: [] for i in slates}
        for (i, jobs), answer in zip(slates.items(), answers, strict=False):  # no answers where no judge is needed
            told = [(job, j.reward) for job, j in zip(jobs, answer, strict=True) if j.reward is not None]
            errors[i] = [(float(predicted[i, job]) - reward) ** 2 for job, reward in told]
            known[i] = [judgement for judgement in answer if not judgement.abstained]
        abstained = {i: len(slates[i]) - len(rewards[i]) for i in slates}
        return self._metrics(rewards, updates, epsilon, errors, abstained, known)

    def learn_offline(self, judgements: Iterable[Judgement]) -> list[RoundMetrics]:
        """Learn from existing judgements, without acting, for as many rounds as the budget would have allowed.

        judgements: of any applicants; each agent keeps the first `budget` of its own. Abstentions, repeated pairs,
        pairs on which the applicant acted, and jobs outside the catalogue are ignored. Returns one record per agent and
        round, whose rewards are those of all the agent's pairs. Raises InputError for a block that has learned before,
        and for a strategy that needs no judge.
        """
        if not self.strategy.needs_judge:
            raise InputError(f"strategy {self.strategy.name!r} learns from no judgements; offline needs llm or hybrid")
        if self.round:
            raise InputError("offline training starts with a new block; this one has learned before")
        real = [{j.job_id for j in own} for own in self._given]
        judgements = valued(judgements, self.config.label_values)
        answers = first_of_each(judgements, self.applicant_ids, self.cache.has_job, self._budget, real)
        slates = {i: self._places(i, [j.job_id for j in own]) for i, own in enumerate(answers)}
        counts = torch.tensor([len(own) for own in answers])
        before = self._weight() if self._by_trust else self.strategy.cosine_weight(counts)
        rewards = self._keep(slates, answers, before.tolist())
        weight = self._weight().tolist()
        for i, own in enumerate(self._given):
            cosines = [float(self._cosines[i, place]) for place in self._places(i, [j.job_id for j in own])]
            real_rewards = [j.reward for j in own if j.reward is not None]
            rewards[i] += [self.strategy.blend(c, r, weight[i]) for c, r in zip(cosines, real_rewards, strict=True)]
        records = []
        nothing: dict[int, list[float]] = {i: [] for i in slates}
        for _ in range(math.ceil(self._budget / self.config.slate_size)):
            learning = {i: rewards[i] for i in slates if self.applicant_ids[i] not in self.failures}
            updates = self._train()
            told = {i: answers[i] + self._given[i] for i in learning}
            records += self._metrics(learning, updates, [0.0] * len(slates), nothing, dict.fromkeys(slates, 0), told)
        self._finish()
        return records

    def _train(self) -> list[Update]:
        """Learn from a round's answers: world model, direct learning, planning, target network."""
        self.round += 1
        if self.strategy.needs_judge:
            self._exchange_candidates()
            self.model.observe(self.judged)
        updates = self._learn() + self._plan(self.config.planning_updates)
        if self.round % self.config.target_sync == 0:
            self.q.sync()
        self._stop_broken(updates)
        return updates

    def _finish(self) -> None:
        """Keep the Q of agents that have just finished: it must not depend on how long the others take."""
        new = [
            i
            for i, (remaining, applicant_id) in enumerate(zip(self._remaining(), self.applicant_ids, strict=True))
            if remaining <= 0 and i not in self.finished and applicant_id not in self.failures
        ]
        if new:
            values = self.q.values()
            self.finished |= {i: values[i].clone() for i in new}

    def _metrics(
        self,
        rewards: dict[int, list[float]],
        updates: list[Update],
        epsilon: list[float],
        errors: dict[int, list[float]],
        abstained: dict[int, int],
        answers: dict[int, list[Judgement]],
    ) -> list[RoundMetrics]:
        """One record for each agent in `rewards`."""
        counts, spent = self.judged.counts.tolist(), self.judged.spent.tolist()
        weight = self._weight().tolist()
        trust = self.trust.trust if self.trust is not None else math.nan
        direct, planning = mean_loss(updates, "direct"), mean_loss(updates, "planning")
        return [
            RoundMetrics(
                applicant_id=self.applicant_ids[i],
                round=self.round,
                judgements_used=spent[i] if self.strategy.needs_judge else 0,
                mean_reward=mean_known(own),
                cumulative_reward=self.cumulative[i],
                epsilon=epsilon[i],
                w_cosine=weight[i],
                q_loss=direct[i] if direct and counts[i] else math.nan,
                model_loss=mean_known(errors[i]),
                planning_loss=planning[i] if planning else math.nan,
                abstained=abstained[i],
                judge_reward=mean_known([j.reward for j in answers[i] if j.reward is not None]),
                applied=count_label(answers[i], "APPLY"),
                saved=count_label(answers[i], "SAVE"),
                clicked=count_label(answers[i], "CLICK"),
                ignored=count_label(answers[i], "IGNORE"),
                trust=trust,
            )
            for i, own in rewards.items()
        ]

    def propose(self) -> dict[int, list[int]]:
        """Agent → catalogue indices of its next slate: best Q (plus ucb·deviation) first, some at random."""
        scores = (self.q.values() + self.config.ucb * self.model.deviation).masked_fill(self.judged.asked, -math.inf)
        best = torch.topk(scores, min(self.config.slate_size, self._n_jobs), dim=1).indices.tolist()
        epsilon, remaining = self.epsilon.tolist(), self._remaining()
        slates = {}
        for i, generator in enumerate(self.generators):
            if remaining[i] <= 0:
                continue
            slate: list[int] = best[i][: remaining[i]]
            if probes := self._probes(slate):
                slate = probe(slate, self._anything(i), probes, generator)
            if epsilon[i] > 0:
                free = torch.nonzero(~self.judged.asked[i]).squeeze(1).cpu()
                slate = explore(slate, free, epsilon[i], generator)
            slates[i] = slate
        return slates

    def _anything(self, agent: int) -> torch.Tensor:
        """Places of jobs that stand for the catalogue, `[n]`; of candidates those that were taken at random."""
        free = ~self.judged.asked[agent]
        if isinstance(self.pool, CandidatePool):
            others = torch.topk(self._cosines[agent], self._n_jobs // RANDOM_SHARE, largest=False).indices
            free &= torch.zeros_like(free).index_fill(0, others, True)
        return torch.nonzero(free).squeeze(1).cpu()

    def _probes(self, slate: list[int]) -> int:
        """Jobs of the first slate that are picked at random, so that the judge is heard on jobs that do not fit."""
        return min(self.config.probes, len(slate) // 2) if self.round == 0 and self.trust is not None else 0

    def _ask_gold(self, source: JudgementSource | None) -> None:
        """Have the judge answer the pairs of known truth, before the first round."""
        if self._gold and source is not None and self.trust is not None:
            self.model.anchor(answered_gold(self._gold, source, self.cache, self.applicant_ids))
            self._gold = []

    def _ask(self, slates: dict[int, list[int]], source: JudgementSource | None) -> list[list[Judgement]]:
        """The judge's answers, one list per slate; none for a strategy that needs no judge."""
        if not self.strategy.needs_judge:
            return []
        if source is None:
            raise InputError(f"strategy {self.strategy.name!r} needs a judge; name one with --judge")
        asked = [Slate(self.applicant_ids[i], tuple(self._job_id(i, j) for j in jobs)) for i, jobs in slates.items()]
        return ask(source, asked, self.config.label_values)

    def _keep(
        self, slates: dict[int, list[int]], answers: list[list[Judgement]], weight: list[float]
    ) -> dict[int, list[float]]:
        """Put a round's pairs into the replay. Returns their rewards under the strategy, without abstentions."""
        agents = [i for i, jobs in slates.items() for _ in jobs]
        jobs = [job for slate in slates.values() for job in slate]
        cosines = self._cosines[agents, jobs].tolist()
        rewards: dict[int, list[float]] = {i: [] for i in slates}
        if self.strategy.needs_judge:
            judgements = [judgement for answer in answers for judgement in answer]
            self.judged.add(agents, jobs, judgements)
            for i, cosine, judgement in zip(agents, cosines, judgements, strict=True):
                if judgement.reward is not None:
                    rewards[i].append(self.strategy.blend(cosine, judgement.reward, weight[i]))
        else:
            self.judged.add_known(agents, jobs, cosines)
            for i, cosine in zip(agents, cosines, strict=True):
                rewards[i].append(cosine)
        for i, own in rewards.items():
            self.cumulative[i] += sum(own)
        return rewards

    def _expected_rewards(self) -> torch.Tensor:
        """Reward of every job under the strategy that the model now expects, `[agents, n_jobs]`."""
        return self.strategy.blend(self._text_rewards(), self.model.mean, self._weight()[:, None])

    def _learn(self) -> list[Update]:
        """Direct updates on judged pairs with believed rewards."""
        judged = self.judged.rewards
        if self.strategy.needs_judge:
            believed = self.model.believed
            judged = functional.pad(believed, (0, judged.shape[1] - believed.shape[1]))
        texts = self._text_rewards().gather(1, self.judged.jobs)
        rewards = self.strategy.blend(texts, judged, self._weight()[:, None])
        updates = []
        for _ in range(self.config.direct_updates):
            slots = self.judged.draw(self.config.batch_size, self.generators)
            jobs, filled = self.judged.jobs.gather(1, slots), self.judged.filled().gather(1, slots).float()
            updates.append(Update("direct", jobs, filled, self.q.update(jobs, rewards.gather(1, slots), filled)))
        return updates

    def _plan(self, updates: int) -> list[Update]:
        """Planning updates with the model's rewards."""
        if self.config.planning == "replay" and self.round == 0:
            return []
        expected = self._expected_rewards()
        done = []
        for _ in range(updates):
            jobs, weights = self.planning_jobs(expected)
            done.append(Update("planning", jobs, weights, self.q.update(jobs, expected.gather(1, jobs), weights)))
        return done

    def planning_jobs(self, expected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Jobs to ask the world model about, `[agents, batch]`, and their weights.

        The whole catalogue if it fits into a batch. Otherwise half of the batch are the jobs whose reward plus
        uncertainty is highest (prioritised as in Moore & Atkeson 1993), of candidates one half of these those whose
        reward is, and half are random, so that none is neglected.
        """
        if self.config.planning == "replay":
            slots = self.judged.draw(self.config.planning_batch, self.generators)
            return self.judged.jobs.gather(1, slots), self.judged.filled().gather(1, slots).float()
        batch = self.config.planning_batch
        if self._n_jobs <= batch:
            jobs = self._inputs.everything
        else:
            best = torch.topk(expected + self.model.deviation, batch // 2, dim=1).indices
            if isinstance(self.pool, CandidatePool):
                # Candidates are alike, and most uncertain: without the surest ones Q ranks them by old values.
                best = torch.cat(
                    [torch.topk(expected, batch // 4, dim=1).indices, best[:, : batch // 2 - batch // 4]], 1
                )
            draws = [torch.randint(0, self._n_jobs, (batch - batch // 2,), generator=g) for g in self.generators]
            jobs = torch.cat([best, torch.stack(draws).to(self.device)], dim=1)
        return jobs, torch.ones(jobs.shape, device=self.device)

    def _stop_broken(self, updates: list[Update]) -> None:
        """Stop each agent whose loss is not finite, recording its round and batch; the others are independent of it."""
        if not updates:
            return
        broken = ~torch.isfinite(torch.stack([update.losses for update in updates]))
        for i in torch.nonzero(broken.any(0)).flatten().tolist():
            if i in self.finished:
                continue
            update = updates[int(broken[:, i].int().argmax())]
            jobs = [self._job_id(i, j) for j in update.jobs[i][update.weights[i] > 0].tolist()]
            batch = ", ".join(jobs[:5]) + (f" and {len(jobs) - 5} more" if len(jobs) > 5 else "")
            applicant = self.applicant_ids[i]
            self.failures.setdefault(
                applicant,
                f"applicant {applicant!r}, round {self.round}: {update.kind} loss is not finite, batch of {batch}",
            )
