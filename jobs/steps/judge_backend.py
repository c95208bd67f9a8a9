"""What `--judge` means: the judge that a broker starts, or recorded judgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.broker import JudgeBackend
from dynaq.errors import InputError
from dynaq.judging.judgement import JUDGEMENT_SCHEMA, AsyncJudge, Judgement
from dynaq.judging.ledger_file import LEDGER, ReplayJudge, ledger_fingerprint, read_ledger
from dynaq.records import Candidate, Job
from reward_service.client import ServeJudge
from reward_service.config import JudgeConfig
from reward_service.judge_by_url import judge_at

VLLM = "vllm"
NO_JUDGE = "none"


class Replay:
    """A recorded ledger as the broker's judge."""

    def __init__(self, path: str) -> None:
        self._judge = ReplayJudge(path)

    async def judge_async(self, applicant: Candidate, jobs: Sequence[Job]) -> list[Judgement]:
        """The recorded judgements, in order. Raises JudgeError for a pair that is not in the ledger."""
        answers: list[Judgement] = self._judge.judge(applicant, jobs)
        return answers


def judge_backend(judge: str) -> JudgeBackend:
    """The judge of `vllm`, `vllm:CONFIG.yaml`, `ledger:PATH` or a URL, not started yet. Raises InputError on others."""
    kind, _, path = judge.partition(":")
    config = engine_config(judge)
    if config is not None:
        return engine_backend(config)
    if judge.startswith(LEDGER) and path:
        replay = str(Path(path).resolve())
        return JudgeBackend(ReplayJudge(replay).fingerprint, partial(Replay, replay), keep=False)
    if kind in ("http", "https"):
        return JudgeBackend(*judge_at(judge))
    raise InputError(f"judge {judge!r} does not exist; use vllm, vllm:CONFIG.yaml, ledger:PATH or a URL")


def engine_config(judge: str) -> JudgeConfig | None:
    """The configuration of `vllm` or `vllm:CONFIG.yaml`; None for other judges."""
    kind, _, path = judge.partition(":")
    return JudgeConfig.load(path or None) if kind == VLLM else None


def engine_backend(config: JudgeConfig, calibration: Mapping[str, Any] | None = None) -> JudgeBackend:
    """The judge of an engine; `calibration`: fields that replace the configuration's, answered on the same engine."""
    judge = JudgeConfig(**(config.model_dump(exclude_none=True) | dict(calibration or {})))
    start = partial(_start_judge, config, calibration)
    return JudgeBackend(judge.fingerprint, start, cpus=config.num_cpus * config.replicas)


def read_gold(path: str | None) -> tuple[pa.Table | None, str | None]:
    """Labels of `--gold FILE` with the columns of JUDGEMENT_SCHEMA, and what tells two such files apart."""
    return (read_ledger(path), ledger_fingerprint(path)) if path else (None, None)


def offline_ledger(judge: str, strategy: str) -> pa.Table:
    """The judgements of `ledger:PATH`, for training without acting; empty for `none`. Raises InputError for others."""
    if strategy == "cosine":
        raise InputError("--offline learns from judgements, which --strategy cosine does not use; take llm or hybrid")
    if judge == NO_JUDGE:
        return JUDGEMENT_SCHEMA.empty_table()
    if not judge.startswith(LEDGER):
        raise InputError(f"--offline needs recorded judgements: --judge ledger:PATH, found {judge!r}")
    return read_ledger(judge.removeprefix(LEDGER))


def check_feedback(strategy: str, judge: str, feedback: bool) -> None:
    """Raises InputError when strategy, judge and feedback contradict each other."""
    if feedback and strategy == "cosine":
        raise InputError("--strategy cosine does not learn from --feedback; take llm or hybrid")
    if judge == NO_JUDGE and not feedback and strategy != "cosine":
        raise InputError("--judge none learns from logged events alone; add --feedback, or name a judge")


def start_engine(config: JudgeConfig) -> ServeJudge:
    """The engine on the Ray cluster of this process, started unless it runs already."""
    from reward_service.app import start_judge

    return start_judge(config)


def _start_judge(config: JudgeConfig, calibration: Mapping[str, Any] | None) -> AsyncJudge:
    engine = start_engine(config)
    return engine.variant(config, **calibration) if calibration else engine
