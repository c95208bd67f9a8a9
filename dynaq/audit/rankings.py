"""How alike two ranked lists are: rank-biased overlap, and changed top lists."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dynaq.evaluation.intervals import Values

PERSISTENCE = 0.9  # of a reader going on to the next rank: the first ten ranks have 86 % of the weight

Ranking = npt.NDArray[np.int64]


def rank_biased_overlap(a: Ranking, b: Ranking, p: float = PERSISTENCE) -> Values:
    """Extrapolated rank-biased overlap of lists without ties, `[..., k]` → `[...]`: 1 for equal, 0 for disjoint lists.

    Webber, Moffat & Zobel 2010, doi 10.1145/1852102.1852106, equation 32 for lists of the same length.
    """
    depths = np.arange(1, a.shape[-1] + 1)
    same = a[..., :, None] == b[..., None, :]
    overlap = np.stack([same[..., :d, :d].sum((-2, -1)) for d in depths], axis=-1) / depths
    weights = p**depths
    found: Values = overlap[..., -1] * weights[-1] + (1.0 - p) / p * (overlap * weights).sum(-1)
    return found


def changed(a: Ranking, b: Ranking) -> Values:
    """1 where two lists do not hold the same jobs, whatever their order, `[..., k]` → `[...]`."""
    found: Values = (np.sort(a, -1) != np.sort(b, -1)).any(-1).astype(np.float64)
    return found


def order_of(scores: Values) -> Ranking:
    """Jobs in the order of their scores, `[..., jobs]`, best first; ties, and jobs without a score, in their order."""
    return np.argsort(-np.nan_to_num(scores, nan=-np.inf), axis=-1, kind="stable")
