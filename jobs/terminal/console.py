"""What a user sees while a command works: bars and a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress_bar import ProgressBar
from rich.table import Table

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

LINE_SECONDS = 5.0  # between two plain lines of the same bar
RATE_SECONDS = 60.0  # the rate is measured over the last minute
MIN_RATE_SECONDS = 2.0  # no estimate before
AWAITED_SECONDS = 15.0  # between two lines about what is awaited
WATCH_SECONDS = 0.5  # of one look whether it is there
TABLE_SECONDS = 0.2  # between two refreshes of the live table


class Rate:
    """Speed of a task over the last minute only.

    A resumed task skips finished work quickly, which would inflate an average from the start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, float]] = deque()

    def left(self, done: float, total: float) -> str:
        """`about 12 min left`; empty at the end, and until something is known."""
        now = self._clock()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= RATE_SECONDS:
            self._seen.popleft()
        began, before = self._seen[0]
        if done >= total or done <= before or now - began < MIN_RATE_SECONDS:
            return ""
        return f"about {duration((total - done) * (now - began) / (done - before))} left"


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class Bars:
    """One bar per name, counting towards a total, followed by a note.

    Args:
        remaining: show the estimated remaining time as well.
    """

    def __init__(self, remaining: bool = False) -> None:
        self._live = console.is_terminal
        self._rates: dict[str, Rate] | None = {} if remaining else None
        self._bars: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
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

    def update(self, name: str, done: float, total: float | None, note: str = "") -> None:
        """Show where `name` stands; total: None while it is not known.

        A plain line appears every few seconds and at the end.
        """
        left = self._rates.setdefault(name, Rate()).left(done, total) if self._rates is not None and total else ""
        note = f"{note} {left}".strip()
        count = f"{done:,.0f}" if total is None else f"{done:,.0f}/{total:,.0f}"
        if self._live:
            if name not in self._bars:
                self._bars[name] = self._progress.add_task(name, total=total, note=note, count=count)
            self._progress.update(self._bars[name], completed=done, total=total, note=note, count=count)
            return
        now = time.monotonic()
        ended = total is not None and done >= total
        if ended or now - self._printed.get(name, 0.0) >= LINE_SECONDS:
            self._printed[name] = now
            say(f"  {name} {count} {note}".rstrip())


class LiveTable:
    """One row per run while it trains: a bar towards its budget and what else is known, in columns.

    Args:
        what: what the bar counts.
    """

    def __init__(self, what: str = "judgements") -> None:
        self._what = what
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._rows: dict[str, tuple[float, float, dict[str, str]]] = {}
        self._printed: dict[str, float] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def update(self, name: str, done: float, total: float, cells: Mapping[str, str]) -> None:
        """Show where the run `name` stands; cells: column -> text. Elsewhere a plain line every few seconds."""
        self._rows[name] = (done, total, dict(cells))
        now = time.monotonic()
        if self._live:
            if done >= total or now - self._printed.get("", 0.0) >= TABLE_SECONDS:
                self._printed[""] = now
                self._live.update(self._table(), refresh=True)
        elif done >= total or now - self._printed.get(name, 0.0) >= LINE_SECONDS:
            self._printed[name] = now
            notes = [f"{done:.0f}/{total:.0f} {self._what}", *(f"{column} {text}" for column, text in cells.items())]
            say(f"  {name} {', '.join(notes)}")

    def _table(self) -> Table:
        columns = dict.fromkeys(column for _, _, cells in self._rows.values() for column in cells)
        table = Table("run", self._what, "", box=None, pad_edge=False)
        for column in columns:
            table.add_column(column, justify="right", no_wrap=True)
        for name, (done, total, cells) in self._rows.items():
            bar = ProgressBar(total=max(total, 1e-9), completed=done, width=24)
            shown = [cells.get(column, "") for column in columns]
            table.add_row(escape(name), bar, f"{done:.0f}/{total:.0f}", *map(escape, shown))
        return table


@contextmanager
def speaking_to_people(machine_reads_stdout: bool) -> Iterator[None]:
    """While a command with `--json` works, everything meant for people goes to stderr."""
    before = console.stderr
    console.stderr = before or machine_reads_stdout
    try:
        yield
    finally:
        console.stderr = before


def say(text: str, style: str = "") -> None:
    """Print one line. Markup is off, since titles and paths may hold brackets."""
    console.print(text, soft_wrap=True, markup=False, style=style)


@contextmanager
def saying_what_is_awaited(what: str, why: str, ready: Callable[[float], bool]) -> Iterator[None]:
    """While the block runs, say now and then that `what` is still awaited, and once when it is there.

    why: said once. ready: whether it is there, looked for during at most so many seconds.
    """
    ended = threading.Event()

    def watch() -> None:
        began = said = time.monotonic()
        say(f"  waiting for {what}: {why}")
        while not ended.is_set():
            there, now = ready(WATCH_SECONDS), time.monotonic()
            if ended.is_set():
                return
            if there:
                say(f"  {what} is there after {duration(now - began)}")
                return
            if now - said >= AWAITED_SECONDS:
                said = now
                say(f"  still waiting for {what}, {duration(now - began)} so far")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step and print how long it took."""
    began = time.monotonic()
    say(title, "bold")
    yield
    say(f"  {time.monotonic() - began:.1f} s", "dim")
