"""Tables on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich.markup import escape
from rich.table import Table

from dynaq.evaluation.run_quality import Evaluation
from dynaq.pretraining.prior import Pretrained


def comparison_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """One line per strategy, intervals below their means."""
    k = next(iter(evaluations.values())).k
    table = Table()
    table.add_column("strategy")
    for name in ("judgements used", f"mean judge reward@{k}", f"apply rate@{k}", f"nDCG@{k}"):
        table.add_column(name, justify="right")
    for name, one in evaluations.items():
        found = [one.interval(metric) for metric in ("mean_reward", "apply_rate", "ndcg")]
        cells = [interval_cell(value.mean, value.low, value.high) for value in found]
        table.add_row(name, f"{one.judgements_per_applicant * one.applicants:.0f}", *cells)
    return table


def interval_cell(mean: float, low: float, high: float) -> str:
    """A mean with its interval below it, which is left out where it is not known (NaN) or has no width."""
    if math.isnan(low) or f"{low:z.2f}" == f"{high:z.2f}":
        return number(mean)
    return f"{number(mean)}\n{low:z.2f}–{high:z.2f}"


def number(value: float) -> str:
    """Three decimals and never `-0.000`; a dash for NaN."""
    return "–" if value != value else f"{value:z.3f}"


def interval_words(low: float | None, high: float | None) -> str:
    """`0.640 to 0.850`; "" where a bound is not known or both look the same."""
    if low is None or high is None or number(low) == number(high):
        return ""
    return f"{number(low)} to {number(high)}"


def recommendation_table(rows: list[tuple[int, str, str, float]]) -> Table:
    """Rank, title, job id and Q-value."""
    table = Table()
    table.add_column("rank", justify="right")
    table.add_column("title")
    table.add_column("job")
    table.add_column("Q", justify="right")
    for rank, title, job_id, q in rows:
        table.add_row(str(rank), escape(title), escape(job_id), f"{q:.3f}")
    return table


def gain_of(networks: Pretrained) -> str:
    """What pre-trained networks gained on applicants that they had not seen, and whether agents start from them."""
    gain = networks.gain
    if gain is None:
        return "These networks are of an older version, which did not measure their gain; pre-train anew to know it."
    measured = (
        f"nDCG@10 before the first judgement, {gain.applicants} held-out applicants: networks {number(gain.networks)}, "
        f"cosine {number(gain.cosine)}, difference {gain.difference:+z.3f} ({gain.low:+z.3f} to {gain.high:+z.3f})."
    )
    if networks.falls_back:
        return f"{measured} That is no credible gain: agents will start from the cosine. Judge more applicants."
    return measured
