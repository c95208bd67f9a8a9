"""An access log without personal data: time, method, route, status, duration, and what kind of key was used.

The route is the pattern, not the path, since paths hold applicants' ids; addresses, queries and bodies are not logged.
"""

from __future__ import annotations

import logging
from logging.handlers import WatchedFileHandler
from pathlib import Path

from dynaq.errors import InputError

LINE_FORMAT = "%(asctime)s %(message)s"


class AccessLog:
    """Appends a line per call to a file, which may be rotated by others. path: None logs nothing.

    Raises InputError when the file cannot be written.
    """

    def __init__(self, path: str | None) -> None:
        self._logger = logging.Logger("recommend_service.access", logging.INFO)
        if path is None:
            self._logger.disabled = True
            return
        try:
            handler = WatchedFileHandler(Path(path), encoding="utf-8")
        except OSError as error:
            raise InputError(f"access log {path} cannot be written ({error.strerror}); name another file") from error
        handler.setFormatter(logging.Formatter(LINE_FORMAT))
        self._logger.addHandler(handler)

    def call(self, method: str, route: str, status: int, seconds: float, scope: str) -> None:
        """Log one call. route: its pattern; scope: of the key."""
        self._logger.info("%s %s %d %.1f ms %s", method, route, status, 1000 * seconds, scope)

    def close(self) -> None:
        """Close the file."""
        for handler in list(self._logger.handlers):
            handler.close()
            self._logger.removeHandler(handler)
