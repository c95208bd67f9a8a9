"""An encoder spread over a Ray cluster: one copy of the model per GPU, or per core where there is no GPU."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch

from cluster.session import ray_session
from dynaq.encoder import Embedder, Encoder, Watch

MIN_CORES = 4  # with fewer, one process with as many threads is as fast
MIN_TEXTS = 2048  # fewer are encoded here before Ray and its models have started
SLICES_PER_ACTOR = 4  # several, so that a slow actor does not keep the others waiting


@ray.remote
class _EncoderActor:
    def __init__(self, name: str | None) -> None:
        if not torch.cuda.is_available():
            torch.set_num_threads(1)  # the actors are the parallelism
        self._encoder = Encoder(name)

    def encode(self, texts: list[str], queries: bool) -> npt.NDArray[np.float32]:
        return self._encoder.encode_queries(texts) if queries else self._encoder.encode(texts)


class ClusterEncoder:
    """Embeds with as many actors as the cluster has GPUs, or cores. Has the interface of `dynaq.encoder.Encoder`.

    Args:
        name: as for Encoder; a folder must exist on every node.
        actors: how many; None: one per GPU, or per core where there is no GPU.

    Ray must be running. `close` frees the actors' memory.
    """

    def __init__(self, name: str | None = None, *, actors: int | None = None) -> None:
        local = Encoder(name)
        self.name, self.revision = local.name, local.revision
        self.watch: Watch | None = None
        self._local = local
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
        options: dict[str, Any] = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": 1}
        actor_class: Any = _EncoderActor
        self._actors = [actor_class.options(**options).remote(name) for _ in range(actors or gpus or cpus)]

    @property
    def dimension(self) -> int:
        """Numbers of a vector."""
        return self._local.dimension

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors `[len(texts), dimension]` of passages, zeros for a text without content.

        Each distinct text is encoded once.
        """
        return self._encode(texts, queries=False)

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The same of queries."""
        return self._encode(texts, queries=True)

    def _encode(self, texts: Sequence[str], queries: bool) -> npt.NDArray[np.float32]:
        places: dict[str, list[int]] = {}
        for i, text in enumerate(texts):
            places.setdefault(text, []).append(i)
        # Sorted by length, a slice needs little padding, and the slowest slices start first.
        distinct = sorted(places, key=len, reverse=True)
        size = max(1, math.ceil(len(distinct) / (SLICES_PER_ACTOR * len(self._actors))))
        slices = [distinct[i : i + size] for i in range(0, len(distinct), size)]
        out = np.zeros((len(texts), self.dimension), np.float32)
        pool: Any = ray.util.ActorPool(self._actors)
        encoded = pool.map(lambda actor, part: actor.encode.remote(part, queries), slices)
        for done, (part, vectors) in enumerate(zip(slices, encoded, strict=True), start=1):
            for text, vector in zip(part, vectors, strict=True):
                out[places[text]] = vector
            if self.watch is not None:
                self.watch(done / len(slices))
        return out

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []


@contextmanager
def parallel_encoder(name: str | None = None) -> Iterator[Embedder]:
    """An encoder that uses this whole machine, or the cluster at $RAY_ADDRESS, once there is much to embed.

    On a machine with few cores and at most one GPU it is the plain encoder.
    """
    local = Encoder(name)
    several = torch.cuda.device_count() > 1 or (not torch.cuda.is_available() and (os.cpu_count() or 1) >= MIN_CORES)
    with ExitStack() as stack:
        yield _GrowingEncoder(local, name, stack) if several or os.environ.get("RAY_ADDRESS") else local


class _GrowingEncoder:
    """Encodes here until the first large batch, then starts the cluster's encoders."""

    def __init__(self, local: Encoder, name: str | None, stack: ExitStack) -> None:
        self.name, self.revision = local.name, local.revision
        self.watch: Watch | None = None
        self._local, self._source, self._stack = local, name, stack
        self._cluster: ClusterEncoder | None = None

    @property
    def dimension(self) -> int:
        return self._local.dimension

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return self._for(texts).encode(texts)

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return self._for(texts).encode_queries(texts)

    def _for(self, texts: Sequence[str]) -> Embedder:
        if self._cluster is None and len(texts) >= MIN_TEXTS:
            self._stack.enter_context(ray_session())
            self._cluster = ClusterEncoder(self._source)
            self._stack.callback(self._cluster.close)
        chosen: Embedder = self._cluster or self._local
        chosen.watch = self.watch
        return chosen
