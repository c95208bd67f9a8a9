"""The mean of what is known: tables of runs and comparisons have gaps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def mean_known(values: Sequence[float | None] | npt.NDArray[np.float64]) -> float:
    """Mean of the values that are neither None nor NaN; NaN if there are none."""
    known = np.asarray(values, dtype=np.float64)  # None becomes NaN
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else float("nan")
