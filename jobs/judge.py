"""dynaq judge: ask the judge about pairs, measure it, fit its thresholds, move its ledger."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import typer
import yaml
from rich.table import Table

from cluster.broker import BrokerClient, JudgeBackend, start_broker
from cluster.session import ray_session
from dynaq.agent.config import DynaQConfig
from dynaq.encoder import Encoder
from dynaq.errors import DynaqError, InputError
from dynaq.evaluation.judge_quality import gain_by_quality
from dynaq.ingest import ingest_market
from dynaq.judging.judgement import JUDGEMENT_SCHEMA, LABELS, Judgement, Slate
from dynaq.judging.ledger_file import read_ledger
from dynaq.markets import esco_market
from dynaq.personal.redaction import judged_candidates
from dynaq.qrels import Qrels
from dynaq.records import Candidate, Job
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from jobs.cli import run_verb
from jobs.steps.cohort import relevance
from jobs.steps.feedback_answers import told
from jobs.steps.judge_ahead import judge_ahead
from jobs.steps.judge_backend import engine_config, judge_backend
from jobs.steps.options import Address, MaxCost, PriceIn, PriceOut, Samples
from jobs.terminal.console import console, say, step
from jobs.terminal.method_checks import BELIEFS, check_table, say_quality_curve, say_trust
from jobs.terminal.tables import number
from reward_service.calibration import PAIRS, fit_judge
from reward_service.check import check_method, draw_samples, recommend, way_of, ways
from reward_service.config import SECRETS, JudgeConfig
from reward_service.costs import Costs, costs_line
from reward_service.errors import MethodUnsupported

DEMO_APPLICANTS = 8


def main(
    store: Annotated[
        str | None, typer.Option(help="folder or mongodb:// URI; --check and --calibrate without one use the demo's")
    ] = None,
    applicant: Annotated[str | None, typer.Option(help="whom the judge plays")] = None,
    jobs: Annotated[str | None, typer.Option(help="id,id: the jobs to show")] = None,
    judge: Annotated[str, typer.Option(help="vllm, vllm:CONFIG.yaml, ledger:PATH or a URL")] = "vllm",
    judge_samples: Samples = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    max_cost: MaxCost = None,
    check: Annotated[bool, typer.Option("--check", help="measure the judge on pairs of known relevance")] = False,
    qrels: Annotated[str | None, typer.Option(help="relevance file for --check; default: the store's")] = None,
    calibrate: Annotated[
        str | None, typer.Option(metavar="FILE", help="fit the thresholds on the store; write a judge configuration")
    ] = None,
    pairs: Annotated[int | None, typer.Option(min=50, help="random pairs for --calibrate; default: 400")] = None,
    all_pairs: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="judge all pairs (applicant_id, job_id) of a file into the ledger"),
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="judge each applicant's N nearest jobs by cosine into the ledger")
    ] = None,
    export: Annotated[str | None, typer.Option("--export", metavar="FILE", help="write the ledger as Parquet")] = None,
    take: Annotated[str | None, typer.Option("--import", metavar="FILE", help="add a ledger file to the store")] = None,
    address: Address = None,
) -> None:
    """Ask or examine the judge."""
    asked = applicant is not None or jobs is not None
    actions = [asked, check, calibrate is not None, all_pairs is not None, top is not None, export, take]
    if sum(bool(action) for action in actions) != 1:
        raise InputError(
            "give one of: --applicant with --jobs, --all-pairs FILE, --top N, --check, --calibrate FILE, "
            "--export FILE, --import FILE"
        )
    if take is not None:
        _import(_needed(store), Path(take))
    elif export is not None:
        _export(_needed(store), Path(export))
    elif check:
        _check(store, qrels, _engine_config(judge), address)
    elif calibrate is not None:
        _calibrate(store, Path(calibrate), _engine_config(judge), pairs or PAIRS, address)
    else:
        backend = judge_backend(judge, samples=judge_samples, price_in=price_in, price_out=price_out, max_cost=max_cost)
        if all_pairs is not None or top is not None:
            file = Path(all_pairs) if all_pairs is not None else None
            judge_ahead(_needed(store), judge, backend, file, top or 0, address)
        elif applicant and jobs:
            wanted = [part.strip() for part in jobs.split(",") if part.strip()]
            _ask(_needed(store), applicant, wanted, backend, address)
        else:
            raise InputError("--applicant and --jobs go together: whom the judge plays, and the jobs to show")


def _needed(store: str | None) -> str:
    if store is None:
        raise InputError("--store is missing: a folder or mongodb://host/database")
    return store


def _engine_config(judge: str) -> JudgeConfig:
    config = engine_config(judge)
    if config is None:
        raise InputError(f"--judge {judge}: only an engine can be measured or calibrated; use vllm or vllm:CONFIG.yaml")
    return config


def _ask(store_uri: str, applicant: str, job_ids: list[str], backend: JudgeBackend, address: str | None) -> None:
    """Ask as training does: the ledger answers what it knows, and new answers of the judge are added to it."""
    with open_store(store_uri, read_only=True) as opened:
        if not list(opened.records("candidate", [applicant])):
            raise InputError(f"applicant {applicant!r} is not in store {opened.uri}")
        titles = {job.id: job.title for job in opened.records("job", job_ids)}
        unknown = [job_id for job_id in job_ids if job_id not in titles]
        if unknown:
            raise InputError(f"job {unknown[0]!r} is not in store {opened.uri}")
    backend = told(backend, store_uri, [applicant])
    with ray_session(address):
        broker = start_broker(store_uri, backend)
        [answers] = BrokerClient(broker).fetch([Slate(applicant, tuple(job_ids))])
        costs: Any = ray.get(broker.costs.remote())
        ray.kill(broker)
    console.print(_judgement_table(answers, titles))
    for answer in answers:
        if answer.note:
            say(f"{answer.job_id}: {answer.note}")
    if costs:
        say(costs_line(Costs(**costs)))
    say(f"judge {backend.fingerprint}", "dim")


def _judgement_table(answers: list[Judgement], titles: dict[str, str]) -> Table:
    table = Table()
    table.add_column("job")
    table.add_column("title")
    for label in LABELS:
        table.add_column(f"p {label.lower()}", justify="right")
    for name in ("label", "reward", "mass"):
        table.add_column(name, justify="right")
    for answer in answers:
        p = [number(x) for x in answer.probabilities]
        reward = number(float("nan") if answer.reward is None else answer.reward)
        table.add_row(
            answer.job_id, titles[answer.job_id], *p, answer.label or "abstained", reward, number(answer.label_mass)
        )
    return table


def _market(store_uri: str | None, qrels: str | None) -> tuple[list[Candidate], list[Job], Qrels | None]:
    """Texts and relevance of a store, or of the demo's market."""
    if store_uri is None:
        if qrels is not None:
            raise InputError("--qrels names ids of a store; give --store too")
        market = esco_market(applicants=DEMO_APPLICANTS)
        return list(market.applicants), list(market.jobs), market.qrels
    with open_store(store_uri, read_only=True) as opened:
        return list(judged_candidates(opened)), list(opened.records("job")), relevance(qrels, opened)


