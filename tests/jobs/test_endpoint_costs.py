"""Training on an endpoint that costs money: the limit ends the run, and the run goes on without paying twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynaq.stores import open_store
from jobs.cli import run
from tests.support.markets import APPLICANTS, make_store
from tests.support.openai_server import openai_server

pytestmark = pytest.mark.usefixtures("ray_session_fixture")
BUDGET = 10


def test_a_run_stops_at_max_cost_and_resumes_without_paying_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = tmp_path / "store", tmp_path / "run"
    make_store(str(store))
    (tmp_path / "config.yaml").write_text("block_size: 2\n")
    with openai_server("vllm") as server:
        url = server.url.replace("://", "://me:pass-word@")
        terms = ["--judge", url, "--price-in", "2", "--price-out", "8", "--max-cost"]
        arguments = ["train", "--store", str(store), "--strategy", "llm", "--budget", str(BUDGET), "--json"]
        arguments += ["--calibrate", "off"]
        arguments += ["--config", str(tmp_path / "config.yaml"), "--out", str(out), *terms]
        assert run([*arguments, "0.008"]) == 1
        said = capsys.readouterr().err
        assert f"at most {BUDGET * APPLICANTS} judgements" in said
        assert "max_cost 0.008 is reached" in said
        assert "--resume" in said
        costs = json.loads((out / "costs.json").read_text())
        assert 0.007 < costs["cost"] <= 0.008
        with open_store(str(store), read_only=True) as opened:
            assert opened.judgements().num_rows == costs["calls"] - 1  # the probe
        assert run([*arguments, "1", "--resume"]) == 0
        summary = json.loads(capsys.readouterr().out)
        assert summary["judge_costs"]["calls"] == len(server.requests)
        with open_store(str(store), read_only=True) as opened:
            assert opened.judgements().num_rows == len(server.requests) - 2
    assert not any(b"pass-word" in file.read_bytes() for file in out.rglob("*") if file.is_file())
    page = (out / "report.html").read_text()
    assert "calls to the endpoint" in page
    assert f"{summary['judge_costs']['prompt_tokens']:,} tokens in" in page


def test_a_limit_that_no_applicant_is_finished_with_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = tmp_path / "store", tmp_path / "run"
    make_store(str(store), applicants=2)
    with openai_server("plain") as server:
        terms = ["--judge", server.url, "--judge-samples", "2", "--price-in", "2", "--price-out", "8"]
        arguments = ["train", "--store", str(store), "--strategy", "llm", "--budget", "5", *terms, "--out", str(out)]
        arguments += ["--calibrate", "off"]
        assert run([*arguments, "--max-cost", "0.001"]) == 1
    said = capsys.readouterr().err
    assert "max_cost 0.001 is reached" in said
    assert "dynaq: 2 applicants could not be trained" in said
