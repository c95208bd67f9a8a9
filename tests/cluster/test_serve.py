"""Who may call."""

from __future__ import annotations

import pytest

from cluster.serve import key_matches, refuse_open_address
from dynaq.errors import InputError


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "judge.example.org", "127.0.0.1.example.org"])
def test_an_address_open_to_others_needs_a_key(host: str) -> None:
    with pytest.raises(InputError, match=r"the judge would answer anyone.*API key"):
        refuse_open_address(None, host, "the judge")
    refuse_open_address("k", host, "the judge")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    refuse_open_address(None, host, "the judge")


@pytest.mark.parametrize(("given", "right"), [("schlüssel", True), ("schlusse", False), ("", False), (None, False)])
def test_only_the_key_is_the_key(given: str | None, right: bool) -> None:
    assert key_matches(given, "schlüssel") is right
