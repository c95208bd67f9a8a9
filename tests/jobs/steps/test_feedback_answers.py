"""dynaq train --feedback: what people did, beside a judge or alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from dynaq.feedback.answers import REAL
from dynaq.stores import open_store
from jobs.cli import run
from jobs.steps.feedback_answers import FEEDBACK_FILE
from tests.support.events import event
from tests.support.markets import APPLICANTS, make_ledger, make_store

pytestmark = pytest.mark.usefixtures("ray_session_fixture")

LAST_JOB = "j039"


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    make_store(str(folder / "store"))
    make_ledger(folder / "ledger.parquet")
    (folder / "config.yaml").write_text("block_size: 2\n")
    with open_store(str(folder / "store")) as store:
        store.add_feedback(
            [
                event(applicant="a000", job=LAST_JOB, what="click"),
                event(applicant="a000", job=LAST_JOB, what="hire", minute=1),
                event(applicant="a000", job="j001", what="ignore", minute=2),
                event(applicant="a001", job="j002", what="save", minute=3),
                event(applicant="a001", job="sold", what="apply", minute=4),
                event(applicant="eve", job="j002", what="apply", minute=5),
                event(applicant="a002", job="j003", what="apply", minute=60),
            ]
        )
    return folder


def train(market: Path, out: str, *options: str) -> int:
    arguments = ["--store", f"{market}/store", "--config", f"{market}/config.yaml", "--budget", "10"]
    return run(["train", *arguments, "--strategy", "llm", "--out", str(market / out), *options])


def ranks(folder: Path, applicant: str) -> dict[str, int]:
    rows = pq.read_table(folder / "recommendations.parquet").to_pylist()
    return {row["job_id"]: row["rank"] for row in rows if row["applicant_id"] == applicant}


@pytest.fixture(scope="module")
def from_events(market: Path, ray_session_fixture: None) -> Path:
    """Trained on events alone."""
    assert train(market, "none", "--feedback", "--judge", "none") == 0
    return market / "none"


def test_events_alone_train_every_agent(from_events: Path) -> None:
    assert ranks(from_events, "a000")[LAST_JOB] == 1
    assert ranks(from_events, "a000")["j001"] > 20
    assert ranks(from_events, "a002")["j003"] == 1
    assert len(ranks(from_events, "a005")) == 40, "no events, and still a ranking"
    used = pq.read_table(from_events / "metrics.parquet").column("judgements_used").to_pylist()
    assert set(used) == {0}


def test_the_run_folder_says_what_was_learned_from(from_events: Path) -> None:
    rows = pq.read_table(from_events / FEEDBACK_FILE).to_pylist()
    assert {(row["applicant_id"], row["job_id"], row["label"], row["judge"]) for row in rows} == {
        ("a000", LAST_JOB, "APPLY", REAL),
        ("a000", "j001", "IGNORE", REAL),
        ("a001", "j002", "SAVE", REAL),
        ("a002", "j003", "APPLY", REAL),
    }
    found = yaml.safe_load((from_events / "config.yaml").read_text())
    assert found["judge"] is None
    counts = {name: found["feedback"][name] for name in ("events", "answers", "people", "unknown_jobs")}
    assert counts == {"events": 7, "answers": 4, "people": 3, "unknown_jobs": 1}
    assert found["feedback"]["unknown_applicants"] == 1


def test_a_judge_is_asked_only_what_nobody_answered(market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The judge's ledger lacks the pairs that people answered: asking for one would fail the run."""
    table = pq.read_table(market / "ledger.parquet")
    given = {("a000", LAST_JOB), ("a000", "j001"), ("a001", "j002")}
    keep = [(row["applicant_id"], row["job_id"]) not in given for row in table.to_pylist()]
    pq.write_table(table.filter(keep), market / "rest.parquet")
    options = ["--budget", "40", "--judge", f"ledger:{market}/rest.parquet", "--feedback-until", "2025-03-01T12:30:00Z"]
    assert train(market, "both", *options) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "learning from 3 answers of 2 applicants, out of 6 events" in out
    assert "1 events on jobs that are not in the catalogue, 1 events of applicants outside the cohort" in out
    rows = pq.read_table(market / "both" / "metrics.parquet").to_pylist()
    used = {row["applicant_id"]: row["judgements_used"] for row in rows}
    assert used == {"a000": 38, "a001": 39} | {f"a{i:03d}": 40 for i in range(2, APPLICANTS)}
    assert ranks(market / "both", "a000")[LAST_JOB] < ranks(market / "both", "a000")["j001"]


def test_a_resumed_run_goes_on_with_the_answers_it_began_with(
    from_events: Path, market: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (from_events / "recommendations.parquet").read_bytes()
    with open_store(str(market / "store")) as store:
        store.add_feedback([event(applicant="a005", job="j009", what="apply", minute=-100)])
    (from_events / "agents" / "block_00002.json").unlink()
    assert train(market, "none", "--feedback", "--judge", "none", "--resume") == 0
    assert (from_events / "recommendations.parquet").read_bytes() == before
    assert train(market, "none", "--judge", f"ledger:{market}/ledger.parquet", "--resume") == 2
    assert "another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--judge", "none"], "add --feedback"),
        (["--judge", "none", "--feedback", "--strategy", "cosine"], "take llm or hybrid"),
        (["--judge", "none", "--feedback-until", "2020-01-01T00:00:00Z"], "nothing to learn from"),
        (["--judge", "none", "--feedback-until", "yesterday"], "'yesterday' is not a time"),
        (["--judge", "none", "--feedback-until", "2025-01-01"], "has no zone"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(
    market: Path, capsys: pytest.CaptureFixture[str], options: list[str], reason: str
) -> None:
    assert train(market, "refused", *options) == 2
    assert reason in capsys.readouterr().err
    assert not (market / "refused" / "config.yaml").exists()
