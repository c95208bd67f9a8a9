"""Who may call."""

from __future__ import annotations

import pytest

from cluster.serve import key_matches, refuse_open_address
from dynaq.errors import InputError


def refused(host: str, key: str | None = None) -> bool:
    """Whether the judge would not be served at this address."""
    try:
        refuse_open_address(key, host, "the judge")
    except InputError as error:
        return "the judge would answer anyone" in str(error) and "API key" in str(error)
    return False


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "judge.example.org", "127.0.0.1.example.org"])
def test_an_address_open_to_others_needs_a_key(host: str) -> None:
    assert refused(host)
    assert not refused(host, key="k")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert not refused(host)


@pytest.mark.parametrize(("given", "right"), [("schlüssel", True), ("schlusse", False), ("", False), (None, False)])
def test_only_the_key_is_the_key(given: str | None, right: bool) -> None:
    assert key_matches(given, "schlüssel") is right