def _vectors(store_uri: str | None) -> TensorCache:
    """The vectors of a store, or of the demo's market, which is embedded for it. Raises InputError without vectors."""
    if store_uri is not None:
        with open_store(store_uri, read_only=True) as opened:
            return TensorCache.copy_from_database(opened)
    with tempfile.TemporaryDirectory() as folder, open_store(folder, create=True) as opened:
        ingest_market(opened, esco_market(applicants=DEMO_APPLICANTS), encoder=Encoder(), layout="extended")
        return TensorCache.copy_from_database(opened)


def _check(store_uri: str | None, qrels: str | None, config: JudgeConfig, address: str | None) -> None:
    from reward_service.app import start_judge

    applicants, jobs, grades = _market(store_uri, qrels)
    if grades is None:
        raise InputError(f"store {store_uri} has no relevance; give a file with --qrels")
    samples = draw_samples(applicants, {job.id: job for job in jobs}, grades)
    shown = sum(len(sample.jobs) for sample in samples)
    say(f"{len(samples)} applicants, {shown} pairs, model {config.model or 'SmolLM2-135M-Instruct (packaged)'}")
    with ray_session(address):
        with step("Starting the judge"):
            judge = start_judge(config)
        checks = []
        for method in ways(config):
            try:
                with step(f"Method {method}"):
                    checks.append(asyncio.run(check_method(judge, config, method, samples)))
            except (MethodUnsupported, InputError) as error:
                if method == way_of(config):
                    raise
                say(f"Method {method} is left out: {error}")
    console.print(check_table(checks))
    for line in recommend(checks, way_of(config)):
        say(line)
    try:
        cache = _vectors(store_uri)
    except InputError as error:
        say(f"Whether agents would see how far to believe it is not checked: {error}")
        return
    say_trust(checks, cache, grades)
    with step("What learning is worth on this catalogue, with simulated judges"):
        curves = {name: gain_by_quality(cache, grades, DynaQConfig(world_model=name)) for name in BELIEFS}
    say_quality_curve(checks, curves)


