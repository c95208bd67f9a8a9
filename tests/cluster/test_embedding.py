from __future__ import annotations

import numpy as np
import pytest
import ray

import cluster.embedding
from cluster.embedding import ClusterEncoder, _GrowingEncoder, parallel_encoder
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


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_cluster_is_used_only_when_there_is_much_to_embed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    monkeypatch.setattr(cluster.embedding, "MIN_TEXTS", 10)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})  # two copies of the model are enough here
    texts = [f"text {i}" for i in range(12)]
    with parallel_encoder() as encoder:
        assert isinstance(encoder, _GrowingEncoder)
        few = encoder.encode(texts[:5])
        assert encoder._cluster is None
        many = encoder.encode(texts)
        assert encoder._cluster is not None
        actors = list(encoder._cluster._actors)
        assert len(actors) == 2
        np.testing.assert_allclose(many[:5], few, atol=1e-5)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actors[0].encode.remote(["x"], False))
    assert ray.is_initialized()


def test_a_small_machine_encodes_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with parallel_encoder() as encoder:
        assert isinstance(encoder, Encoder)
