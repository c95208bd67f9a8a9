"""Which words the languages bench takes, and what it measures of two encoders together."""

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.languages import Concatenated, Vectors, confirmed

ENGLISH_TO_GERMAN = """baker /beikər/
Bäcker <masc>, Bäckerin
bakery /beikəri/
Koch
nurse /nəːs/
1. Pfleger
2. Krankenschwester; Amme
"""


def test_a_word_is_confirmed_by_its_own_titles_entry_in_the_other_direction(tmp_path: Path) -> None:
    path = tmp_path / "freedict-eng-deu.dict.dz"
    path.write_bytes(gzip.compress(ENGLISH_TO_GERMAN.encode()))
    pairs = [("Bäcker", "baker"), ("Koch", "cook"), ("Pfleger", "baker"), ("Krankenschwester", "nurse")]
    assert confirmed(pairs, path) == [("Bäcker", "baker"), ("Krankenschwester", "nurse")]


class Fixed:
    def __init__(self, name: str, vectors: Sequence[Sequence[float]]) -> None:
        self.name = name
        self._vectors = np.array(vectors, np.float32)

    def encode(self, texts: Sequence[str]) -> Vectors:
        return self._vectors[: len(texts)]

    encode_queries = encode


def test_two_encoders_together_rank_by_the_mean_of_their_cosines() -> None:
    both = Concatenated([Fixed("a", [[1, 0], [0, 1]]), Fixed("b", [[1, 0, 0], [0.6, 0.8, 0]])])
    first, second = both.encode(["x", "y"])
    assert both.name == "a+b"
    assert first @ second == pytest.approx((0.0 + 0.6) / 2)
    assert first @ first == pytest.approx(1.0)
