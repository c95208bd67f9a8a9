from __future__ import annotations

import pytest
import torch

from tests.support.toy_market import ToyMarket, toy_market


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """As in the actors: on small networks, threads that wait for each other cost more than they bring."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> ToyMarket:
    """60 jobs and 16 applicants near six topics; read-only."""
    return toy_market(tmp_path_factory.mktemp("toy") / "store")
