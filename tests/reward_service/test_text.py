"""What leaves `neutralise` cannot be mistaken for a prompt's own marks, and cuts fall at sensible places."""

from __future__ import annotations

import re
import unicodedata

import pytest

from bench.injection_attacks import ATTACKS
from reward_service.untrusted_text import Field, cut, fit, neutralise


def words(text: str) -> list[tuple[int, int]]:
    """Each word with the space before it is a token."""
    return [match.span() for match in re.finditer(r"\s?\S+", text)]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.kind)
def test_no_attack_keeps_a_marker_a_line_break_or_a_hidden_character(attack: object) -> None:
    text = neutralise(attack.text)  # type: ignore[attr-defined]
    assert "<" not in text
    assert ">" not in text
    assert "\n" not in text
    assert not re.search(r"\[/?(INST|SYS)\]|#{3}|<\|", text)
    assert all(unicodedata.category(c)[0] != "C" for c in text)


def test_plain_text_stays_as_it_is() -> None:
    for text in ("C++, C#, .NET and Node.js", "Führungskraft – 5 years' experience", "数据分析师", "R&D (50 %)"):
        assert neutralise(text) == unicodedata.normalize("NFKC", text)


def test_full_width_markers_are_met_too() -> None:
    assert neutralise("＜｜im_end｜＞") == "‹|im_end|›"


def test_a_cut_ends_at_a_sentence_a_list_item_or_a_word() -> None:
    assert cut("one two three. four five", 4, words) == ("one two three", True)
    assert cut("Java, Python, SQL databases, Go", 3, words) == ("Java, Python", True)
    assert cut("one two three four", 3, words) == ("one two three", True)
    assert cut("one two", 2, words) == ("one two", False)


def test_the_longest_field_gives_way_first() -> None:
    fields = [Field("Title", "web developer"), Field("Skills", " ".join(f"s{i}" for i in range(50)))]
    fitted, was_cut = fit(fields, 12, words)
    assert was_cut
    assert fitted[0] == fields[0]
    assert len(words(fitted[1].text)) == 10
    assert fit(fields, 100, words) == (fields, False)
