from __future__ import annotations

import numpy as np
import pytest

from cluster.embedding import ClusterEncoder
from dynaq.encoder import Encoder


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_cluster_embeds_like_one_process() -> None:
    texts = [f"{'long ' * (i % 7)}text number {i % 50}" for i in range(120)] + ["", "看護師"]
    local = Encoder()
    cluster = ClusterEncoder(actors=2)
    try:
        assert (cluster.name, cluster.revision) == (local.name, local.revision)
        got = cluster.encode(texts)
        np.testing.assert_allclose(got, local.encode(texts), atol=1e-5)
        assert not got[120].any()
        assert cluster.encode([]).shape == (0, 384)
    finally:
        cluster.close()
