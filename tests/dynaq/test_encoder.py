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


@pytest.mark.slow
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


def test_a_name_that_nobody_has_ends_at_once_and_says_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("all-MiniLM-L6-v3", "no such model", "someone/else"):
        with pytest.raises(InputError, match=r"multilingual.*hf download"):
            Encoder(name)


def test_a_model_of_another_dimension_is_an_encoder_too(encoder: Encoder, tmp_path: Path) -> None:
    folder = smaller_model(encoder, tmp_path / "e5-small-of-ours")
    small = Encoder(str(folder))
    assert small.dimension == 64
    assert small.encode(TEXTS).shape == (len(TEXTS), 64)
    # E5 models need these prefixes, but most copies of them do not configure any.
    assert small.prompts == {"query": "query: ", "passage": "passage: "}
    expected = small._model.encode(["query: nurse"], prompt="", normalize_embeddings=True)
    np.testing.assert_allclose(small.encode_queries(["nurse"]), expected, atol=1e-6)


def test_the_default_encoder_has_no_prefixes(encoder: Encoder) -> None:
    assert encoder.prompts == {"query": None, "passage": None}
    np.testing.assert_array_equal(encoder.encode(TEXTS), encoder.encode_queries(TEXTS))


def test_how_far_a_call_is_can_be_watched(encoder: Encoder) -> None:
    seen: list[float] = []
    encoder.watch = seen.append
    encoder.encode(["a" * i for i in range(1, 200)])
    encoder.watch = None
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def smaller_model(encoder: Encoder, folder: Path) -> Path:
    """A sentence-transformers model of 64 dimensions, with the default one's tokenizer and random weights."""
    import torch
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    inner = folder.parent / "bert"
    config = BertConfig(
        vocab_size=30522, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(inner)
    encoder._model.tokenizer.save_pretrained(inner)
    transformer = models.Transformer(str(inner), max_seq_length=64)
    SentenceTransformer(modules=[transformer, models.Pooling(64)], device="cpu").save(str(folder))
    return folder