def _calibrate(store_uri: str | None, out: Path, config: JudgeConfig, pairs: int, address: str | None) -> None:
    from reward_service.app import start_judge

    if config.method_name != "likelihood":
        raise InputError("method choice has no thresholds to fit; --calibrate is for likelihood")
    if not out.parent.is_dir():
        raise InputError(f"--calibrate {out}: folder {out.parent} does not exist")
    applicants, jobs, _ = _market(store_uri, None)
    with ray_session(address):
        with step("Starting the judge"):
            judge = start_judge(config)
        with step(f"Scoring {pairs} random pairs"):
            fitted = asyncio.run(fit_judge(judge, config, applicants, jobs, pairs))
    cut = fitted.cut_points
    fields: dict[str, Any] = fitted.model_dump(mode="json", exclude_unset=True, exclude=set(SECRETS))
    out.write_text(f"# thresholds fitted on {pairs} random pairs\n{yaml.safe_dump(fields, sort_keys=False)}")
    say(f"CLICK from {cut.click:.3f}, SAVE from {cut.save:.3f}, APPLY from {cut.apply:.3f}")
    say(f"judge {fitted.fingerprint} is in {out}; use it with --judge vllm:{out}")


def _export(store_uri: str, out: Path) -> None:
    with open_store(store_uri, read_only=True) as opened:
        table = opened.judgements()
    try:
        pq.write_table(table, out)
    except OSError as error:
        raise DynaqError(f"--export {out} cannot be written: {error}") from error
    say(f"{table.num_rows} judgements of {len(set(table.column('judge').to_pylist()))} judges written to {out}")


def _import(store_uri: str, path: Path) -> None:
    """Add the judgements of a ledger file; those that the store already has stay unchanged."""
    judgements = [Judgement(**row) for row in _ledger_table(path).to_pylist()]
    with open_store(store_uri) as opened:
        before = opened.judgements().num_rows
        opened.add_judgements(judgements)
        added = opened.judgements().num_rows - before
        say(f"{added} judgements added to {opened.uri}; {len(judgements) - added} were there already")


def _ledger_table(path: Path) -> pa.Table:
    """The judgements of a ledger file. An exported ledger keeps its judges' fingerprints; others get a new one."""
    if path.suffix == ".parquet" and path.is_file():
        try:
            table = pq.read_table(path)
            if set(JUDGEMENT_SCHEMA.names) <= set(table.column_names):
                return table.select(JUDGEMENT_SCHEMA.names).cast(JUDGEMENT_SCHEMA)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"ledger {path} cannot be read: {error}") from error
    return read_ledger(path)


if __name__ == "__main__":
    run_verb("judge")
