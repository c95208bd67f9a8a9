"""What train, tune and demo share: check the input, load the cache, open the run folder, report failed applicants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dynaq.agent.config import DynaQConfig
from dynaq.agent.reward_strategy import make_strategy
from dynaq.errors import DynaqError, InputError
from dynaq.job_index import with_index
from dynaq.judging.ledger_file import LEDGER
from dynaq.pretraining.prior import Pretrained
from dynaq.qrels import Qrels
from dynaq.runs.folder import CONFIG, RunFolder, cohort_digest
from dynaq.stores import absolute, mask_uri, open_store
from dynaq.tensor_cache import TensorCache
from jobs.steps.cohort import read_cohort, relevance
from jobs.steps.environment import environment
from jobs.terminal.console import errors

NO_VECTORS = "has no usable vectors in the store; ingest it again"


@dataclass(frozen=True)
class Prepared:
    """What a run needs from its store.

    Args:
        store_uri: as the user gave it (may hold credentials; never written to a file).
        store_shown: the same without credentials.
        cache: catalogue and cohort.
        cohort: applicants that can be trained, in the order asked for.
        failures: applicant -> why it cannot.
        qrels: relevance, if known.
    """

    store_uri: str
    store_shown: str
    cache: TensorCache
    cohort: tuple[str, ...]
    failures: dict[str, str]
    qrels: Qrels | None


def prepare(
    store_uri: str, cohort: str, layout: str | None, qrels: str | None, candidates: int | None = None
) -> Prepared:
    """Read the store. Raises InputError for a store, applicant or catalogue that is not there.

    candidates: the jobs that an agent considers; a larger catalogue gets its index (`dynaq.job_index`), which lies in
    the store once it was built.
    """
    with open_store(store_uri, read_only=True) as store:
        wanted = read_cohort(cohort, store)
        cache = TensorCache.copy_from_database(store, layout=layout)
        have = set(cache.applicant_ids)
        ready = tuple(applicant_id for applicant_id in wanted if applicant_id in have)
        failures = {applicant_id: NO_VECTORS for applicant_id in wanted if applicant_id not in have}
        if not ready:
            raise InputError(f"no applicant of cohort {cohort!r} {NO_VECTORS}")
        if candidates is not None and cache.n_jobs > candidates:
            cache = with_index(cache, store)
        return Prepared(store_uri, store.uri, cache, ready, failures, relevance(qrels, store))


def run_config(
    prepared: Prepared,
    config: DynaQConfig,
    judge: str | None,
    fingerprint: str | None,
    pretrained: Pretrained | None = None,
) -> dict[str, Any]:
    """The content of a run folder's config.yaml, without the strategy, which the caller adds."""
    return {
        "store": absolute(prepared.store_shown),
        "layout": prepared.cache.layout.name,
        "applicants": len(prepared.cohort),
        "cohort": cohort_digest(prepared.cohort),
        "jobs": prepared.cache.n_jobs,
        "judge": shown_judge(judge),
        "judge_fingerprint": fingerprint,
        "pretrained": pretrained.fingerprint if pretrained else None,
        "pretrained_falls_back": pretrained.falls_back if pretrained else None,
        "config": config.model_dump(mode="json"),
        "environment": environment(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def shown_judge(judge: str | None) -> str | None:
    """The judge with an absolute path, or without the password of its URL."""
    if judge and judge.startswith(LEDGER):
        return f"{LEDGER}{Path(judge.removeprefix(LEDGER)).resolve()}"
    return mask_uri(judge) if judge and "://" in judge else judge


MUST_MATCH = (
    "strategy",
    "layout",
    "cohort",
    "jobs",
    "judge_fingerprint",
    "pretrained",
    "offline",
    "tune",
    "feedback",
    "gold",
    "config",
)


def refuse_other_run(folder: RunFolder, *, resume: bool) -> None:
    """Raises InputError when the folder holds a run and `resume` is not set: before anything is paid for."""
    if not resume and folder.exists(CONFIG):
        raise InputError(
            f"run folder {folder.uri!r} already holds a run; add --resume to continue it, or choose another --out"
        )


def open_run(folder: RunFolder, settings: dict[str, Any], *, resume: bool) -> None:
    """Write config.yaml into a new run folder, or check that the run found there is this one.

    Raises InputError when the folder holds a run and `resume` is not set, or holds another run.
    """
    if not folder.exists(CONFIG):
        folder.write_yaml(CONFIG, settings)
        return
    refuse_other_run(folder, resume=resume)
    found = folder.read_yaml(CONFIG)
    if "config" in found:
        # Settings that an older version did not have yet are at their defaults.
        found["config"] = DynaQConfig(**found["config"]).model_dump(mode="json")
    for field in MUST_MATCH:
        if found.get(field) != settings.get(field):
            raise InputError(
                f"run folder {folder.uri!r} was started with another {field}; resume with the same options, "
                "or choose another --out"
            )


def report_failures(failures: dict[str, str]) -> None:
    """Name every applicant that was not trained. Raises DynaqError when there is one."""
    for applicant_id, reason in list(failures.items())[:20]:
        errors.print(f"  not trained: {applicant_id}: {reason}", soft_wrap=True, markup=False)
    if failures:
        raise DynaqError(
            f"{len(failures)} applicants could not be trained (see above); the others are in the run folder"
        )


def check_strategies(names: Sequence[str], config: DynaQConfig) -> bool:
    """Whether any of the strategies asks a judge. Raises InputError on an unknown one."""
    strategies = [make_strategy(name, config) for name in names]
    return any(strategy.needs_judge for strategy in strategies)
