"""What `--judge` means: the judge that a broker starts, or recorded judgements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.broker import JudgeBackend
from dynaq.errors import InputError, JudgeError
from dynaq.judging.history import with_history
from dynaq.judging.judgement import JUDGEMENT_SCHEMA, AsyncJudge
from dynaq.judging.ledger_file import LEDGER, ReplayJudge, check_ledger, ledger_fingerprint, read_ledger
from dynaq.personal.redaction import judged_candidates
from dynaq.runs.folder import GOLD, RunFolder
from dynaq.stores import mask_uri, open_store
from jobs.steps.feedback_answers import told
from jobs.steps.prepare import Prepared
from jobs.terminal.console import say
from reward_service.client import ServeJudge
from reward_service.config import JudgeConfig
from reward_service.judge_by_url import Endpoint, judge_at

VLLM = "vllm"
NO_JUDGE = "none"
QUOTED = 50  # applicants whose texts stand for all in a quote


def judge_backend(judge: str, folder: RunFolder | None = None, **terms: float | None) -> JudgeBackend:
    """The judge of `vllm`, `vllm:CONFIG.yaml`, `ledger:PATH` or a URL, not started yet. Raises InputError on others.

    folder: run folder that keeps an endpoint's costs. terms: `samples`, `price_in`, `price_out` and `max_cost`.
    """
    kind, _, path = judge.partition(":")
    given = {name: value for name, value in terms.items() if value is not None}
    if given and not path:
        raise InputError(f"{', '.join(given)}: only for an endpoint, and --judge {judge} is none")
    config = engine_config(judge, **given)
    if config is not None:
        if config.endpoint is not None:
            return JudgeBackend(config.fingerprint, _probed(config, folder), model=config.model_name)
        return engine_backend(config)
    if judge.startswith(LEDGER) and path:
        if given:
            raise InputError(f"{', '.join(given)}: a recorded ledger costs nothing; leave it out")
        replay = str(Path(path).resolve())
        check_ledger(replay)  # an error in it is found before anything starts
        # A class that is light to import: the broker's process would load torch for a function of this module.
        return JudgeBackend(ledger_fingerprint(replay), partial(ReplayJudge, replay), keep=False)
    if kind in ("http", "https"):
        fingerprint, start = judge_at(judge, folder, **given)
        model = start.config.model_name if isinstance(start, Endpoint) else None
        return JudgeBackend(fingerprint, start, model=model)
    raise InputError(f"judge {judge!r} does not exist; use vllm, vllm:CONFIG.yaml, ledger:PATH or a URL")


def _probed(config: JudgeConfig, folder: RunFolder | None) -> Endpoint:
    try:
        return Endpoint.probed(config, folder)
    except JudgeError as error:
        raise InputError(f"{mask_uri(str(config.endpoint))} is no judge: {error}") from error


def quoted_backend(
    judge: str,
    folder: RunFolder,
    prepared: Prepared,
    judgements: int,
    terms: Mapping[str, float | None],
    until: str | None = None,
) -> JudgeBackend:
    """The judge of a run (see `judge_backend`). Where calls cost money, prints the most that `judgements` can cost.

    until: ISO time; a judge with memory is told only of events before it. None means now.
    """
    backend = told(judge_backend(judge, folder, **terms), prepared.store_uri, prepared.cohort, folder, until)
    if cost := quote(backend, prepared.store_uri, prepared.cohort, judgements):
        say(f"judge: {cost}")
    return backend


def quote(backend: JudgeBackend, store_uri: str, applicants: Sequence[str], judgements: int) -> str | None:
    """What an endpoint's judgements cost at most, in words; None for a judge that costs nothing per call."""
    if not isinstance(backend.start, Endpoint):
        return None
    with open_store(store_uri, read_only=True) as store:
        people = list(judged_candidates(store, list(applicants[:QUOTED])))
        jobs = list(islice(store.records("job"), len(people)))
        own = {person.id: backend.histories.get(person.id, ()) for person in people}
        named = list({event.job_id for history in own.values() for event in history})
        known = {job.id: job for job in store.records("job", named)} if named else {}
    people = [with_history(person, own[person.id], known) for person in people]
    return backend.start.quote(list(zip(people, jobs, strict=False)), judgements)


def engine_config(judge: str, **terms: float | None) -> JudgeConfig | None:
    """The configuration of `vllm` or `vllm:CONFIG.yaml`, with other terms where given; None for other judges."""
    kind, _, path = judge.partition(":")
    return JudgeConfig.load(path or None, **terms) if kind == VLLM else None


def engine_backend(config: JudgeConfig, calibration: Mapping[str, Any] | None = None) -> JudgeBackend:
    """The judge of an engine; `calibration`: fields that replace the configuration's, answered on the same engine."""
    judge = JudgeConfig(**(config.model_dump(exclude_none=True) | dict(calibration or {})))
    start = partial(_start_judge, config, calibration)
    cpus = config.num_cpus * config.replicas
    return JudgeBackend(judge.fingerprint, start, cpus=cpus, divisible=True, model=judge.model_name)


def read_gold(path: str | None) -> tuple[pa.Table | None, str | None]:
    """Labels of `--gold FILE` with the columns of JUDGEMENT_SCHEMA, and what tells two such files apart."""
    return (read_ledger(path), ledger_fingerprint(path)) if path else (None, None)


def keep_gold(folder: RunFolder, labels: pa.Table | None, prepared: Prepared) -> None:
    """Write the labels of `--gold` into the run folder, without those of applicants whom the store does not have."""
    if labels is not None:
        known = pa.array(prepared.cache.applicant_ids, pa.string())
        folder.write_table(GOLD, labels.filter(pc.is_in(labels["applicant_id"], known)))


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
