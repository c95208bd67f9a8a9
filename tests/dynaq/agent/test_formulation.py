"""What docs/rl-formulation.md says of γ: with s' = s it adds one number to every job's Q, and no ranking changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.toy_market import GradeSource, ToyMarket, block_of


def q_values(market: ToyMarket, **settings: Any) -> npt.NDArray[np.float32]:
    """Q of a trained block, `[agents, n_jobs]`."""
    return block_of(market, applicants=2, budget=15, **settings).fit(GradeSource(market.grades)).q_values()


def differences(q: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Q of every job less that of the first one."""
    return q - q[:, :1]


@pytest.mark.parametrize("settings", [{"gamma": 0.99}, {"target_sync": 3}, {"tau": 0.5}, {"double_q": True}])
def test_no_setting_of_the_bootstrap_changes_how_jobs_compare(market: ToyMarket, settings: dict[str, Any]) -> None:
    found, myopic = q_values(market, **settings), q_values(market, gamma=0.0)
    np.testing.assert_allclose(differences(found), differences(myopic), atol=1e-4)
    assert (found.max(1) > 5.0 * myopic.max(1)).all()  # what γ does change


def test_a_bootstrap_on_the_job_just_taken_does_change_it(market: ToyMarket) -> None:
    found, myopic = q_values(market, gamma=0.9, target_action="same"), q_values(market, gamma=0.0)
    assert np.abs(differences(found) - differences(myopic)).max() > 0.1
