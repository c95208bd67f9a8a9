"""Models that packages ship in their own file format, converted once into folders that our libraries load."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_dir() -> Path:
    """Where converted models live: `$DYNAQ_CACHE`, else `$XDG_CACHE_HOME/dynaq`, else `~/.cache/dynaq`."""
    if chosen := os.environ.get("DYNAQ_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dynaq"


def converted(name: str, convert: Callable[[Path], None]) -> Path:
    """The folder of that name in the cache, filled by `convert` on the first call.

    Safe in concurrent processes: one converts under a file lock while the others wait, and the complete folder appears
    by a rename. Raises OSError when it cannot be written.
    """
    target = cache_dir() / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.parent / f"{target.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            workspace = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
            try:
                convert(workspace)
                workspace.rename(target)
            finally:
                shutil.rmtree(workspace, ignore_errors=True)
    return target
