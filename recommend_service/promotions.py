"""A serving folder: which run serves now (`current.json`, replaced atomically), and which runs served before.

current.json                       the run that serves now, read by `dynaq serve --recommend --serving`
history/<time>-<action>.json       every promotion and rollback; sorted by name, oldest first
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from dynaq.errors import InputError
from dynaq.runs.folder import RunFolder
from dynaq.runs.q_table import ServedRun
from recommend_service.run_watch import CURRENT

HISTORY = "history"
PROMOTE, ROLLBACK = "promote", "rollback"


@dataclass(frozen=True)
class Promotion:
    """One change of the run that serves.

    Args:
        run, run_id: URI and id of the run that serves from here on.
        promoted_at: ISO time in UTC.
        action: PROMOTE or ROLLBACK.
        verdict, reason: of the preceding evaluation; empty for a rollback.
    """

    run: str
    run_id: str
    promoted_at: str
    action: str = PROMOTE
    verdict: str = ""
    reason: str = ""


class ServingFolder:
    """The folder of promotions. Raises InputError for an unknown URI."""

    def __init__(self, uri: str) -> None:
        self.folder = RunFolder.at(uri)

    def current(self) -> Promotion | None:
        """The promotion that is in force; None before the first one. Raises InputError when it cannot be read."""
        if not self.folder.exists(CURRENT):
            return None
        return self._read(CURRENT)

    def history(self) -> list[Promotion]:
        """All changes, oldest first."""
        return [self._read(f"{HISTORY}/{name}") for name in self.folder.names(HISTORY) if name.endswith(".json")]

    def promote(self, run: ServedRun, action: str = PROMOTE, verdict: str = "", reason: str = "") -> Promotion:
        """Make a run serve. The history is written first, so that it always includes the run that serves."""
        now = datetime.now(UTC)
        promotion = Promotion(run.folder.uri, run.run_id, now.isoformat(), action, verdict, reason)
        self.folder.write_json(f"{HISTORY}/{now:%Y%m%dT%H%M%S.%fZ}-{action}.json", asdict(promotion))
        self.folder.write_json(CURRENT, asdict(promotion))
        return promotion

    def before(self) -> Promotion:
        """The promotion to which a rollback returns. Raises InputError if there is none."""
        stack: list[Promotion] = []
        for promotion in self.history():
            if promotion.action == ROLLBACK and len(stack) > 1:
                stack.pop()
            elif promotion.action == PROMOTE:
                stack.append(promotion)
        if len(stack) < 2:
            raise InputError(f"nothing served before in {self.folder.uri!r}; there is nothing to roll back to")
        return stack[-2]

    def _read(self, name: str) -> Promotion:
        try:
            record: dict[str, Any] = self.folder.read_json(name)
            return Promotion(
                **{key: str(record.get(key, "")) for key in Promotion.__dataclass_fields__ if key in record}
            )
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"{name} in {self.folder.uri!r} cannot be read ({error}); restore it as `dynaq promote` wrote it"
            ) from error
