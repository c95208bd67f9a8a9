"""`dynaq serve`: one port, one or two services, and an end in time."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import ray
import yaml

from bench.recommend import prepare
from dynaq.errors import InputError
from dynaq.records import Candidate, Job
from jobs.cli import run
from jobs.serve import _beside_recommender
from reward_service.client import HttpJudge
from tests.support.judge_service import free_port
from tests.support.openai_server import openai_server

START_SECONDS = 200.0
APPLICANT = Candidate(id="a", bio="Backend engineer.", hard_skills=("Java",))
JOB = Job(id="j", title="software developer", technical_skills=("Java",))


def test_an_occupied_port_is_one_line_before_ray_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert run(["serve", "--recommend", "--store", "nowhere", "--run", "nowhere", "--port", str(port)]) == 2
    told = capsys.readouterr().err
    assert f"port {port} on 127.0.0.1 is taken by process {os.getpid()}" in told
    assert told.count("\n") == 1


def test_beside_the_recommender_the_judge_has_a_ledger_only_where_two_may_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _beside_recommender({}, "mongodb://host/db") == {"store": "mongodb://host/db"}
    assert _beside_recommender({"store": "mongodb://other/db"}, "mongodb://host/db") == {"store": "mongodb://other/db"}
    assert _beside_recommender({"model": "m"}, str(tmp_path)) == {"model": "m"}
    assert "keeps no ledger" in capsys.readouterr().out
    with pytest.raises(InputError, match="both services cannot write"):
        _beside_recommender({"store": str(tmp_path)}, str(tmp_path))


def test_the_settings_of_two_services_stand_under_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "serve.yaml").write_text("model: m")
    assert run(["serve", "--reward", "--recommend", "--config", str(tmp_path / "serve.yaml")]) == 2
    assert "service configuration: model" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_services_share_a_port_which_nobody_else_gets_and_end_with_their_group(tmp_path: Path) -> None:
    prepare(tmp_path, jobs=200, agents=16)
    held, released = threading.Event(), threading.Event()

    def hold(_: int) -> None:
        if held.is_set():
            released.wait(100)

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    given = ["--store", str(tmp_path / "store"), "--run", str(tmp_path / "run")]
    command = [sys.executable, "-m", "jobs.serve", "--port", str(port), "--recommend", *given]
    with openai_server("vllm", interrupt=hold) as endpoint, ThreadPoolExecutor() as threads:
        settings = {"reward": {"endpoint": endpoint.url, "model": "small", "method": "choice"}}
        (tmp_path / "both.yaml").write_text(yaml.safe_dump(settings))
        both = [*command, "--reward", "--config", str(tmp_path / "both.yaml")]
        with (tmp_path / "log").open("w") as log:
            service = subprocess.Popen(both, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _until("Ctrl-C stops both", tmp_path / "log", service)
            for path in ("/", "/readyz", "/judge/readyz"):
                assert httpx.get(url + path).status_code == 200, path
            assert "/judge/openapi.json" in httpx.get(f"{url}/judge/docs").text
            judge = HttpJudge(f"{url}/judge", patience=0)
            assert asyncio.run(judge.judge_async(APPLICANT, [JOB]))[0].job_id == JOB.id
            second = subprocess.run(command, capture_output=True, text=True, timeout=60)
            assert (second.returncode, second.stdout, second.stderr.count("\n")) == (2, "", 1)
            assert f"port {port} on 127.0.0.1 is taken by another dynaq serve (process {service.pid})" in second.stderr
            held.set()
            asked = len(endpoint.requests)
            threads.submit(asyncio.run, judge.judge_async(APPLICANT, [JOB]))  # longer than the service waits for it
            while len(endpoint.requests) == asked:
                time.sleep(0.1)
        finally:
            os.killpg(service.pid, signal.SIGTERM)
            try:
                code = service.wait(30)  # the call that it has accepted takes 100 s
            finally:
                service.kill()
                released.set()
    told = (tmp_path / "log").read_text()
    assert code == 0, told
    assert "finishing what was accepted\nnot all that was accepted is finished after 5 s" in told
    assert "Traceback" not in told


def _until(line: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while line not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
