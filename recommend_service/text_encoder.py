"""Vectors of texts that users enter: preferences and new profiles.

One thread encodes, because the encoder uses all cores by itself.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from cachetools import LRUCache

from dynaq.encoder import Embedder
from dynaq.errors import DynaqError, InputError
from dynaq.ingest.embedding import candidate_texts, check_encoder
from dynaq.layout import Layout
from dynaq.records import Candidate
from dynaq.stores import FloatArray, open_store

logger = logging.getLogger(__name__)
PREFERENCES_KEPT = 2000  # preferences whose vectors are cached


class Texts:
    """The encoder of a store, loaded in the background because that takes seconds."""

    def __init__(self, store_uri: str, encoder: Embedder) -> None:
        self._thread = ThreadPoolExecutor(1, "encoder")
        self._known: LRUCache[str, FloatArray] = LRUCache(PREFERENCES_KEPT)
        self._encoder = self._thread.submit(_load, store_uri, encoder)

    async def preference(self, text: str) -> FloatArray:
        """Unit vector `[block_dim]` of a preference. Raises InputError if the store was embedded by another encoder."""
        known = self._known.get(text)
        if known is not None:
            return known
        vector: FloatArray = (await self._encode([text]))[0]
        self._known[text] = vector
        return vector

    async def profile(self, applicant: Candidate, layout: Layout) -> dict[str, FloatArray]:
        """Vectors of a profile: block name -> `[block_dim]`. Raises as `preference`."""
        texts = candidate_texts(applicant)
        vectors = await self._encode([texts[block] for block in layout.state])
        return dict(zip(layout.state, vectors, strict=True))

    async def _encode(self, texts: list[str]) -> FloatArray:
        encoder = await asyncio.shield(asyncio.wrap_future(self._encoder))  # a cancelled caller must not stop loading
        loop = asyncio.get_running_loop()
        vectors: FloatArray = await loop.run_in_executor(self._thread, encoder.encode_queries, texts)
        return vectors

    def close(self) -> None:
        """End the thread and cancel pending work."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _load(store_uri: str, encoder: Embedder) -> Embedder:
    try:
        with open_store(store_uri, read_only=True) as store:
            check_encoder(store, encoder)
            dimension = store.dimension()
        warm = encoder.encode_queries(["a job near the sea"])
        assert warm.shape == (1, dimension)
        assert np.isfinite(warm).all()
    except DynaqError as error:
        logger.warning("preferences and new applicants are not available: %s", error)
        raise InputError(str(error)) from error
    return encoder
