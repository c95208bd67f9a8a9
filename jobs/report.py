"""dynaq report: one page with the comparison, the learning curves and everyone's recommendations.

The page stands alone: styles and plots are inside, nothing is loaded, every text from a store is escaped.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from cluster.runfolder import REPORT, RunFolder
from dynaq.qrels import Qrels
from dynaq.stores import Store
from jobs.cli import run_verb
from jobs.console import say
from jobs.evaluation import Evaluation, Judged, evaluate_run
from jobs.inputs import relevance
from jobs.judges import judged_pairs
from jobs.plots import draw_curves, learning_curve
from jobs.runs import Run, open_run_store, read_runs
from jobs.tables import number

SHOWN = 10  # jobs per list
PEOPLE = 500  # on the page; a browser copes with these
CURVES = {"mean_reward": "Reward of each slate", "ndcg": "nDCG@10 of the ranking"}


def main(
    run: Annotated[str, typer.Option(help="run folder")],
    qrels: Annotated[str | None, typer.Option(help="relevance file; default: the store's")] = None,
    store: Annotated[str | None, typer.Option(help="where the store is now, if not where the run found it")] = None,
) -> None:
    """Write report.html into a run folder."""
    folder = RunFolder.at(run)
    write_report(folder, store, qrels)
    say(f"{folder.uri}/{REPORT}")


def write_report(folder: RunFolder, store_uri: str | None = None, qrels: str | None = None) -> None:
    """Render the page of a run or a comparison into its folder."""
    runs = read_runs(folder.uri)
    with open_run_store(runs[0], store_uri) as store:
        page = _render(runs, store, relevance(qrels, store))
    folder.write_bytes(REPORT, page.encode())


def _render(runs: list[Run], store: Store, qrels: Qrels | None) -> str:
    config = runs[0].config
    judged = {run.name: judged_pairs(run, store) for run in runs}
    evaluations = {run.name: evaluate_run(run, judged[run.name], qrels) for run in runs}
    people = list(runs[0].ranked)
    facts = [f"{len(people)} applicants", f"{config['jobs']} jobs", f"layout {config['layout']}"]
    facts += [f"judge {config['judge_fingerprint']}"] if config.get("judge_fingerprint") else []
    facts += [f"seed {config['config']['seed']}", str(config["started"])]
    template = Environment(loader=PackageLoader("jobs"), autoescape=True).get_template("report.html.j2")
    return template.render(
        title="Which jobs would they apply to?",
        facts=facts,
        rows=_rows(evaluations),
        notes=_notes(evaluations),
        plots=_plots(runs),
        people=_people(runs, people[:PEOPLE], store, qrels, judged),
        hidden=max(0, len(people) - PEOPLE),
        attribution=store.meta().get("attribution", ""),
    )


def _rows(evaluations: dict[str, Evaluation]) -> list[dict[str, Any]]:
    names = ("mean_reward", "apply_rate", "ndcg", "recall")
    columns = {name: [number(getattr(one, name)) for one in evaluations.values()] for name in names}
    best = {name: max((text for text in column if text != "–"), default="") for name, column in columns.items()}
    return [
        {
            "name": strategy,
            "judgements": f"{one.judgements_per_applicant:.0f}",
            "cells": [
                {"text": columns[name][i], "best": len(evaluations) > 1 and columns[name][i] == best[name]}
                for name in names
            ],
        }
        for i, (strategy, one) in enumerate(evaluations.items())
    ]


def _notes(evaluations: dict[str, Evaluation]) -> list[str]:
    notes = [
        f"{name}: the judge has judged {one.judged:.0%} of the top {one.k}; reward and apply rate are over these."
        for name, one in evaluations.items()
        if one.judged < 1
    ]
    if all(one.ndcg != one.ndcg for one in evaluations.values()):
        notes.append("No relevance is known for this store, so there is no nDCG; give one with --qrels.")
    return notes


def _plots(runs: list[Run]) -> list[dict[str, Any]]:
    plots = []
    names = [run.name for run in runs]
    for column, title in CURVES.items():
        # The reward of a strategy that asks no judge is a cosine: another unit than the others'.
        shown = [run for run in runs if column != "mean_reward" or run.judgements_per_applicant > 0 or len(runs) == 1]
        curves = {run.name: curve for run in shown if (curve := learning_curve(run.metrics, column)) is not None}
        if curves:
            label = "mean reward" if column == "mean_reward" else "nDCG@10"
            plots.append({"title": title, "svg": Markup(draw_curves(curves, label, salt=column, names=names))})
    return plots


def _people(
    runs: list[Run], applicants: list[str], store: Store, qrels: Qrels | None, judged: dict[str, Judged]
) -> list[dict[str, Any]]:
    shown = {job_id for run in runs for a in applicants for job_id, _ in run.ranked.get(a, [])[:SHOWN]}
    titles = {job.id: job.title for job in store.jobs(sorted(shown))}
    texts = {candidate.id: candidate for candidate in store.candidates(applicants)}
    people = []
    for applicant_id in applicants:
        grades = qrels.grades(applicant_id) if qrels else {}
        lists = [
            {
                "name": run.name,
                "jobs": [
                    {
                        "title": titles.get(job_id, job_id),
                        "label": judged[run.name].get((applicant_id, job_id), (0.0, ""))[1],
                        "grade": f"{grades[job_id]:g}" if grades.get(job_id) else "",
                    }
                    for job_id, _ in run.ranked.get(applicant_id, [])[:SHOWN]
                ],
            }
            for run in runs
        ]
        text = texts.get(applicant_id)
        past = ", ".join(item.title for item in text.experience) if text else ""
        people.append({"id": applicant_id, "bio": text.bio if text else "", "titles": past, "lists": lists})
    return people


if __name__ == "__main__":
    run_verb("report")
