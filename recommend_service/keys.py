"""Who calls, and what they may do: the operator's service key, a key that only reads, one applicant's token.

A token is a JSON Web Token (RFC 7519), signed with HMAC-SHA256 under a secret that is derived from the service key, so
that a new service key ends all tokens. It names one applicant, expires, and may be restricted to reading.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import jwt

from cluster.serve import key_matches
from recommend_service.problems import Problem

ALGORITHM, AUDIENCE = "HS256", "dynaq-recommend"


@dataclass(frozen=True)
class Caller:
    """A caller whose key was checked.

    Args:
        scope: service may do everything; reader reads lists, jobs and metrics of everybody and leaves no trace;
            applicant sees and does what is their own.
        applicant_id: of an applicant's token.
        read_only: a token that only reads.
        expires_at: of a token.
    """

    scope: Literal["service", "reader", "applicant"]
    applicant_id: str | None = None
    read_only: bool = False
    expires_at: datetime | None = None

    def check_operator(self, *, reading: bool = False) -> None:
        """Raises Problem unless the caller may see (or change, without `reading`) what concerns everybody."""
        if self.scope == "applicant" or (self.scope == "reader" and not reading):
            raise Problem(403, "forbidden", "this needs the service key")

    def check_reads(self, applicant_id: str) -> None:
        """Raises Problem unless the caller may see the applicant's list."""
        if self.scope == "applicant" and self.applicant_id != applicant_id:
            raise Problem(403, "forbidden", "this token is for another applicant")

    def check_owns(self, applicant_id: str, *, writing: bool) -> None:
        """Raises Problem unless the caller may act for the applicant, or see all that is held about them."""
        self.check_reads(applicant_id)
        if writing or self.scope == "reader":
            self.check_writes()

    def check_writes(self) -> None:
        """Raises Problem for a key or token that only reads."""
        if self.scope == "reader" or self.read_only:
            raise Problem(403, "forbidden", "this key or token only reads")


class Keys:
    """Checks keys and issues tokens.

    Args:
        service: the service key; None admits everybody as the operator (on loopback).
        reader: the read-only key, if there is one.
    """

    def __init__(self, service: str | None, reader: str | None = None) -> None:
        self._service, self._reader = service, reader
        self._secret = hmac.digest((service or "").encode(), b"applicant tokens of dynaq, version 1", hashlib.sha256)

    def caller(self, given: str | None) -> Caller:
        """Who sent this bearer token. Raises Problem when it is no key and no valid token."""
        try:
            if self._service is None or key_matches(given, self._service):
                return Caller("service")
            if self._reader is not None and key_matches(given, self._reader):
                return Caller("reader", read_only=True)
            claims: dict[str, Any] = jwt.decode(
                given or "",
                self._secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                options={"require": ["sub", "exp", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise Problem(401, "unauthorized", "this token has expired; ask for a new one") from None
        except (jwt.InvalidTokenError, ValueError):  # ValueError: halves of surrogate pairs
            raise Problem(401, "unauthorized", "send the API key or a token as `Authorization: Bearer …`") from None
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        return Caller("applicant", claims["sub"], bool(claims.get("read_only")), expires_at)

    def issue(self, applicant_id: str, minutes: int, *, read_only: bool = False) -> tuple[str, datetime]:
        """A token for one applicant and when it expires. Raises Problem when the service has no key to sign with."""
        if self._service is None:
            raise Problem(409, "no-key", "this service has no API key, so it needs no tokens; set DYNAQ_API_KEY")
        now = datetime.now(UTC)
        expires_at = (now + timedelta(minutes=minutes)).replace(microsecond=0)
        claims = {"sub": applicant_id, "aud": AUDIENCE, "iat": now, "exp": expires_at, "read_only": read_only}
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM), expires_at
