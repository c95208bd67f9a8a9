"""dynaq promote: lets a run serve, if it is complete and the log does not show it to be worse."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from dynaq.audit.limits import FOUR_FIFTHS
from dynaq.audit.record import check_audit
from dynaq.errors import DynaqError, InputError
from dynaq.feedback.exposure_log import LoggedLists, logged_lists
from dynaq.feedback.exposure_policy import SHARPEST, SHARPNESS
from dynaq.feedback.off_policy import OffPolicyEvaluation, RankingPolicy, evaluate
from dynaq.judging.judgement import LABEL_VALUES
from dynaq.judging.ledger_file import LEDGER
from dynaq.runs.folder import CONFIG, RECOMMENDATIONS
from dynaq.runs.q_table import ServedRun
from dynaq.runs.reading import Run, open_run_store
from dynaq.stores import Store
from jobs.cli import run_verb
from jobs.terminal.console import console, print_json, say
from recommend_service.promotions import ROLLBACK, Promotion, ServingFolder

NOTHING_SERVES = "first"  # verdict when no run serves yet
CANNOT_TELL = "cannot tell"


def main(
    serving: Annotated[str, typer.Option(help="folder that says which run serves; made when it is not there")],
    run: Annotated[str | None, typer.Option(help="run folder to promote; of a comparison, its best trial")] = None,
    store: Annotated[str | None, typer.Option(help="store with the feedback; default: the run's")] = None,
    untested: Annotated[
        bool, typer.Option("--untested", help="promote although the log cannot tell how the run will do")
    ] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="serve again the run that served before")] = False,
    audit: Annotated[str | None, typer.Option(help="folder of a dynaq audit of the run, which must be passed")] = None,
    max_impact: Annotated[float | None, typer.Option(min=0, max=1, help="--audit: the least impact ratio")] = None,
    sharpness: Annotated[
        float, typer.Option(min=0, max=SHARPEST, help="of the service that will serve the run")
    ] = SHARPNESS,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Let a run serve, if it is complete and feedback on the serving run's lists does not show it to be worse."""
    place = ServingFolder(serving)
    if rollback == (run is not None):
        raise InputError("name a run to promote, or --rollback")
    if max_impact is not None and audit is None:
        raise InputError("--max-impact is for --audit; name the folder of an audit")
    if rollback:
        before = place.before()
        _show(place.promote(ServedRun.open(before.run), ROLLBACK), None, None, as_json)
        return
    assert run is not None
    new = ServedRun.open(run)
    config = new.folder.read_yaml(CONFIG)
    current = place.current()
    if current is not None and current.run_id == new.run_id:
        raise InputError(f"run {new.run_id} serves already in {serving!r}")
    if audit is not None:
        judge = config.get("judge_fingerprint")
        recorded = str(config.get("judge")).startswith(LEDGER)  # another judge answered about other texts
        check_audit(audit, new.run_id, None if recorded else judge, FOUR_FIFTHS if max_impact is None else max_impact)
    with open_run_store(Run(new.run_id, new.folder, config), store) as opened:
        _check(new, opened)
        if current is None:
            verdict, reason, found, lists = NOTHING_SERVES, "nothing served before", None, None
        else:
            verdict, reason, found, lists = _compare(new, config, current, opened, sharpness)
    if verdict == "worse" or (verdict == CANNOT_TELL and not untested):
        _show(None, found, lists, as_json, new.run_id)
        way_out = "" if verdict == "worse" else "; wait for more lists, or add --untested to promote it without knowing"
        raise DynaqError(f"run {new.run_id} is not promoted: {reason}{way_out}")
    _show(place.promote(new, verdict=verdict, reason=reason), found, lists, as_json)


def _check(run: ServedRun, store: Store) -> None:
    """Check what checksums cannot: that the run fits the store and its tables agree. Raises InputError."""
    layout = str(store.meta().get("layout", "classic"))
    if run.layout != layout:
        raise InputError(
            f"run {run.folder.uri!r} was trained in the {run.layout} layout, the store is in {layout}; train it again"
        )
    jobs = set(store.ids("job"))
    gone = [job_id for job_id in run.job_ids if job_id not in jobs]
    if len(gone) == len(run.job_ids):
        raise InputError(f"run {run.folder.uri!r} knows none of the jobs of store {store.uri}; name its --store")
    if gone:
        say(f"{len(gone)} of the run's {len(run.job_ids)} jobs have left the catalogue; they will not be shown")
    table = run.folder.read_table(RECOMMENDATIONS)
    ranked: dict[str, list[tuple[int, str]]] = {}
    columns = (table.column(name).to_pylist() for name in ("applicant_id", "rank", "job_id"))
    for applicant_id, rank, job_id in zip(*columns, strict=True):
        ranked.setdefault(applicant_id, []).append((rank, job_id))
    different = set(run.places) ^ set(ranked)
    if different:
        raise InputError(
            f"run {run.folder.uri!r} is broken: agents and {RECOMMENDATIONS} differ in {len(different)} applicants, "
            f"{min(different)!r} among them; train it again"
        )
    for applicant_id, rows in ranked.items():
        if [rank for rank, _ in sorted(rows)] != list(range(1, len(rows) + 1)):
            raise InputError(f"run {run.folder.uri!r} is broken: ranks of {applicant_id!r} are not 1 to {len(rows)}")
        _check_agent(run, applicant_id, [job_id for _, job_id in sorted(rows)])


