"""An actor that trains blocks of agents one after another, checkpoints them and writes each finished block's tables."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from ray.actor import ActorHandle

from cluster.broker import BrokerClient
from cluster.cache import CacheRef
from cluster.metrics import BlockMetrics
from dynaq.agent.checkpoint import load_block, save_block
from dynaq.agent.config import DynaQConfig
from dynaq.agent.dyna_q import DynaQBlock
from dynaq.agent.reward_strategy import make_strategy
from dynaq.evaluation.ranking import ranking_metrics
from dynaq.judging.judgement import Judgement
from dynaq.judging.ledger_file import judgements
from dynaq.means import mean_known
from dynaq.pretraining.prior import Pretrained
from dynaq.runs.folder import METRICS, RECOMMENDATIONS, RunFolder
from dynaq.runs.judge_tables import JUDGE_TABLE_SCHEMA, JUDGE_TABLES, judge_table_row
from dynaq.runs.q_table import write_q_values

RECOMMENDATIONS_KEPT = 100  # per applicant in the run folder
CHECKPOINT_SECONDS = 60.0  # bounds the training lost when an actor dies; its judgements are safe in the ledger
LEARNING_METRICS = ("q_loss", "model_loss", "planning_loss", "epsilon", "w_cosine", "trust")

RECOMMENDATION_SCHEMA = pa.schema(
    [("applicant_id", pa.string()), ("rank", pa.int32()), ("job_id", pa.string()), ("q_value", pa.float32())]
)


@dataclass(frozen=True)
class Block:
    """Agents that train together. Blocks follow the cohort's order alone, so the number of actors cannot change a run.

    grades: applicant -> job -> relevance, for the learning curve; empty when unknown.
    """

    index: int
    applicant_ids: tuple[str, ...]
    grades: Mapping[str, Mapping[str, float]]

    @property
    def pointer(self) -> str:
        """Path of the file that names the block's newest complete checkpoint; replaced atomically."""
        return f"agents/block_{self.index:05d}.json"

    def checkpoint(self, round_: int) -> str:
        """Path of the checkpoint after a round, relative to the run folder."""
        return f"agents/block_{self.index:05d}-{round_:04d}"


@dataclass(frozen=True)
class BlockProgress:
    """What an actor reports to the driver after each round.

    Args:
        index: of the block.
        round: rounds done.
        judgements: spent so far, summed over the block's agents.
        reward: mean reward of the last round's slates over agents; NaN before the first.
        ndcg: mean nDCG@10 over agents with known relevance; NaN when there are none.
        done: whether the block's tables are in the run folder.
        failures: applicant -> why no agent could be trained.
        learning: means of the last round's losses, exploration rate and weights, keyed by field of RoundMetrics.
        checkpoint: path of the newest checkpoint if it is not the block's own of that round: `dynaq forget` moves it.
    """

    index: int
    round: int
    judgements: int
    reward: float
    ndcg: float
    done: bool
    failures: dict[str, str]
    learning: dict[str, float] = field(default_factory=dict)
    checkpoint: str = ""

    def place(self, block: Block) -> str:
        """Path of the newest checkpoint, relative to the run folder."""
        return self.checkpoint or block.checkpoint(self.round)


@dataclass(frozen=True)
class TrainingJob:
    """What all blocks of a run have in common."""

    cache: CacheRef
    strategy: str
    config: DynaQConfig
    broker: ActorHandle[Any] | None
    folder: RunFolder
    device: str = "cpu"
    pretrained: Pretrained | None = None
    offline: pa.Table | None = None  # judgements to learn from instead of acting; columns of JUDGEMENT_SCHEMA
    feedback: pa.Table | None = None  # answers that applicants gave themselves; the same columns
    gold: pa.Table | None = None  # hand-made labels that anchor the estimate of the judge; the same columns
    report_seconds: float = 0.0  # between two reports of a block to the driver; 0: after every round


