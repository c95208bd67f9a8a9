from __future__ import annotations

import numpy as np
import pytest
import ray

import cluster.embedding
from cluster.embedding import _GrowingEncoder, parallel_encoder
from dynaq.encoder import Encoder


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_cluster_is_used_only_when_there_is_much_to_embed_and_embeds_like_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    monkeypatch.setattr(cluster.embedding, "MIN_TEXTS", 10)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})  # two copies of the model are enough here
    texts = [f"{'long ' * (i % 7)}text number {i % 50}" for i in range(120)] + ["", "看護師"]
    local = Encoder()
    with parallel_encoder() as encoder:
        assert isinstance(encoder, _GrowingEncoder)
        few = encoder.encode(texts[:5])
        assert encoder._cluster is None
        many = encoder.encode(texts)
        spread = encoder._cluster
        assert spread is not None
        assert (spread.name, spread.revision) == (encoder.name, encoder.revision) == (local.name, local.revision)
        actors = list(spread._actors)
        assert len(actors) == 2
        np.testing.assert_allclose(many[:5], few, atol=1e-5)
        np.testing.assert_allclose(many, local.encode(texts), atol=1e-5)
        assert not many[120].any()
        assert spread.encode([]).shape == (0, 384)
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(actors[0].encode.remote(["x"], False))
    assert ray.is_initialized()


def test_a_small_machine_encodes_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with parallel_encoder() as encoder:
        assert isinstance(encoder, Encoder)
