"""Settings from a YAML file and from flags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dynaq.errors import InputError


def read_settings(what: str, path: str | Path | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a YAML file, then the overrides that are not None. Raises InputError that names `what` and the file."""
    values: dict[str, Any] = {}
    if path is not None:
        try:
            loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{what} {str(path)!r} cannot be read: {error}") from error
        if not isinstance(loaded, dict):
            raise InputError(f"{what} {str(path)!r} must be a mapping of fields to values")
        values = loaded
    return values | {key: value for key, value in overrides.items() if value is not None}
