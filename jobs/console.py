"""What a person sees while a command works: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

LINE_SECONDS = 5.0  # between two plain lines of the same bar


class Bars:
    """One bar per name, counting towards a total, with a note behind it."""

    def __init__(self) -> None:
        self._live = console.is_terminal
        self._bars: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> Self:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._progress.stop()

    def update(self, name: str, done: float, total: float, note: str = "") -> None:
        """Show where `name` stands. A plain line appears every few seconds and at the end."""
        if self._live:
            if name not in self._bars:
                self._bars[name] = self._progress.add_task(name, total=total, note=note)
            self._progress.update(self._bars[name], completed=done, total=total, note=note)
            return
        now = time.monotonic()
        if done >= total or now - self._printed.get(name, 0.0) >= LINE_SECONDS:
            self._printed[name] = now
            say(f"  {name} {done:.0f}/{total:.0f} {note}".rstrip())


def say(text: str, style: str = "") -> None:
    """One line for the person. Titles and paths may hold brackets, so nothing in it is markup."""
    console.print(text, soft_wrap=True, markup=False, style=style)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step and print how long it took."""
    began = time.monotonic()
    say(title, "bold")
    yield
    say(f"  {time.monotonic() - began:.1f} s", "dim")
