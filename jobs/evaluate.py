"""dynaq evaluate: ranking quality and judge reward of a run, or of every trial of a comparison."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from dynaq.evaluation.run_quality import Evaluation, evaluate_run
from dynaq.evaluation.true_rewards import corrected_words
from dynaq.runs.folder import RunFolder
from dynaq.runs.judgements import judged_pairs
from dynaq.runs.reading import open_run_store, read_runs
from jobs.cli import run_verb
from jobs.steps.cohort import known_truth, relevance
from jobs.steps.judge_backend import read_gold
from jobs.terminal.console import console, say
from jobs.terminal.tables import comparison_table


def main(
    run: Annotated[str, typer.Option(help="run folder")],
    qrels: Annotated[str | None, typer.Option(help="relevance file; default: the store's")] = None,
    gold: Annotated[
        str | None,
        typer.Option(help="hand-made labels that correct the judge's reward; default: those of the run's training"),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="length of the list")] = 10,
    store: Annotated[str | None, typer.Option(help="where the store is now, if not where the run found it")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Evaluate a run's recommendations."""
    runs = read_runs(run)
    with open_run_store(runs[0], store) as opened:
        grades = relevance(qrels, opened)
        true = known_truth(opened, grades, RunFolder.at(run), read_gold(gold)[0])
        evaluations: dict[str, Evaluation] = {
            one.name: evaluate_run(one, judged_pairs(one, opened), grades, k, true) for one in runs
        }
    if as_json:
        best = {"strategy": runs[0].config["strategy"], **evaluations[runs[0].name].to_json()}
        if len(runs) > 1:
            best |= {"trial": runs[0].name, "trials": {name: one.to_json() for name, one in evaluations.items()}}
        print(json.dumps(best))
        return
    console.print(comparison_table(evaluations))
    if runs[0].sampling:
        say(runs[0].sampling)
    for name, one in evaluations.items():
        judged = one.mean("judged")
        if judged < 1:
            say(f"{name}: the judge has judged {judged:.0%} of the top {k}; reward and apply rate are over these.")
        if one.corrected:
            say(corrected_words(name, asdict(one.corrected), k))


if __name__ == "__main__":
    run_verb("evaluate")
