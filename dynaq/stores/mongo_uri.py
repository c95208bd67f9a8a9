"""MongoDB URIs: shown without their secrets, and what they say about waiting."""

from __future__ import annotations

import re
from urllib.parse import unquote


def is_mongo(uri: str) -> bool:
    """Whether a store URI names a MongoDB database."""
    return uri.startswith(("mongodb://", "mongodb+srv://"))


def mask_uri(uri: str) -> str:
    """The URI without user, password and options. Other texts are returned unchanged."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    # The last @ ends the credentials even if the password contains an unquoted one.
    _, at, place = rest.rpartition("@")
    return f"{scheme}://{'***@' if at else ''}{place.partition('?')[0]}"


def scrub(message: str, uri: str) -> str:
    """`message` with the URI masked and its secrets removed."""
    message = message.replace(uri, mask_uri(uri))
    rest = uri.partition("://")[2]
    credentials = rest.rpartition("@")[0]
    secrets = [credentials, *credentials.split(":", 1)]
    secrets += [value for _, _, value in (option.partition("=") for option in re.split(r"[?&;]", rest)[1:])]
    for secret in sorted({s for text in secrets for s in (text, unquote(text))}, key=len, reverse=True):
        if len(secret) > 2:
            message = message.replace(secret, "***")
    return message


def selection_timeout(uri: str) -> int:
    """Milliseconds to wait for a server: the URI's value, or 5 s, since the driver's 30 s look like a hang."""
    given = re.search(r"[?&]serverSelectionTimeoutMS=(\d+)", uri, re.IGNORECASE)
    return int(given[1]) if given else 5000
