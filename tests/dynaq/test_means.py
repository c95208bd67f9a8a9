from __future__ import annotations

import math

import numpy as np

from dynaq.means import mean_known


def test_the_mean_of_what_is_known() -> None:
    assert mean_known(np.array([[1.0, np.nan], [3.0, 5.0]])) == 3.0
    assert mean_known([None, 1.0, math.nan, 2.0]) == 1.5
    for unknown in ([], [None], [math.nan]):
        assert math.isnan(mean_known(unknown))
