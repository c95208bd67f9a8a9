"""dynaq judge, with the real judge: ask, measure, calibrate, move the ledger."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from dynaq.judging.judgement import judgement_from_probabilities
from dynaq.stores import open_store
from jobs import cli
from reward_service.config import JudgeConfig
from tests.support.judge_service import JudgeService

APPLICANTS = 2


@pytest.fixture
def store(tmp_path: Path, judge_service: JudgeService) -> str:
    """A store of our own with the market's texts and relevance of one applicant."""
    uri = str(tmp_path / "store")
    market = judge_service.market
    with open_store(uri, create=True) as opened:
        opened.put_records("job", market.jobs)
        opened.put_records("candidate", market.applicants[:APPLICANTS])
    lines = [f"{market.applicants[0].id},{job},{g}" for job, g in market.qrels.grades(market.applicants[0].id).items()]
    (tmp_path / "qrels.csv").write_text("applicant_id,job_id,grade\n" + "\n".join(lines))
    return uri


@pytest.mark.slow
def test_a_question_is_answered_and_kept(
    store: str, judge_service: JudgeService, capsys: pytest.CaptureFixture[str]
) -> None:
    applicant, jobs = judge_service.market.applicants[0], judge_service.market.jobs[:3]
    arguments = ["judge", "--store", store, "--applicant", applicant.id, "--jobs", ",".join(job.id for job in jobs)]
    assert cli.run(arguments) == 0
    first = capsys.readouterr().out
    with open_store(store, read_only=True) as opened:
        rows = opened.judgements().to_pylist()
    assert sorted(row["job_id"] for row in rows) == sorted(job.id for job in jobs)
    assert all(row["judge"] == JudgeConfig().fingerprint for row in rows)
    assert cli.run(arguments) == 0
    assert capsys.readouterr().out == first  # from the ledger


@pytest.mark.slow
def test_check_measures_every_method_and_recommends_one_that_works(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["judge", "--store", store, "--check", "--qrels", str(tmp_path / "qrels.csv")]) == 0
    printed = capsys.readouterr().out
    for word in ("AUC", "likelihood, halves", "nDCG@10", "label mass", "IGNORE", "option order", "judgements/s"):
        assert word in printed
    assert "Recommended: method likelihood" in printed
    assert "WARNING: with method choice" in printed


@pytest.mark.slow
def test_calibrate_writes_a_configuration_that_counts_as_calibrated(store: str, tmp_path: Path) -> None:
    out = tmp_path / "judge.yaml"
    assert cli.run(["judge", "--store", store, "--calibrate", str(out), "--pairs", "60"]) == 0
    config = JudgeConfig.load(out)
    assert config.calibrated
    assert config.thresholds is not None
    assert config.thresholds.scorer == JudgeConfig(condense=True, halves=True).scorer
    assert config.fingerprint != JudgeConfig().fingerprint
    assert set(yaml.safe_load(out.read_text())) == {"condense", "halves", "thresholds"}


def test_a_ledger_moves_from_store_to_store_and_twice_adds_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, file = str(tmp_path / "a"), str(tmp_path / "b"), tmp_path / "ledger.parquet"
    judgements = [
        judgement_from_probabilities("a", f"j{i}", (0.1 * i, 0.2, 0.3, 0.4), judge="judge-1", note="n")
        for i in range(5)
    ]
    with open_store(a, create=True) as opened:
        opened.add_judgements(judgements)
    open_store(b, create=True).close()
    assert cli.run(["judge", "--store", a, "--export", str(file)]) == 0
    assert pq.read_table(file).num_rows == 5
    assert cli.run(["judge", "--store", b, "--import", str(file)]) == 0
    assert "5 judgements added" in capsys.readouterr().out
    assert cli.run(["judge", "--store", b, "--import", str(file)]) == 0
    assert "0 judgements added" in capsys.readouterr().out
    with open_store(a, read_only=True) as one, open_store(b, read_only=True) as other:
        assert one.judgements().sort_by("job_id").equals(other.judgements().sort_by("job_id"))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "give one of"),
        (["--applicant", "x"], "go together"),
        (["--applicant", "x", "--jobs", "y"], "--store is missing"),
        (["--export", "f.parquet"], "--store is missing"),
        (["--check", "--export", "f.parquet"], "give one of"),
        (["--check", "--judge", "ledger:x"], "only an engine"),
        (["--check", "--qrels", "f.csv"], "--store too"),
        (["--calibrate", "/no/such/folder/judge.yaml"], "does not exist"),
        (["--store", "/no/such/store", "--import", "f.parquet"], "f.parquet"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["judge", *arguments]) == 2
    printed = capsys.readouterr().err
    assert reason in printed
    assert printed.count("\n") == 1


def test_serving_to_others_without_a_key_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DYNAQ_API_KEY", raising=False)
    assert cli.run(["serve", "--reward", "--host", "0.0.0.0"]) == 2
    assert "API key" in capsys.readouterr().err
    assert cli.run(["serve"]) == 2
