"""An encoder for tests that are about something else: unit vectors from a hash of the text, in microseconds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dynaq.encoder import Watch
from dynaq.layout import BLOCK_DIM


class HashEmbedder:
    """Deterministic, of any dimension, zeros for an empty text; remembers how many texts it was given."""

    def __init__(self, name: str = "hash", revision: str = "1", dimension: int = BLOCK_DIM) -> None:
        self.name = name
        self.revision = revision
        self.dimension = dimension
        self.texts: list[str] = []
        self.watch: Watch | None = None

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.texts += texts
        out = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            if text.strip():
                seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
                vector = np.random.default_rng(seed).standard_normal(self.dimension)
                out[row] = vector / np.linalg.norm(vector)
        return out

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return self.encode(texts)
