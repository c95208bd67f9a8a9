"""dynaq audit: do protected attributes change what the judge says and what agents recommend?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cluster.broker import JudgeBackend
from cluster.session import ray_session
from dynaq.agent.reward_strategy import make_strategy
from dynaq.audit.attributes import GENDERED_TITLES, TITLE_CONTRASTS, Attribute, Contrast
from dynaq.audit.counterfactuals import base_texts, gendered_postings, sampled, variants
from dynaq.audit.groups import AttributeRates, Groups, group_rates, groups_json, read_groups
from dynaq.audit.limits import CERTAINTY, FOUR_FIFTHS, POWER, SMALLEST
from dynaq.audit.lists import Lists, answers_as, cache_of, similarity_lists, slates_of, states_of, trained_lists
from dynaq.audit.measure import (
    BY_AGENTS,
    BY_SIMILARITY,
    Answers,
    Sample,
    contrast_json,
    measure,
    rows_of,
    rows_of_postings,
)
from dynaq.audit.planted import self_test
from dynaq.audit.record import AUDIT_FORMAT, AUDIT_RECORD, failures
from dynaq.errors import DynaqError, InputError
from dynaq.ingest.embedding import encoder_for
from dynaq.personal.redaction import keeps_personal_data
from dynaq.records import Candidate
from dynaq.runs.folder import RunFolder
from dynaq.runs.judgements import judged_pairs
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from jobs.cli import run_verb
from jobs.reporting.audit_page import power_words, write_audit_page
from jobs.reporting.cards import write_cards
from jobs.steps.audit_judging import judge_rows
from jobs.steps.audited import Audited, attributes_of, audited, check_judge, digest, read_profiles, stored_profiles
from jobs.steps.cohort import relevance
from jobs.steps.environment import environment
from jobs.steps.judge_backend import NO_JUDGE, judge_backend, quote
from jobs.steps.options import Address, Calibrate, MaxCost, PriceIn, PriceOut, Samples
from jobs.steps.prepare import Prepared, prepare, shown_judge
from jobs.steps.usable_judge import usable_judge
from jobs.terminal.console import Bars, print_json, say, step

PROFILES, PAIRS_EACH = 16, 4  # at most 1,900 pairs with --keep-personal, for a small judge on two cores


def main(
    out: Annotated[str, typer.Option(help="folder for the report, the record and the judge's answers")],
    store: Annotated[str | None, typer.Option(help="folder or mongodb:// URI; default: the run's")] = None,
    run: Annotated[str | None, typer.Option(help="run folder to audit; of a comparison, its best trial")] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="vllm, vllm:CONFIG.yaml, a URL, or none: lists alone; default: the run's, else vllm"),
    ] = None,
    judge_samples: Samples = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    max_cost: MaxCost = None,
    calibrate: Calibrate = None,
    config: Annotated[str | None, typer.Option(help="YAML with the agents' settings, without --run")] = None,
    profiles: Annotated[
        str | None, typer.Option(help="file of candidates to vary; default: applicants of the store")
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="CSV with group and name: further names; each group is compared with the first")
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="CSV with applicant_id and attributes: rates by group of the run; kept nowhere")
    ] = None,
    qrels: Annotated[str | None, typer.Option(help="relevance file for nDCG by group; default: the store's")] = None,
    sample: Annotated[int, typer.Option(min=2, help="profiles to vary")] = PROFILES,
    pairs: Annotated[int, typer.Option(min=2, help="jobs that each profile is judged on")] = PAIRS_EACH,
    keep_personal: Annotated[
        bool, typer.Option("--keep-personal", help="also measure what would be without redaction")
    ] = False,
    max_impact: Annotated[float, typer.Option(min=0, max=1, help="the least impact ratio")] = FOUR_FIFTHS,
    smallest: Annotated[int, typer.Option(min=5, help="groups of fewer people are not shown")] = SMALLEST,
    encoder: Annotated[str | None, typer.Option(help="of the store, if it is not packaged")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the sample")] = 0,
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the record")] = False,
) -> None:
    """Audit a judge, and a run, for differences by protected attributes."""
    began = time.monotonic()
    subject = audited(store, run, judge, config)
    terms = {"samples": judge_samples, "price_in": price_in, "price_out": price_out, "max_cost": max_cost}
    folder = RunFolder.at(out)
    attributes, contrasts = attributes_of(names)
    if groups is not None and subject.run is None:
        raise InputError("--groups needs --run, whose lists are compared")
    by_group = read_groups(groups) if groups is not None else None
    prepared = prepare(subject.store_uri, "all", subject.layout, qrels, subject.config.candidates)
    if profiles is not None:
        people = sampled(read_profiles(profiles), sample, seed)
    else:
        people = stored_profiles(subject.store_uri, sampled(prepared.cohort, sample, seed))
    asks = subject.judge != NO_JUDGE
    backend = judge_backend(subject.judge, folder, **terms) if asks else None
    study = _Study(subject, prepared, people, pairs, encoder, seed)
    trained = subject.run.folder if subject.run else None
    with _session(backend, address):
        if backend is not None:
            backend = usable_judge(subject.judge, backend, prepared, trained, calibrate)
        check_judge(subject, backend.fingerprint if backend else None)
        if backend is not None and (
            cost := quote(backend, subject.store_uri, prepared.cohort, study.pairs(attributes))
        ):
            say(f"judge: {cost}")
        settings = study.settings(attributes, contrasts, backend, folder, keep_personal=keep_personal)
        postings = study.postings(backend, folder) if backend else []
    with step("Rates by group") if by_group else nullcontext():
        rates = _rates(subject, by_group, qrels, smallest)
    record = {
        "format": AUDIT_FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "run_id": subject.run_id,
        "run": subject.run.folder.name if subject.run else None,
        "store": prepared.store_shown,
        "judge": shown_judge(subject.judge) if asks else None,
        "judge_fingerprint": backend.fingerprint if backend else None,
        "judge_model": backend.model if backend else None,
        "recorded_judgements": subject.recorded,
        "encoder": prepared.cache.encoder,
        "layout": prepared.cache.layout.name,
        "jobs": prepared.cache.n_jobs,
        "strategy": subject.strategy,
        "profiles": len(study.profiles),
        "pairs_per_profile": len(study.jobs[0]),
        "seed": seed,
        "certainty": CERTAINTY,
        "power": POWER,
        "max_impact": max_impact,
        "inputs": {"profiles": digest(profiles), "names": digest(names), "groups": digest(groups)},
        "smallest_group": smallest,
        "sampling": subject.run.sampling if subject.run else "",
        "settings": settings,
        "postings": postings,
        "groups": groups_json(rates) if rates is not None else None,
        "self_test": self_test(len(study.profiles), len(study.jobs[0]), seed=seed).to_json(),
        "sources": {one.name: one.source for one in (*attributes, GENDERED_TITLES)},
        "config": subject.config.model_dump(mode="json"),
        "environment": environment(),
        "seconds": round(time.monotonic() - began, 1),
    }
    reasons = failures(record, max_impact)
    record |= {"passed": not reasons, "reasons": reasons}
    folder.write_json(AUDIT_RECORD, record)
    write_audit_page(folder, record)
    cards = write_cards(folder, subject, record)
    if as_json:
        print_json(record)
    else:
        _show(record, folder, cards)
    if reasons:
        raise DynaqError(f"the audit fails: {'; '.join(reasons)}")


def _session(backend: JudgeBackend | None, address: str | None) -> AbstractContextManager[Any]:
    """Ray for a judge that runs on it."""
    return ray_session(address) if backend is not None and backend.cpus else nullcontext()


class _Study:
    """The counterfactual part: a sample of profiles, its jobs, and what is measured on them."""

    def __init__(
        self, subject: Audited, prepared: Prepared, profiles: Sequence[Candidate], pairs: int, encoder: str | None,
        seed: int,
    ) -> None:  # fmt: skip
        self.subject, self.prepared, self.profiles, self.seed = subject, prepared, profiles, seed
        self._ids = [f"profile-{i:03d}" for i in range(len(profiles))]
        with open_store(subject.store_uri, read_only=True) as store:
            self._encode = encoder_for(store, encoder).encode_queries
            self.redacted = not keeps_personal_data(store.meta())
            self._base = base_texts(profiles)
            self.jobs = list(slates_of(self._cache(self._base), pairs, seed).values())
            wanted = sorted({job_id for own in self.jobs for job_id in own})
            self._records = {job.id: job for job in store.records("job", wanted)}

    def pairs(self, attributes: Sequence[Attribute]) -> int:
        """The most pairs that the judge is asked about."""
        levels = sum(len(one.levels) for one in attributes) * len(self.jobs[0])
        return len(self.profiles) * (levels + sum(len(titles) for titles in GENDERED_TITLES.levels.values()))

    def settings(
        self,
        attributes: Sequence[Attribute],
        contrasts: Sequence[Contrast],
        backend: JudgeBackend | None,
        folder: RunFolder,
        *,
        keep_personal: bool,
    ) -> list[dict[str, Any]]:
        """What is measured with redaction, without it, or both. What is served comes first."""
        found = []
        for redacted in dict.fromkeys([self.redacted, *([False] if keep_personal else [])]):
            name = "personal data taken out" if redacted else "personal data kept"
            made = variants(self.profiles, attributes, redact=redacted, seed=self.seed)
            rows = rows_of(made, self.jobs)
            answers = self._judged(backend, [row for levels in rows.values() for own in levels.values() for row in own],
                                   folder, name)  # fmt: skip
            rankers = self._rankers(answers)
            deciding = sum(one.decides for one in contrasts)
            with step(f"Lists, {name}"):
                measured = measure(contrasts, Sample(rows, answers), rankers, deciding * (1 + len(rankers)))
            served = redacted == self.redacted
            cells = [contrast_json(one) for one in measured]
            found.append({"name": name, "redacted": redacted, "served": served, "contrasts": cells})
        return found

    def postings(self, backend: JudgeBackend, folder: RunFolder) -> list[dict[str, Any]]:
        """What the gender of a posting's title changes, for profiles without personal data."""
        postings = gendered_postings()
        self._records |= {job.id: job for jobs in postings.values() for job in jobs}
        rows = rows_of_postings(self._base, postings)
        answers = self._judged(backend, [row for own in rows.values() for row in own], folder, "gendered postings")
        measured = measure(TITLE_CONTRASTS, Sample({GENDERED_TITLES.name: rows}, answers), {}, 2 * len(TITLE_CONTRASTS))
        return [contrast_json(one) for one in measured]

    def _judged(self, backend: JudgeBackend | None, rows: Sequence[Any], folder: RunFolder, what: str) -> Answers:
        if backend is None:
            return {}
        with step(f"Judging, {what}"), Bars(remaining=True) as bars:
            return judge_rows(backend, rows, self._records, folder, lambda done, of: bars.update("pairs", done, of))

    def _rankers(self, answers: Answers) -> Mapping[str, Callable[[Sequence[Candidate]], Lists]]:
        """Similarity, and where a judge was asked agents that learn from its answers alone."""
        found: dict[str, Callable[[Sequence[Candidate]], Lists]] = {
            BY_SIMILARITY: lambda texts: similarity_lists(self._cache(texts))
        }
        config = self.subject.config.model_copy(update={"budget": len(self.jobs[0]), "block_size": len(self.profiles)})
        strategy = make_strategy(self.subject.strategy, config)
        if answers and strategy.needs_judge:
            found[BY_AGENTS] = lambda texts: trained_lists(
                self._cache(texts), answers_as(self._ids, texts, answers), strategy, config
            )
        return found

    def _cache(self, texts: Sequence[Candidate]) -> TensorCache:
        cache = self.prepared.cache
        return cache_of(cache, self._ids, states_of(texts, cache, self._encode))


def _rates(subject: Audited, groups: Groups | None, qrels: str | None, smallest: int) -> list[AttributeRates] | None:
    """Rates by group of the run's lists; None without groups."""
    if groups is None or subject.run is None:
        return None
    with open_store(subject.store_uri, read_only=True) as store:
        grades = relevance(qrels, store)
        return group_rates(subject.run, judged_pairs(subject.run, store), groups, grades, smallest)


def _show(record: Mapping[str, Any], folder: RunFolder, cards: Sequence[str]) -> None:
    for setting in record["settings"]:
        say(f"{setting['name']}{' (as served)' if setting['served'] else ''}", "bold")
        for contrast in setting["contrasts"]:
            say(f"  {contrast['name']}: {contrast['finding']}")
    say(power_words(record))
    say(f"{folder.uri}/{AUDIT_RECORD}, audit.html, {', '.join(cards)} ({record['seconds']:.0f} s)")
    if record["passed"]:
        say("passed")


if __name__ == "__main__":
    run_verb("audit")