def _check_agent(run: ServedRun, applicant_id: str, best: list[str]) -> None:
    """Check that the recommendations are the best jobs by the agent's Q-values. Raises InputError."""
    found = run.q_values(applicant_id)
    assert found is not None
    columns, q = found
    wanted = np.array([run.columns.get(job_id, -1) for job_id in best])
    known = np.isin(wanted, columns)
    shown = q[np.searchsorted(columns, wanted[known])]
    if not known.all() or (np.diff(shown) > 0).any() or shown[-1] < np.partition(q, -len(best))[-len(best)]:
        raise InputError(
            f"run {run.folder.uri!r} is broken: {RECOMMENDATIONS} of {applicant_id!r} are not the best of their agent"
        )


def _compare(
    new: ServedRun, config: dict[str, Any], serves: Promotion, store: Store, sharpness: float
) -> tuple[str, str, OffPolicyEvaluation | None, LoggedLists | None]:
    """Verdict and reason, from lists that were shown after the last feedback that the new run learned from."""
    try:
        current = ServedRun.open(serves.run)
    except DynaqError as error:
        return CANNOT_TELL, f"the run that serves now cannot be read any more ({error})", None, None
    values = config["config"].get("label_values") or LABEL_VALUES
    until = (config.get("feedback") or {}).get("until")
    lists = logged_lists(
        store.exposures(),
        store.feedback(),
        list(new.places),
        values,
        datetime.fromisoformat(until) if until else None,
    )
    log, numbers = lists.slates()
    ids = {current.run_id} | current.earlier_ids
    # Applicants without an agent in the serving run are served its warm start, so their lists count as its own.
    own = np.array([one.policy in ids or one.applicant_id not in current.places for one in lists.exposures], bool)
    found = evaluate(
        log,
        RankingPolicy(lists.rankings(new.ranked, numbers), sharpness),
        RankingPolicy(lists.rankings(current.ranked, numbers), sharpness, own),
    )
    return found.verdict, found.reason, found, lists


def _show(
    promotion: Promotion | None,
    found: OffPolicyEvaluation | None,
    lists: LoggedLists | None,
    as_json: bool,
    run_id: str | None = None,
) -> None:
    if as_json:
        print_json(_as_json(promotion, found, lists, run_id))
        return
    if found is not None and lists is not None:
        _show_evaluation(found, lists)
    if promotion is not None:
        what = "serves again" if promotion.action == ROLLBACK else "serves from now on"
        say(f"run {promotion.run_id} {what}: {promotion.run}")
        if promotion.reason:
            say(f"  {promotion.verdict}: {promotion.reason}")


def _show_evaluation(found: OffPolicyEvaluation, lists: LoggedLists) -> None:
    say(f"evaluated on {found.slates} lists of {found.people} applicants, shown after the run's feedback ended")
    left_out = [
        (lists.before, "shown earlier"),
        (lists.with_preference, "ordered by a preference, an operator or the applicant's history"),
        (lists.of_others, "of applicants without an agent in the run"),
    ]
    notes = [f"{count} {what}" for count, what in left_out if count]
    if notes:
        say(f"  left out: {', '.join(notes)}", "dim")
    if not found.difference:
        return
    table = Table()
    table.add_column("reward per list")
    for name in ("now", "new run", "difference (95 %)"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, title in (("dr", "doubly robust"), ("ips", "weighted, clipped"), ("snips", "self-normalised")):
        apart = found.difference[name]
        interval = f"{apart.value:+.3f} ({apart.low:+.3f} to {apart.high:+.3f})"
        table.add_row(title, f"{found.current[name].value:.3f}", f"{found.new[name].value:.3f}", interval)
    console.print(table)
    say(f"  coverage {found.coverage:.0%}, worth {found.effective:.0f} lists of the new run's own", "dim")


def _as_json(
    promotion: Promotion | None, found: OffPolicyEvaluation | None, lists: LoggedLists | None, run_id: str | None
) -> dict[str, Any]:
    """The object that --json prints; None for unknown values."""
    shown: dict[str, Any] = {"promoted": promotion is not None, "run_id": promotion.run_id if promotion else run_id}
    if promotion is not None:
        shown |= asdict(promotion)
    if found is not None and lists is not None:
        evaluation = {
            "candidate" if name == "new" else name: None if isinstance(value, float) and np.isnan(value) else value
            for name, value in asdict(found).items()
        }
        shown |= {"evaluation": evaluation, "verdict": found.verdict, "reason": found.reason}
        shown["left_out"] = {"before": lists.before, "preference": lists.with_preference, "others": lists.of_others}
    return shown


if __name__ == "__main__":
    run_verb("promote")
