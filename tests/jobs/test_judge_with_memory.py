"""Training with a judge that is told what applicants did: off, unused, used, counted, paid for once, and resumed."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from cluster.broker import PatientStore
from dynaq.feedback.events import FeedbackEvent
from dynaq.judging.history import PastEvent, judge_of, ledger_key, without_memory
from dynaq.stores import open_store
from jobs.cli import run
from reward_service.config import JudgeConfig
from tests.support.events import event
from tests.support.markets import APPLICANTS, make_store
from tests.support.openai_server import Server, openai_server

pytestmark = [pytest.mark.usefixtures("ray_session_fixture"), pytest.mark.slow]

BUDGET = 10
NOW = datetime.now(UTC)
DONE = (
    event(applicant="a000", job="j001", what="apply", at=NOW - timedelta(days=3)),
    event(applicant="a000", job="j002", what="ignore", at=NOW - timedelta(days=2)),
    event(applicant="a000", job="j003", what="save", at=NOW - timedelta(days=300)),
    event(applicant="a001", job="gone", what="apply", at=NOW - timedelta(days=2)),
)
TOLD = (
    PastEvent(event="ignore", job_id="j002", ago="this week"),
    PastEvent(event="apply", job_id="j001", ago="this week"),
)


def market(folder: Path, *events: FeedbackEvent) -> Path:
    make_store(str(folder / "store"))
    (folder / "config.yaml").write_text("block_size: 2\n")
    with open_store(str(folder / "store")) as store:
        store.add_feedback(list(events))
    return folder


def judge(folder: Path, server: Server, memory: int) -> Path:
    """The file of a judge on the server."""
    fields = {"endpoint": server.url, "model": "small", "memory": memory, "price_in": 2, "price_out": 8}
    file = folder / f"judge-{memory}.yaml"
    file.write_text(yaml.safe_dump(fields))
    return file


def train(folder: Path, judge: Path, out: str, *options: str) -> int:
    arguments = ["--store", f"{folder}/store", "--config", f"{folder}/config.yaml", "--budget", str(BUDGET)]
    arguments += ["--judge", f"vllm:{judge}", "--calibrate", "off", "--out", str(folder / out)]
    return run(["train", *arguments, "--strategy", "llm", *options])


def ledger(folder: Path) -> list[dict[str, Any]]:
    with open_store(str(folder / "store"), read_only=True) as store:
        rows = store.judgements().drop_columns(["created_at"]).to_pylist()
    return sorted(rows, key=lambda row: (row["applicant_id"], row["job_id"], row["judge"]))


def prompts(server: Server) -> list[str]:
    return ["\n".join(message["content"] for message in body["messages"]) for body in server.requests]


def test_without_feedback_a_judge_with_memory_makes_the_run_of_one_without(tmp_path: Path) -> None:
    with openai_server("vllm") as server:
        for name, memory in (("plain", 0), ("remembers", 2)):
            (tmp_path / name).mkdir()
            folder = market(tmp_path / name)
            assert train(folder, judge(folder, server, memory), "run") == 0
    plain, remembers = tmp_path / "plain", tmp_path / "remembers"
    assert ledger(plain) == ledger(remembers)
    for file in ("recommendations.parquet", "agents/serving.json"):
        if (plain / "run" / file).exists():
            assert (plain / "run" / file).read_bytes() == (remembers / "run" / file).read_bytes()
    assert json.loads((plain / "run/costs.json").read_text()) == json.loads((remembers / "run/costs.json").read_text())
    weights = sorted(path.relative_to(plain) for path in (plain / "run").rglob("*.safetensors"))
    assert weights
    names = {path.name for path in weights}
    assert names == {path.name for path in (remembers / "run").rglob("*.safetensors")}


def test_the_judge_is_told_what_applicants_did_and_each_pair_is_paid_for_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = market(tmp_path, *DONE)
    with openai_server("vllm") as server:
        file = judge(folder, server, 2)
        fingerprint = JudgeConfig.load(file).fingerprint
        assert train(folder, file, "run", "--max-cost", "1") == 0
        assert f"told what 1 of {APPLICANTS} applicants did" in capsys.readouterr().out
        told = [text for text in prompts(server) if "<history>" in text]
        # Untrusted titles are neutralised; the third event is one too many, and of `gone` nobody knows the title.
        lines = "Not for me (this week): Title of j002 ‹b›\nApplied for (this week): Title of j001 ‹b›\n</history>"
        assert len(told) == BUDGET
        assert all(lines in text and "I am a000." in text for text in told)
        rows = ledger(folder)
        own = {row["judge"] for row in rows if row["applicant_id"] == "a000"}
        assert own == {ledger_key(fingerprint, TOLD)}
        assert {row["judge"] for row in rows if row["applicant_id"] != "a000"} == {without_memory(fingerprint)}
        assert {judge_of(key) for key in own} == {fingerprint}

        costs = json.loads((folder / "run/costs.json").read_text())
        assert costs["calls"] == len(server.requests) == 1 + BUDGET * APPLICANTS
        assert costs["prompt_tokens"] == server.tokens_in
        assert costs["cost"] == pytest.approx((2 * costs["prompt_tokens"] + 8 * costs["completion_tokens"]) / 1e6)
        config = yaml.safe_load((folder / "run/config.yaml").read_text())
        assert config["judge_fingerprint"] == fingerprint
        assert datetime.fromisoformat(config["told_until"]) > NOW

        before = len(server.requests)
        assert train(folder, file, "again") == 0  # the same pairs and histories
        assert len(server.requests) == before + 1  # the probe
        same = [pq.read_table(folder / out / "recommendations.parquet") for out in ("run", "again")]
        assert same[0] == same[1]
        assert len(ledger(folder)) == len(rows)


def test_a_resumed_run_tells_what_it_told_and_a_time_bounds_it(tmp_path: Path) -> None:
    folder = market(tmp_path, *DONE)
    with openai_server("vllm") as server:
        file = judge(folder, server, 2)
        assert train(folder, file, "run", "--max-cost", "0.004") == 1
        told_until = yaml.safe_load((folder / "run/config.yaml").read_text())["told_until"]
        later = event(applicant="a000", job="j005", what="apply", at=datetime.now(UTC))
        patient = PatientStore(str(folder / "store"), read_only=False)  # the run's broker may hold it a moment longer
        patient._patiently(lambda store: store.add_feedback([later]))
        patient.close()
        assert train(folder, file, "run", "--resume", "--max-cost", "1") == 0
        assert yaml.safe_load((folder / "run/config.yaml").read_text())["told_until"] == told_until
        pairs = [(row["applicant_id"], row["job_id"]) for row in ledger(folder)]
        assert len(pairs) == len(set(pairs)) == BUDGET * APPLICANTS
        assert not any("j005" in text.partition("</history>")[0] and "<history>" in text for text in prompts(server))

        shutil.rmtree(folder / "run")
        server.requests.clear()
        until = (NOW - timedelta(days=30)).isoformat()
        assert train(folder, file, "early", "--feedback", "--feedback-until", until) == 0
        told = [text for text in prompts(server) if "<history>" in text]
        assert told
        assert all("Title of j003 ‹b›\n</history>" in text for text in told)


def test_single_pairs_are_asked_with_the_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = market(tmp_path, *DONE)
    with openai_server("vllm") as server:
        asked = ["judge", "--store", f"{folder}/store", "--applicant", "a000", "--jobs", "j007"]
        assert run([*asked, "--judge", f"vllm:{judge(folder, server, 2)}"]) == 0
        assert "<history>" in prompts(server)[-1]
        assert run([*asked, "--judge", f"vllm:{judge(folder, server, 0)}"]) == 0
        assert "<history>" not in prompts(server)[-1]
    assert len({row["judge"] for row in ledger(folder)}) == 2
    assert "told what 1 of 1 applicants did" in capsys.readouterr().out