class BlockActor:
    """Class of the training actors. One torch thread each: on stacked small networks more actors beat more threads."""

    def __init__(self, job: TrainingJob) -> None:
        torch.set_num_threads(1)
        self._job = job
        self._cache = job.cache.attach()
        self._metrics = BlockMetrics(job.strategy)
        self._source = BrokerClient(job.broker, payer=job.folder.uri) if job.broker is not None else None

    def train(self, block: Block) -> Iterator[BlockProgress]:
        """Train to the budget, from the newest checkpoint if there is one.

        Yields at the end, and before it after every round or `report_seconds`.
        """
        agents, history, tables, round_, place = self._restore(block)
        saved, used = time.monotonic(), 0
        reported = time.monotonic()
        if history:
            progress = _progress(block, round_, history, done=False, failures=agents.failures)
            used = progress.judgements
            yield progress
        if self._job.offline is not None and not history:
            rows = [asdict(metrics) for metrics in agents.learn_offline(judgements(self._job.offline))]
            history.extend(rows)
            round_ = agents.round
            tables += _judge_tables(block, agents)
        began = time.monotonic()
        for metrics in agents.rounds(self._source) if self._job.offline is None else ():
            rows = [asdict(one) for one in metrics]
            seconds = time.monotonic() - began
            round_ += 1
            tables += _judge_tables(block, agents)
            self._add_relevance(block, agents, rows)
            history.extend(rows)
            if time.monotonic() - saved > CHECKPOINT_SECONDS and not agents.done:
                place = self._save(block, agents, history, tables, round_, place, done=False)
                saved = time.monotonic()
            progress = _progress(block, round_, history, done=False, failures=agents.failures)
            self._metrics.round_done(seconds, progress.judgements - used)
            used = progress.judgements
            if time.monotonic() - reported >= self._job.report_seconds:
                yield progress
                reported = time.monotonic()
            began = time.monotonic()
        self._save(block, agents, history, tables, round_, place, done=True)
        yield _progress(block, round_, history, done=True, failures=agents.failures)

    def _restore(self, block: Block) -> tuple[DynaQBlock, list[dict[str, Any]], list[dict[str, Any]], int, str]:
        """The block, its history and estimates of the judge, the round, and the checkpoint they are from, if any."""
        folder = self._job.folder
        if not folder.exists(block.pointer):
            strategy = make_strategy(self._job.strategy, self._job.config)
            agents = DynaQBlock(
                self._cache,
                block.applicant_ids,
                strategy,
                self._job.config,
                self._job.pretrained,
                self._job.device,
                self._feedback(block),
                judgements(self._job.gold) if self._job.gold is not None else None,
            )
            return agents, [], [], 0, ""
        progress = BlockProgress(**folder.read_json(block.pointer))
        with folder.as_local(progress.place(block)) as path:
            history = pq.read_table(path / METRICS).to_pylist()
            tables = pq.read_table(path / JUDGE_TABLES).to_pylist() if (path / JUDGE_TABLES).exists() else []
            agents = load_block(path, self._cache, self._job.pretrained, self._job.device)
        return agents, history, tables, progress.round, progress.place(block)

    def _feedback(self, block: Block) -> Iterator[Judgement] | None:
        """Answers that the block's applicants gave themselves; None when the run learns from no feedback."""
        table = self._job.feedback
        if table is None:
            return None
        return judgements(table.filter(pc.is_in(table.column("applicant_id"), pa.array(block.applicant_ids))))

    def _save(
        self,
        block: Block,
        agents: DynaQBlock,
        history: list[dict[str, Any]],
        tables: list[dict[str, Any]],
        round_: int,
        previous: str,
        *,
        done: bool,
    ) -> str:
        """Write the new checkpoint, point to it, then remove the old one: the pointer never names a partial one.

        Returns the new one's path. previous: the old one's, empty if there is none.
        """
        folder, place = self._job.folder, block.checkpoint(round_)
        with folder.new_folder(place) as path:
            save_block(agents, path)
            pq.write_table(pa.Table.from_pylist(history), path / METRICS)
            pq.write_table(pa.Table.from_pylist(tables, schema=JUDGE_TABLE_SCHEMA), path / JUDGE_TABLES)
            if done:
                pq.write_table(_recommendations(block, agents), path / RECOMMENDATIONS)
                whole = [i for i, one in enumerate(block.applicant_ids) if one not in agents.failures]
                names, candidates = [block.applicant_ids[i] for i in whole], agents.candidates()
                write_q_values(path, names, agents.q_values()[whole], None if candidates is None else candidates[whole])
        last = asdict(_progress(block, round_, history, done=done, failures=agents.failures))
        folder.write_json(block.pointer, last)
        if previous not in ("", place):
            folder.remove(previous)
        return place

    def _add_relevance(self, block: Block, agents: DynaQBlock, rows: list[dict[str, Any]]) -> None:
        """Add the quality of each agent's ranking after this round to its row, for the learning curves."""
        if not block.grades:
            return
        ranked = dict(zip(block.applicant_ids, agents.recommendations(RECOMMENDATIONS_KEPT), strict=True))
        for row in rows:
            applicant_id = row["applicant_id"]
            job_ids = [job_id for job_id, _ in ranked[applicant_id]]
            row |= ranking_metrics(job_ids, block.grades.get(applicant_id, {}))


def _judge_tables(block: Block, agents: DynaQBlock) -> list[dict[str, Any]]:
    """The block's estimate of the judge after this round; none for a world model that makes none."""
    return [judge_table_row(block.index, agents.round, agents.trust)] if agents.trust is not None else []


def _recommendations(block: Block, agents: DynaQBlock) -> pa.Table:
    rows = [
        {"applicant_id": applicant_id, "rank": rank, "job_id": job_id, "q_value": q}
        for applicant_id, ranked in zip(block.applicant_ids, agents.recommendations(RECOMMENDATIONS_KEPT), strict=True)
        if applicant_id not in agents.failures
        for rank, (job_id, q) in enumerate(ranked, start=1)
    ]
    return pa.Table.from_pylist(rows, schema=RECOMMENDATION_SCHEMA)


def _progress(
    block: Block, round_: int, history: list[dict[str, Any]], *, done: bool, failures: Mapping[str, str]
) -> BlockProgress:
    spent: dict[str, int] = {}
    for row in history:
        spent[row["applicant_id"]] = row["judgements_used"]
    last = max((row["round"] for row in history), default=0)
    newest = [row for row in history if row["round"] == last]
    return BlockProgress(
        block.index,
        round_,
        sum(spent.values()),
        mean_known([row["mean_reward"] for row in newest]),
        mean_known([row.get("ndcg", float("nan")) for row in newest]),
        done,
        dict(failures),
        {name: mean_known([row.get(name) for row in newest]) for name in LEARNING_METRICS},
    )
