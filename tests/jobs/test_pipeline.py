"""Train, tune, evaluate, recommend and report on real Ray actors, with judgements replayed from a ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from playwright.sync_api import Browser
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dynaq.runs.q_table import ServedRun
from jobs.cli import run
from tests.support.browser import PHONE, visit
from tests.support.markets import APPLICANTS, make_ledger, make_store

pytestmark = pytest.mark.usefixtures("ray_session_fixture")


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    make_store(str(folder / "store"))
    make_ledger(folder / "ledger.parquet")
    # Its answers have nothing to do with the texts: only agents that believe every answer learn from it.
    (folder / "config.yaml").write_text("block_size: 3\nworld_model: bayes\n")
    return folder


@pytest.fixture(scope="module")
def trained(market: Path, ray_session_fixture: None) -> Path:
    out = market / "run"
    assert run([*train(market), "--strategy", "llm", "--actors", "2", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def compared(market: Path, ray_session_fixture: None) -> Path:
    out = market / "comparison"
    arguments = ["--store", str(market / "store"), "--judge", f"ledger:{market}/ledger.parquet", "--budget", "10"]
    options = ["--config", str(market / "config.yaml"), "--actors", "1", "--out", str(out)]
    assert run(["tune", *arguments, *options]) == 0
    return out


def train(market: Path) -> list[str]:
    judge = f"ledger:{market}/ledger.parquet"
    return [
        "train",
        "--store",
        f"{market}/store",
        "--judge",
        judge,
        "--budget",
        "10",
        "--config",
        f"{market}/config.yaml",
    ]


def test_a_run_folder_holds_what_the_design_fixes(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "metrics.parquet", "recommendations.parquet", "agents", "report.html"} <= names
    table = pq.read_table(trained / "recommendations.parquet")
    assert table.column_names == ["applicant_id", "rank", "job_id", "q_value"]
    assert table.column("rank").to_pylist()[:3] == [1, 2, 3]
    assert len(set(table.column("applicant_id").to_pylist())) == APPLICANTS
    assert yaml.safe_load((trained / "config.yaml").read_text())["strategy"] == "llm"


def test_what_is_served_of_a_run_is_the_q_that_ranked_its_recommendations(trained: Path) -> None:
    served = ServedRun.open(str(trained))
    rows = pq.read_table(trained / "recommendations.parquet").to_pylist()
    assert set(served.places) == {row["applicant_id"] for row in rows}
    for row in rows:
        found = served.q_values(row["applicant_id"])
        assert found is not None
        _, q = found
        assert q[served.job_ids.index(row["job_id"])] == row["q_value"]
        assert (q > row["q_value"]).sum() < row["rank"]


def test_train_prints_one_json_object_and_another_number_of_actors_gives_the_same_recommendations(
    trained: Path, market: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    assert run([*train(market), "--strategy", "llm", "--out", str(market / "json"), "--actors", "1", "--json"]) == 0
    out, err = capfd.readouterr()
    table = "recommendations.parquet"
    assert pq.read_table(market / "json" / table) == pq.read_table(trained / table)
    found = json.loads(out)
    assert (found["strategy"], found["applicants"], found["failures"]) == ("llm", APPLICANTS, {})
    assert found["judgements_used"] == found["judgements_paid"] == 10 * APPLICANTS
    assert run(["evaluate", "--run", str(market / "json"), "--json"]) == 0
    evaluated = json.loads(capfd.readouterr().out)
    for name in ("ndcg@10", "recall@10", "mrr", "mean_reward@10", "apply_rate@10"):
        assert found[name] == pytest.approx(evaluated[name])
    assert "60/60 judgements" in err
    assert found["report"] == str(market / "json" / "report.html")


def test_a_trained_run_can_be_looked_at_in_tensorboard(trained: Path) -> None:
    events = EventAccumulator(str(trained)).Reload()
    rows = pq.read_table(trained / "metrics.parquet").to_pylist()
    last = [row["ndcg"] for row in rows if row["judgements_used"] == 10]
    assert events.Scalars("curve/ndcg")[-1].value == pytest.approx(sum(last) / len(last), rel=1e-5)
    assert events.Scalars("live/applicants_done")[-1].value == APPLICANTS


def test_evaluate_prints_one_json_object(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evaluate", "--run", str(trained), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["applicants"], found["judgements_per_applicant"], found["judged@10"]) == (APPLICANTS, 10, 1.0)
    assert 0 <= found["ndcg@10"] <= 1
    assert -0.1 <= found["mean_reward@10"] <= 1
    assert 0 <= found["apply_rate@10"] <= 1


def test_evaluate_agrees_with_the_files_by_hand(
    trained: Path, market: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", "--run", str(trained), "--json", "-k", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    from dynaq.judging.ledger_file import read_ledger

    rows = read_ledger(market / "ledger.parquet").to_pylist()
    rewards = {(row["applicant_id"], row["job_id"]): row["reward"] for row in rows}
    top = [row for row in pq.read_table(trained / "recommendations.parquet").to_pylist() if row["rank"] <= 5]
    by_hand = sum(rewards[row["applicant_id"], row["job_id"]] for row in top) / len(top)
    assert found["mean_reward@5"] == pytest.approx(by_hand)


def test_recommend_gives_the_files_first_ranks_with_titles(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recommend", "--run", str(trained), "--applicant", "a002", "-k", "3", "--json"]) == 0
    items = json.loads(capsys.readouterr().out)["recommendations"]
    rows = [
        row for row in pq.read_table(trained / "recommendations.parquet").to_pylist() if row["applicant_id"] == "a002"
    ]
    assert [item["job_id"] for item in items] == [row["job_id"] for row in rows[:3]]
    assert items[0]["title"] == f"Title of {items[0]['job_id']} <b>"


def test_recommend_refuses_an_applicant_who_is_not_in_the_run(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["recommend", "--run", str(trained), "--applicant", "eve"]) == 2
    assert "'eve'" in capsys.readouterr().err


def test_another_seed_is_another_run(trained: Path, market: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*train(market), "--strategy", "llm", "--out", str(trained), "--resume", "--seed", "5"]
    assert run(command) == 2
    assert "another config" in capsys.readouterr().err


def test_resuming_a_finished_run_trains_nothing_again(trained: Path, market: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (trained / "agents").rglob("*")}
    assert run([*train(market), "--strategy", "llm", "--out", str(trained), "--resume"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (trained / "agents").rglob("*")} == before


def test_a_comparison_has_a_run_folder_per_strategy_and_a_report(compared: Path) -> None:
    for strategy in ("cosine", "llm", "hybrid"):
        assert (compared / strategy / "recommendations.parquet").exists()
        assert list((compared / "tune" / strategy).glob("events.out.tfevents*"))
    rows = pq.read_table(compared / "trials.parquet").to_pylist()
    assert [row["strategy"] for row in rows] == ["cosine", "llm", "hybrid"]
    assert all(row["judged@10"] == 1.0 for row in rows)
    assert rows[1]["mean_reward@10"] > rows[0]["mean_reward@10"]


def test_the_page_of_a_comparison_shows_the_numbers_of_its_statistics(browser: Browser, compared: Path) -> None:
    seen = visit(browser, (compared / "report.html").as_uri(), width=PHONE)
    found = json.loads((compared / "comparison.json").read_text())
    checked = 0
    for arm in found["strategies"]:
        for name, cell in arm["metrics"].items():
            shown = seen.page.locator(f"[data-cell='{arm['strategy']} {name}'] .value")
            if cell["mean"] is not None and shown.count():
                assert shown.inner_text() == f"{cell['mean']:.3f}"
                checked += 1
    assert checked >= 3 * 5
    verdicts = [pair["verdict"] for pair in found["pairs"] if pair["phase"] == "final" and "ndcg" in pair["metric"]]
    assert set(verdicts) <= set(seen.page.locator(".verdicts li").all_inner_texts())
    assert (seen.errors, seen.overflow) == ([], 0)


def test_the_report_stands_alone_and_escapes_what_comes_from_the_store(compared: Path) -> None:
    page = (compared / "report.html").read_text()
    assert page.count("<svg") > 2
    assert "<script" not in page
    assert 'src="' not in page
    assert "Title of j0" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    for applicant in range(APPLICANTS):
        assert f"a{applicant:03d}" in page


def test_an_applicant_without_vectors_is_named_and_the_others_are_trained(
    tmp_path: Path, market: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(str(tmp_path / "store"), without_vectors=1)
    arguments = ["--store", f"{tmp_path}/store", "--strategy", "cosine", "--budget", "5", "--out", f"{tmp_path}/run"]
    assert run(["train", *arguments]) == 1
    assert "a005" in capsys.readouterr().err
    trained = set(pq.read_table(tmp_path / "run" / "recommendations.parquet").column("applicant_id").to_pylist())
    assert trained == {f"a{i:03d}" for i in range(APPLICANTS - 1)}
