"""The real packaged model, loaded once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dynaq.encoder import DEFAULT_NAME, Encoder
from dynaq.errors import InputError

TEXTS = [
    "Python", "a much longer sentence about keeping the books of a small company " * 8, "看護師", "Krankenschwester",
    "nurse", "",
]  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder()


def test_vectors_are_those_of_sentence_transformers(encoder: Encoder) -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(encoder._source).encode(TEXTS[:-1], normalize_embeddings=True)
    got = encoder.encode(TEXTS)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[:-1], expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(got[:-1], axis=1), 1, atol=1e-5)


def test_a_text_without_content_is_zeros(encoder: Encoder) -> None:
    assert not encoder.encode(["", "  \n\t"]).any()
    assert encoder.encode([]).shape == (0, 384)


def test_equal_texts_are_encoded_once(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    batches = encoder._batches
    monkeypatch.setattr(encoder, "_batches", lambda texts: seen.extend(texts) or batches(texts))
    got = encoder.encode(["a", "b", "a", " a "])
    assert sorted(seen) == ["a", "b"]
    np.testing.assert_array_equal(got[0], got[3])


def test_a_text_of_ten_megabytes_takes_no_longer_than_its_beginning(encoder: Encoder) -> None:
    got = encoder.encode(["word " * 2_000_000, "word " * 5_000])
    np.testing.assert_allclose(got[0], got[1], atol=1e-6)


def test_the_revision_changes_with_the_weights_and_not_with_the_place(encoder: Encoder, tmp_path: Path) -> None:
    copy = tmp_path / "my-encoder"
    shutil.copytree(encoder._source, copy)
    same = Encoder(str(copy))
    assert (encoder.name, same.name) == (DEFAULT_NAME, "my-encoder")
    assert same.revision == encoder.revision
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert Encoder(str(copy)).revision != encoder.revision


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere"])
def test_a_folder_that_is_not_there_is_an_input_error(name: str) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Encoder(name)


def test_a_folder_without_a_model_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        Encoder(str(tmp_path)).encode(["x"])
