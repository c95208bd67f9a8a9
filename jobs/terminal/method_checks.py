"""What `dynaq judge --check` prints: each method's figures, its trust, and whether learning from it helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from rich.table import Table

from dynaq.evaluation.judge_quality import QualityCurve, TableCheck, check_judge_table, place_on_curve
from dynaq.judging.judgement import LABELS
from dynaq.qrels import Qrels
from dynaq.tensor_cache import TensorCache
from jobs.terminal.console import console, say
from jobs.terminal.tables import number
from reward_service.check import MethodCheck

# World model -> what its agents do with a judge's answers.
BELIEFS: Mapping[Literal["bayes", "trust"], str] = {
    "bayes": "agents that believe every answer (world_model: bayes)",
    "trust": "agents that estimate how far to believe it (world_model: trust)",
}


def check_table(checks: Sequence[MethodCheck]) -> Table:
    """One column per method."""
    table = Table()
    table.add_column("")
    for check in checks:
        table.add_column(check.method, justify="right")
    rows: dict[str, list[str]] = {
        "AUC (relevant against irrelevant)": [f"{c.auc:.3f}" for c in checks],
        "  95 % interval": [f"{c.low:.3f} to {c.high:.3f}" for c in checks],
        "nDCG@10": [number(c.ndcg) for c in checks],
        "label mass": [number(c.label_mass) for c in checks],
        **{label: ["–" if c.fitted_here else f"{c.labels[i]:.1%}" for c in checks] for i, label in enumerate(LABELS)},
        "abstained": [str(c.abstained) for c in checks],
        "option order moves p by": ["–" if c.order_effect is None else number(c.order_effect) for c in checks],
        "option order changes the label": ["–" if c.order_flips is None else f"{c.order_flips:.0%}" for c in checks],
        "judgements/s": ["–" if c.per_second is None else f"{c.per_second:.1f}" for c in checks],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def say_trust(checks: Sequence[MethodCheck], cache: TensorCache, qrels: Qrels) -> None:
    """Per method, the table that agents would estimate from the same answers, without labels, beside the true one."""
    for check in checks:
        found = check_judge_table(cache, check.judgements, qrels)
        if found is None:
            say(f"Method {check.method} answered too few pairs to say how far it can be believed.")
            continue
        console.print(trust_table(check.method, found))
        say(
            f"Trust in method {check.method}, as agents would estimate it from these answers without labels: "
            f"{found.estimated.trust:.2f}; the truth is {found.true.trust:.2f} (0 says nothing, 1 never errs). "
            f"The two tables differ by {found.error:.3f} on average."
        )


def trust_table(method: str, found: TableCheck) -> Table:
    """What the judge answers where a job fits and where it does not: estimated and true."""
    table = Table(title=f"what method {method} answers")
    table.add_column("")
    for column in ("fits, estimated", "fits, true", "does not fit, estimated", "does not fit, true"):
        table.add_column(column, justify="right")
    rows = (found.estimated.fits, found.true.fits, found.estimated.not_fits, found.true.not_fits)
    for label, *cells in zip(LABELS, *rows, strict=True):
        table.add_row(label, *(f"{p:.1%}" for p in cells))
    return table


def say_quality_curve(checks: Sequence[MethodCheck], curves: Mapping[Literal["bayes", "trust"], QualityCurve]) -> None:
    """The gain over the cosine by the judge's quality, and where each method stands."""
    some = next(iter(curves.values()))
    table = Table(
        title=f"nDCG@10 gained over the cosine ({some.cosine:.3f}) with {some.judgements} judgements, "
        f"{some.applicants} applicants, judges whose errors are random"
    )
    table.add_column("judge's AUC", justify="right")
    for name in curves:
        table.add_column(f"world_model: {name}", justify="right")
    for i, auc in enumerate(some.aucs):
        gains = [curve.gains[i] for curve in curves.values()]
        table.add_row(f"{auc:g}", *(f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})" for gain in gains))
    console.print(table)
    for check in checks:
        for name, curve in curves.items():
            say(f"Method {check.method}, {BELIEFS[name]}: {place_on_curve(curve, check.low, check.high)}.")
    say("Errors that are not random, such as a liking for long texts, cost more than the AUC says.")
