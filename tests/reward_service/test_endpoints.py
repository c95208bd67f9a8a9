"""Endpoints as they are: what each kind of server lacks, what calls cost, and what happens when one fails."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.broker import JudgeBroker
from dynaq.errors import InputError, JudgeError
from dynaq.judging.judgement import Judgement, Slate, UnfinishedJudgements
from dynaq.records import Candidate, Job
from dynaq.runs.folder import COSTS, RunFolder
from dynaq.stores import open_store
from jobs.steps.judge_backend import judge_backend, quote
from reward_service.config import JudgeConfig
from reward_service.costs import Costs
from reward_service.errors import JudgeBusy, JudgeUnavailable
from reward_service.judge_by_url import Endpoint, judge_at
from reward_service.openai_engine import OpenAIEngine, probe_prompt
from tests.support.openai_server import LETTER_P, Server, openai_server

pytestmark = pytest.mark.slow  # retries wait for real

ANN = Candidate(id="ann", bio="Backend engineer.", hard_skills=("Java", "SQL"))
JOBS = [Job(id=f"j{i}", title=f"software developer {i}", technical_skills=("Java", "SQL")) for i in range(8)]
PRICES: dict[str, float] = {"price_in": 2.0, "price_out": 8.0}


def judged(server: Server, jobs: Sequence[Job] = JOBS[:2], **fields: Any) -> list[Judgement]:
    _, start = judge_at(server.url, **fields)
    return asyncio.run(start().judge_async(ANN, jobs))


def direct(server: Server, **fields: Any) -> OpenAIEngine:
    patience = fields.pop("patience", 5.0)
    return OpenAIEngine(JudgeConfig(endpoint=server.url, model="small", method="choice", **fields), patience=patience)


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama.cpp", "ollama", "five"])
def test_servers_with_logprobs_give_the_letters_distribution(kind: str) -> None:
    with openai_server(kind) as server:
        answer = judged(server)[0]
    mass = sum(LETTER_P.values()) - (LETTER_P["D"] if kind == "five" else 0)  # D is not among the five likeliest
    assert answer.label == "SAVE"
    assert answer.p_save == pytest.approx(LETTER_P["B"] / answer.label_mass)
    assert answer.label_mass == pytest.approx(mass, abs=0.06)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_likelihood_scores_the_job_alone_whatever_offsets_a_server_sends(kind: str) -> None:
    with openai_server(kind) as server:
        engine = direct(server)
        values = asyncio.run(engine.continuation("Skills: Java\nNext job:", " software developer\n"))
    assert values == [-0.5, -0.5] or values == [-0.5, -0.5, -0.5]


@pytest.mark.parametrize("kind", ["llama.cpp", "ollama", "plain"])
def test_a_server_without_echo_is_refused_for_likelihood(kind: str) -> None:
    with openai_server(kind) as server, pytest.raises(InputError, match="echo; use method choice"):
        judge_at(server.url, method="likelihood")


@pytest.mark.parametrize("kind", ["plain", "strict"])
def test_a_server_without_logprobs_is_refused_with_the_way_out(kind: str) -> None:
    with openai_server(kind) as server, pytest.raises(InputError, match=r"logprobs.*--judge-samples 10"):
        judge_at(server.url)


def test_a_model_that_thinks_first_is_refused_rather_than_abstaining_on_every_pair() -> None:
    with openai_server("thinking") as server, pytest.raises(InputError, match="reasoning_effort"):
        judge_at(server.url)


@pytest.mark.parametrize(("kind", "calls"), [("vllm", 1), ("plain", 10), ("strict", 10), ("ollama", 10)])
def test_samples_are_shares_of_drawn_answers(kind: str, calls: int) -> None:
    with openai_server(kind) as server:
        _, start = judge_at(server.url, samples=10)
        asked = len(server.requests)
        server.drawn = 0
        [answer] = asyncio.run(start().judge_async(ANN, JOBS[:1]))
        assert len(server.requests) - asked == calls
    # Of every five answers three are B, one is A and one is none.
    assert answer.probabilities == pytest.approx((0.25, 0.75, 0, 0))
    assert answer.label_mass == pytest.approx(0.8)


def test_the_way_of_asking_is_part_of_the_fingerprint_and_old_fingerprints_stay() -> None:
    plain = JudgeConfig(endpoint="http://127.0.0.1:1/v1", model="small", method="choice")
    assert plain.fingerprint == "choice-70cf97f9c7b3"
    priced = plain.model_copy(update=PRICES | {"max_cost": 1.0})
    assert priced.fingerprint == plain.fingerprint
    others = [plain.model_copy(update=change) for change in ({"samples": 5}, {"samples": 10}, {"request": {"seed": 1}})]
    assert len({plain.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_a_server_of_several_models_wants_one_named() -> None:
    with openai_server("vllm", models=("a", "b")) as server:
        with pytest.raises(InputError, match=r"serves 2 models \(a, b\); name one after a #"):
            judge_at(server.url)
        fingerprint, _ = judge_at(f"{server.url}#b")
        assert server.requests[-1]["model"] == "b"
        assert fingerprint == JudgeConfig(endpoint=server.url, model="b", method="choice", condense=True).fingerprint


def test_a_long_posting_is_condensed_for_a_judge_at_a_url() -> None:
    prose = "We are a friendly team and like it here very much. " * 300
    job = Job(
        id="long", title="Engineer", description=f"{prose}\nRequirements:\nYou must have experience with Airflow.\n"
    )
    with openai_server("vllm") as server:
        _, start = judge_at(server.url)
        [answer] = asyncio.run(start().judge_async(ANN, [job]))
        assert "Airflow" in str(server.requests[-1]["messages"])
    assert "condensed" in answer.note


def judge_into(folder: RunFolder, server: Server, jobs: list[Job], **terms: Any) -> None:
    """Judge at PRICES, and leave the costs in the run folder."""
    _, start = judge_at(server.url, folder, **PRICES, **terms)
    judge: Any = start()
    asyncio.run(judge.judge_async(ANN, jobs))
    judge.costs()


def test_costs_are_what_the_server_reports(tmp_path: Path) -> None:
    folder = RunFolder.at(tmp_path / "run")
    with openai_server("plain") as server:
        judge_into(folder, server, JOBS[:3], samples=10)
        kept = Costs.of(folder)
        assert kept is not None
        assert kept.calls == len(server.requests)
        assert kept.prompt_tokens == server.tokens_in
        assert kept.estimated_calls == 0
        assert kept.cost == pytest.approx((server.tokens_in * 2.0 + kept.completion_tokens * 8.0) / 1e6)
        _, again = judge_at(server.url, folder, samples=10, **PRICES)  # a second session of the run
        second: Any = again()
        asyncio.run(second.judge_async(ANN, JOBS[3:4]))
        assert second.costs()["prompt_tokens"] == server.tokens_in


def test_a_server_without_usage_is_counted_by_estimate() -> None:
    with openai_server("vllm", usage=False) as server:
        _, start = judge_at(server.url, **PRICES)
        judge: Any = start()
        asyncio.run(judge.judge_async(ANN, JOBS[:2]))
        costs = judge.costs()
    assert costs["estimated_calls"] == costs["calls"] == 3
    assert costs["prompt_tokens"] >= server.tokens_in


def store_of(tmp_path: Path) -> str:
    with open_store(str(tmp_path / "store"), create=True) as store:
        store.put_records("job", JOBS)
        store.put_records("candidate", [ANN])
    return str(tmp_path / "store")


def in_ledger(store_uri: str) -> int:
    with open_store(store_uri, read_only=True) as store:
        return store.judgements().num_rows


def test_max_cost_is_not_exceeded_and_nothing_paid_is_lost(tmp_path: Path) -> None:
    uri, folder = store_of(tmp_path), RunFolder.at(tmp_path / "run")
    with openai_server("plain") as server:
        judge_at(server.url, samples=4, **PRICES)
        one_pair = 4 * 2 * len("".join(m["content"] for m in server.requests[-1]["messages"])) * 0.25 / 1e6
        limit = 5.5 * one_pair
        server.requests.clear()
        backend = judge_backend(server.url, folder, samples=4, max_cost=limit, **PRICES)
        broker = JudgeBroker(uri, backend)

        async def until_the_limit() -> None:
            with pytest.raises(JudgeError, match=r"max_cost .* is reached.*--resume"):
                await broker.fetch([Slate("ann", tuple(job.id for job in JOBS))])
            await broker.close()

        asyncio.run(until_the_limit())
        paid = in_ledger(uri)
        kept = Costs.of(folder)
        assert kept is not None
        assert kept.cost is not None
        assert 0 < paid < len(JOBS)
        assert limit - 2 * one_pair < kept.cost <= limit
        before = len(server.requests)
        higher = JudgeBroker(uri, judge_backend(server.url, folder, samples=4, max_cost=1.0, **PRICES))

        async def the_rest() -> list[Judgement]:
            [answers] = await higher.fetch([Slate("ann", tuple(job.id for job in JOBS))])
            await higher.close()
            return answers

        assert not any(answer.abstained for answer in asyncio.run(the_rest()))
        probes = 2  # refused `n`, then one
        assert len(server.requests) - before <= 4 * (len(JOBS) - paid) + probes
        assert in_ledger(uri) == len(JOBS)


def test_answers_before_a_failure_are_handed_over() -> None:
    def fails_at_four(number: int) -> Any:
        return (401, {}, {"error": {"message": "key revoked"}}) if number == 4 else None

    with openai_server("vllm") as server:
        _, start = judge_at(server.url)
        server.requests.clear()
        server.interrupt = fails_at_four
        with pytest.raises(UnfinishedJudgements, match="key revoked") as caught:
            asyncio.run(start().judge_async(ANN, JOBS[:6]))
    assert len(caught.value.answers) == 5


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_respected(form: str) -> None:
    def busy_first(number: int) -> Any:
        if number > 1:
            return None
        when = "1" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        return 429, {"Retry-After": when}, {"error": {"message": "slow down"}}

    with openai_server("vllm", interrupt=busy_first) as server:
        engine, began = direct(server), time.monotonic()
        asyncio.run(engine.letters(probe_prompt(engine._config)))
        assert time.monotonic() - began >= 0.9
        assert len(server.requests) == 2


def test_all_requests_wait_when_one_is_told_to() -> None:
    times: list[float] = []

    def busy_first(number: int) -> Any:
        times.append(time.monotonic())
        return (429, {"Retry-After": "1"}, {}) if number == 1 else None

    with openai_server("vllm", interrupt=busy_first) as server:
        engine = direct(server)

        async def two() -> None:
            first = asyncio.create_task(engine.letters(probe_prompt(engine._config)))
            await asyncio.sleep(0.3)
            await asyncio.gather(first, engine.letters(probe_prompt(engine._config)))

        asyncio.run(two())
    assert min(times[1:]) - times[0] >= 0.9


def test_a_wait_longer_than_the_patience_is_an_error_at_once() -> None:
    with openai_server("vllm", interrupt=lambda n: (429, {"Retry-After": "3600"}, {})) as server:
        engine, began = direct(server), time.monotonic()
        with pytest.raises(JudgeBusy, match="asks to wait 3600 s"):
            asyncio.run(engine.letters(probe_prompt(engine._config)))
        assert time.monotonic() - began < 1
        assert len(server.requests) == 1


def test_an_empty_account_is_not_waited_for() -> None:
    empty = (429, {}, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}})
    with openai_server("vllm", interrupt=lambda n: empty) as server:
        engine = direct(server)
        with pytest.raises(JudgeError, match="exceeded your quota") as caught:
            asyncio.run(engine.letters(probe_prompt(engine._config)))
        assert not isinstance(caught.value, JudgeBusy | JudgeUnavailable)
        assert len(server.requests) == 1


def test_a_gateway_error_is_repeated_and_only_that_request() -> None:
    with openai_server("vllm") as server:
        _, start = judge_at(server.url)
        server.requests.clear()
        server.interrupt = lambda n: (502, {}, b"<html>Bad gateway</html>") if n == 3 else None
        answers = asyncio.run(start().judge_async(ANN, JOBS))
        assert not any(answer.abstained for answer in answers)
        assert len(server.requests) == len(JOBS) + 1


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNAQ_ENDPOINT_KEY", "sk-secret-key")
    for status in (400, 401):
        told = (status, {}, {"error": {"message": "Incorrect API key provided: sk-secret-key"}})
        with openai_server("vllm", interrupt=lambda n, told=told: told) as server:
            with pytest.raises(InputError, match=r"API key provided: \*\*\*") as caught:
                judge_at(server.url)
            assert server.headers[0]["Authorization"] == "Bearer sk-secret-key"
        assert "sk-secret-key" not in str(caught.value)
    with openai_server("vllm") as server:
        _, endpoint = judge_at(server.url)
    assert "sk-secret-key" not in repr(endpoint)


@pytest.mark.parametrize("body", [b"<html>", {"choices": []}, {"object": "error"}])
def test_an_answer_of_another_form_is_an_error(body: Any) -> None:
    with (
        openai_server("vllm", interrupt=lambda n: (200, {}, body)) as server,
        pytest.raises(InputError, match="no judge"),
    ):
        judge_at(server.url)


def test_the_quote_covers_what_is_then_paid(tmp_path: Path) -> None:
    uri = store_of(tmp_path)
    with openai_server("plain") as server:
        backend = judge_backend(server.url, samples=5, max_cost=1.0, **PRICES)
        text = quote(backend, uri, ["ann"], 8)
        assert text is not None
        assert "8 judgements, 40 calls to small" in text
        assert "stops at 1" in text
        assert isinstance(backend.start, Endpoint)
        judge = backend.start()
        before = judge.costs()["prompt_tokens"]
        asyncio.run(judge.judge_async(ANN, JOBS))
        quoted = int(text.split("about ")[1].split(" tokens")[0].replace(",", ""))
        assert judge.costs()["prompt_tokens"] - before <= quoted <= 1.3 * (judge.costs()["prompt_tokens"] - before)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"max_cost": 1.0}, "max_cost needs price_in"),
        ({"price_in": 1.0}, "go together"),
        ({"samples": 5, "method": "likelihood"}, "method choice"),
        ({"max_cost": 1.0, "replicas": 2, **PRICES}, "one replica"),
        ({"samples": 1}, "samples"),
    ],
)
def test_terms_that_make_no_sense_are_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        JudgeConfig.load(None, endpoint="http://127.0.0.1:1/v1", model="small", **({"method": "choice"} | fields))


@pytest.mark.parametrize("judge", ["vllm", "ledger:nowhere.parquet"])
def test_terms_are_for_endpoints(judge: str) -> None:
    with pytest.raises(InputError, match="max_cost: "):
        judge_backend(judge, max_cost=1.0)


def test_the_costs_file_holds_the_terms(tmp_path: Path) -> None:
    folder = RunFolder.at(tmp_path / "run")
    with openai_server("vllm") as server:
        judge_into(folder, server, JOBS[:1], max_cost=1.0)
    found = folder.read_json(COSTS)
    assert {name: found[name] for name in ("price_in", "price_out", "max_cost")} == {**PRICES, "max_cost": 1.0}
    assert math.isfinite(found["cost"])
