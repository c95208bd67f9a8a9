"""dynaq evaluate: ranking quality and judge reward of a run, or of every trial of a comparison."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dynaq.evaluation.run_quality import Evaluation, evaluate_run
from dynaq.runs.judgements import judged_pairs
from dynaq.runs.reading import open_run_store, read_runs
from jobs.cli import run_verb
from jobs.steps.cohort import relevance
from jobs.terminal.console import console, say
from jobs.terminal.tables import comparison_table


def main(
    run: Annotated[str, typer.Option(help="run folder")],
    qrels: Annotated[str | None, typer.Option(help="relevance file; default: the store's")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="length of the list")] = 10,
    store: Annotated[str | None, typer.Option(help="where the store is now, if not where the run found it")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Evaluate a run's recommendations."""
    runs = read_runs(run)
    with open_run_store(runs[0], store) as opened:
        grades = relevance(qrels, opened)
        evaluations: dict[str, Evaluation] = {
            one.name: evaluate_run(one, judged_pairs(one, opened), grades, k) for one in runs
        }
    if as_json:
        best = {"strategy": runs[0].config["strategy"], **evaluations[runs[0].name].to_json()}
        if len(runs) > 1:
            best |= {"trial": runs[0].name, "trials": {name: one.to_json() for name, one in evaluations.items()}}
        print(json.dumps(best))
        return
    console.print(comparison_table(evaluations))
    for name, one in evaluations.items():
        judged = one.mean("judged")
        if judged < 1:
            say(f"{name}: the judge has judged {judged:.0%} of the top {k}; reward and apply rate are over these.")


if __name__ == "__main__":
    run_verb("evaluate")
