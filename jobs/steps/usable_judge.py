"""Before a judge is paid for: can it tell these jobs apart? If not, it is calibrated, or the command stops."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cluster.broker import JudgeBackend, LazyJudge
from dynaq.errors import JudgeError
from dynaq.evaluation.probe import Finding, examine, probe_slates
from dynaq.judging.history import without_memory
from dynaq.judging.judgement import Judgement, Slate
from dynaq.judging.ledger_first import LedgerFirst
from dynaq.personal.redaction import judged_candidates
from dynaq.runs.folder import CONFIG, RunFolder
from dynaq.stores import Store, open_store
from jobs.steps import judge_backend
from jobs.steps.judge_backend import engine_backend, engine_config
from jobs.steps.prepare import Prepared
from jobs.terminal.console import say, step
from reward_service.calibration import PAIRS, fit_judge
from reward_service.config import JudgeConfig

META = "judges"  # store meta: fingerprint without memory -> the fields that calibration replaced in the configuration
LONG_PROSE = 400  # characters of a posting's text, beyond which most of it does not fit into a `likelihood` prompt


def usable_judge(
    judge: str, backend: JudgeBackend, prepared: Prepared, folder: RunFolder | None, mode: str | None
) -> JudgeBackend:
    """The judge to train with on the connected Ray: the one that was asked for, or what calibration made of it.

    Asks about a few pairs, the ledger first. A run in `folder` that is resumed keeps its judge and asks nothing;
    neither does a judge that replays a ledger. Raises JudgeError, naming what to do, when the judge gives all pairs
    one answer. The pairs are asked about without a history, also of a judge with memory.
    """
    if not backend.keep:
        return backend
    found = _usable(judge, backend, prepared, folder, mode)
    return replace(found, histories=backend.histories, told_until=backend.told_until)


def _usable(
    judge: str, backend: JudgeBackend, prepared: Prepared, folder: RunFolder | None, mode: str | None
) -> JudgeBackend:
    config = engine_config(judge)
    own = config if config is not None and _may_calibrate(config, mode) else None
    with open_store(prepared.store_uri, read_only=True) as store:
        known = store.meta().get(META, {}).get(without_memory(backend.fingerprint))
    fitted = engine_backend(own, known) if own is not None and known else None
    if folder is not None and folder.exists(CONFIG):
        before = folder.read_yaml(CONFIG).get("judge_fingerprint")
        return fitted if fitted is not None and fitted.fingerprint == before else backend
    if mode == "off":
        return backend
    if fitted is not None:
        say(f"Judge {fitted.fingerprint}: calibrated for this store", "dim")
        _refuse_blind(_probe(prepared, fitted), fitted, judge, config, prepared)
        return fitted
    if own is None:
        if config is not None and not config.calibrated:
            raise JudgeError(
                f"judge {backend.fingerprint}: its thresholds were not fitted for it, so its answers say little; "
                f"{_mend(judge, config, prepared)}"
            )
        _refuse_blind(_probe(prepared, backend), backend, judge, config, prepared)
        return backend
    reason = _why_calibrate(own, backend, prepared)
    return _calibrate(own, backend, judge, prepared, reason) if reason else backend


def _may_calibrate(config: JudgeConfig, mode: str | None) -> bool:
    """Thresholds that somebody chose are not replaced, and method `choice` has none."""
    packaged = config.model is None and config.endpoint is None
    wanted = mode == "auto" or (mode is None and packaged)
    return wanted and config.method_name == "likelihood" and config.thresholds is None


def _why_calibrate(config: JudgeConfig, backend: JudgeBackend, prepared: Prepared) -> str:
    """Why this judge needs thresholds of its own for this store; "" when it does not."""
    if not config.calibrated:
        return "has no thresholds of its own"
    if _shows_prose(prepared, backend):
        return "was fitted on lists of skills, and most postings here are long prose"
    finding = _probe(prepared, backend)
    if finding.blind:
        return f"{finding}, near and far ones alike: its thresholds were fitted for other postings"
    if finding.implausible:
        return f"gives {finding.above_ignore:.0%} of all pairs more than IGNORE: its thresholds were fitted for others"
    return ""


def _shows_prose(prepared: Prepared, backend: JudgeBackend) -> bool:
    """Whether most postings of the probe have no skills and more prose than fits, and no answers would be lost."""
    shown = list(dict.fromkeys(job for slate in _slates(prepared) for job in slate.job_ids))
    with open_store(prepared.store_uri, read_only=True) as store:
        if store.judgements(without_memory(backend.fingerprint), list(prepared.cohort)).num_rows:
            return False
        prose = [
            not (job.technical_skills or job.soft_skills) and len(job.description) > LONG_PROSE
            for job in store.records("job", shown)
        ]
    return 2 * sum(prose) > len(prose)


def _slates(prepared: Prepared) -> list[Slate]:
    return probe_slates(prepared.cache, prepared.cohort)


def _probe(prepared: Prepared, backend: JudgeBackend) -> Finding:
    slates = _slates(prepared)
    with open_store(prepared.store_uri) as store:
        answers, paid = asyncio.run(_ask(store, backend, slates))
    finding = examine(answers)
    say(f"Judge {backend.fingerprint}: {finding} asked first ({paid} new to the ledger)", "dim")
    return finding


async def _ask(store: Store, backend: JudgeBackend, slates: Sequence[Slate]) -> tuple[list[list[Judgement]], int]:
    ledger = LedgerFirst(store, LazyJudge(backend.start), backend.fingerprint)
    return await ledger.fetch(slates), ledger.judged


def _calibrate(config: JudgeConfig, backend: JudgeBackend, judge: str, prepared: Prepared, reason: str) -> JudgeBackend:
    """Fit the judge to the store, and keep what was fitted there."""
    say(f"Judge {backend.fingerprint} {reason}. It is calibrated for this store (--calibrate off keeps it as it is).")
    with open_store(prepared.store_uri, read_only=True) as store:
        applicants = list(judged_candidates(store, _some(prepared.cohort)))
        jobs = list(store.records("job", _some(prepared.cache.job_ids)))
    with step(f"Fitting its thresholds on {PAIRS} random pairs"):
        engine = judge_backend.start_engine(config)
        fitted = asyncio.run(fit_judge(engine, config, applicants, jobs))
    fields: dict[str, Any] = {
        "condense": fitted.condense,
        "halves": fitted.halves,
        "thresholds": fitted.cut_points.model_dump(),
    }
    made = engine_backend(config, fields)
    finding = _probe(prepared, made)
    _refuse_blind(finding, made, judge, fitted, prepared)
    with open_store(prepared.store_uri) as store:
        store.put_meta(**{META: store.meta().get(META, {}) | {without_memory(backend.fingerprint): fields}})
    say(f"Judge {made.fingerprint} is remembered in the store and takes the place of {backend.fingerprint}.")
    return made


def _some(ids: Sequence[str]) -> list[str]:
    """At most PAIRS of the ids, seeded, since more cannot be in as many pairs."""
    return [ids[i] for i in sorted(np.random.default_rng(0).permutation(len(ids))[:PAIRS])]


def _refuse_blind(
    finding: Finding, backend: JudgeBackend, judge: str, config: JudgeConfig | None, prepared: Prepared
) -> None:
    if finding.blind:
        raise JudgeError(
            f"judge {backend.fingerprint} {finding}, near and far ones alike, so no agent could learn from it; "
            f"{_mend(judge, config, prepared)}"
        )


def _mend(judge: str, config: JudgeConfig | None, prepared: Prepared) -> str:
    """What to do about a judge that is blind or not calibrated."""
    store = prepared.store_shown
    anyway = "(--calibrate off uses it all the same)"
    if config is None:
        return (
            "the judge's service has to be mended: where it runs, `dynaq judge --check` measures its model; "
            f"or take --judge vllm, or --strategy cosine {anyway}"
        )
    if config.method_name == "likelihood" and not (config.calibrated and config.condense):
        return (
            f"fit it: `dynaq judge --store {store} --judge {judge} --calibrate judge.yaml`, then --judge "
            f"vllm:judge.yaml {anyway}"
        )
    measure = "" if prepared.qrels is not None else " --qrels FILE"
    return (
        f"measure which method works for its model: `dynaq judge --store {store} --judge {judge} --check{measure}`; or "
        f"take a larger instruct model, or --strategy cosine {anyway}"
    )
