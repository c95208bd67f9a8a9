"""What a person sees on a terminal, in a file and beside JSON."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from jobs.terminal import console as place
from jobs.terminal.console import Bars, LiveTable, say, saying_what_is_awaited, speaking_to_people

ROUND = {"applicants": "3/8", "mean reward": "0.512"}


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    screen = io.StringIO()
    monkeypatch.setattr(place, "console", Console(file=screen, force_terminal=True, width=100, highlight=False))
    monkeypatch.setattr(place, "TABLE_SECONDS", 0.0)
    return screen


def test_a_terminal_shows_one_table_with_a_row_per_run(terminal: io.StringIO) -> None:
    with LiveTable() as table:
        table.update("llm", 10, 80, ROUND)
        terminal.truncate(0)
        table.update("hybrid [b]", 20, 80, ROUND | {"left": "9 s"})
    shown = terminal.getvalue()
    lines = [line for line in shown.splitlines() if "/80" in line]
    assert [line.split()[0] for line in lines][:2] == ["llm", "hybrid"]
    assert "hybrid [b]" in shown  # brackets in a name are not read as markup
    assert "mean reward" in shown
    assert "9 s" in shown


def test_elsewhere_there_are_plain_lines_now_and_then_and_one_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveTable() as table:
        for done in range(10, 90, 10):
            table.update("llm", done, 80, ROUND)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"  llm {done}/80 judgements, applicants 3/8, mean reward 0.512" for done in (10, 80)]


def test_what_is_awaited_is_said_until_it_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(place, "AWAITED_SECONDS", 0.0)
    looks = iter([False, False, True])
    there = threading.Event()

    def ready(_: float) -> bool:
        found = next(looks)
        if found:
            there.set()
        return found

    with saying_what_is_awaited("the judge", "its engine starts", ready):
        assert there.wait(10)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  waiting for the judge: its engine starts"
    assert [line.partition(",")[0] for line in lines[1:3]] == ["  still waiting for the judge"] * 2


def test_a_count_without_a_known_end_is_no_fraction(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars(remaining=True) as bars:
        bars.update("reading jobs", 1024, None)
        bars.update("reading jobs", 2048, None)
        bars.update("embedding jobs", 2048, 2048)
    assert capsys.readouterr().out.splitlines() == ["  reading jobs 1,024", "  embedding jobs 2,048/2,048"]


def test_beside_json_what_is_said_to_people_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with speaking_to_people(machine_reads_stdout=True):
        say("working")
    say("done")
    out, err = capsys.readouterr()
    assert (out, err) == ("done\n", "working\n")
