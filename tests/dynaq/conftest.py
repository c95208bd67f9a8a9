from __future__ import annotations

import pytest

from tests.support.toy_market import ToyMarket, toy_market


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> ToyMarket:
    """60 jobs and 16 applicants near six topics; read-only."""
    return toy_market(tmp_path_factory.mktemp("toy") / "store")
