"""An encoder for tests that are about something else: unit vectors from a hash of the text, in microseconds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dynaq.layout import BLOCK_DIM


class HashEmbedder:
    """Deterministic, 384 dimensions, zeros for an empty text; remembers how many texts it was given."""

    def __init__(self, name: str = "hash", revision: str = "1") -> None:
        self.name = name
        self.revision = revision
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.texts += texts
        out = np.zeros((len(texts), BLOCK_DIM), np.float32)
        for row, text in enumerate(texts):
            if text.strip():
                seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
                vector = np.random.default_rng(seed).standard_normal(BLOCK_DIM)
                out[row] = vector / np.linalg.norm(vector)
        return out
