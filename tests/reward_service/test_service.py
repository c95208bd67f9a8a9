"""The judge as people use it: one real engine behind Ray Serve, over HTTP and over a handle."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from dynaq.errors import JudgeError
from dynaq.judging.history import PastEvent, ledger_key, with_history, without_memory
from dynaq.records import Candidate, Job
from dynaq.stores import open_store
from reward_service.app import start_judge
from reward_service.client import HttpJudge, ServeJudge
from reward_service.config import JudgeConfig
from reward_service.errors import JudgeBusy, JudgeUnavailable
from tests.support.judge_service import JudgeService, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def http(judge_service: JudgeService) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {judge_service.api_key}"}
    with httpx.Client(base_url=judge_service.url, headers=headers, timeout=120) as client:
        yield client


def graded(service: JudgeService, applicant: Candidate) -> tuple[list[Job], list[Job]]:
    """Jobs of the applicant's own occupation, and jobs that have nothing to do with it."""
    grades = service.market.qrels.grades(applicant.id)
    own = [job for job in service.market.jobs if grades.get(job.id, 0) == 3]
    other = [job for job in service.market.jobs if grades.get(job.id, 0) == 0]
    return own, other[::9][:10]


def body(applicant: Candidate, jobs: list[Job]) -> dict[str, Any]:
    return {"applicant": applicant.model_dump(mode="json"), "jobs": [job.model_dump(mode="json") for job in jobs]}


def test_jobs_of_the_own_occupation_earn_more_than_unrelated_ones(judge_service: JudgeService) -> None:
    wins = ties = 0
    for applicant in judge_service.market.applicants:
        own, other = graded(judge_service, applicant)
        judgements = judge_service.judge.judge(applicant, [*own, *other])
        assert [j.job_id for j in judgements] == [job.id for job in [*own, *other]]
        assert all(j.judge == JudgeConfig().fingerprint and not j.abstained for j in judgements)
        rewards = [j.reward or 0.0 for j in judgements]
        pairs = [(a, b) for a in rewards[: len(own)] for b in rewards[len(own) :]]
        wins += sum(a > b for a, b in pairs)
        ties += len(pairs)
    assert wins / ties > 0.9  # 0.97 when this was written; a judge at random has 0.5


def test_the_prefix_cache_does_not_change_a_judgement(judge_service: JudgeService) -> None:
    applicant = judge_service.market.applicants[0]
    own, other = graded(judge_service, applicant)
    first = judge_service.judge.judge(applicant, [*own, *other])
    again = judge_service.judge.judge(applicant, [*own, *other])  # now profile and jobs are cached
    alone = [judge_service.judge.judge(applicant, [job])[0] for job in own]
    for a, b in [*zip(first, again, strict=True), *zip(first, alone, strict=False)]:
        assert a.probabilities == pytest.approx(b.probabilities, abs=0.03)  # bfloat16 varies with the batch size


def test_scores_are_those_of_the_model_itself(judge_service: JudgeService) -> None:
    """Beside transformers in float32: what the engine skips and shares leaves the values right, asked twice too."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from reward_service.engine import Tokens
    from reward_service.model import default_model_path
    from reward_service.prompts import CONTENT_FREE, job_text, likelihood_prefix, likelihood_suffix, profile_text

    model: Any = AutoModelForCausalLM.from_pretrained(default_model_path(), dtype=torch.float32)
    tokens = Tokens(AutoTokenizer.from_pretrained(default_model_path()))
    config, jobs = judge_service.config, judge_service.market.jobs[:60:20]

    def logprobs(prefix: str, text: str) -> torch.Tensor:
        before, after = tokens.untrusted(prefix), tokens.untrusted(text)
        with torch.inference_mode():
            rows = model(torch.tensor([[*before, *after]])).logits[0].log_softmax(-1)[len(before) - 1 : -1]
        return rows.gather(1, torch.tensor(after)[:, None])[:, 0]

    applicant = judge_service.market.applicants[3]
    profile = likelihood_prefix(profile_text(applicant, config.profile_limit, tokens.offsets))
    texts = [likelihood_suffix(job_text(job, config.job_limit, tokens.offsets, description=False)) for job in jobs]
    gains = [logprobs(profile, text) - logprobs(CONTENT_FREE, text) for text in texts]
    for _ in range(2):
        scores = judge_service.judge._run(judge_service.judge.scores(applicant, jobs))
        assert scores == pytest.approx([float(gain.mean()) for gain in gains], abs=0.08)  # bfloat16 costs 0.03 of 3

    titles = [len(tokens.untrusted(f" {job.title}\n")) for job in jobs]  # a line break ends a token
    halves = [(gain[:n], gain[n:]) for gain, n in zip(gains, titles, strict=True)]
    apart = judge_service.judge.variant(config, halves=True)
    expected = [sum(float(half.sum()) / len(half) ** 0.5 for half in both) for both in halves]
    assert apart._run(apart.scores(applicant, jobs)) == pytest.approx(expected, abs=0.3)  # a sum of gains, not a mean


def test_http_answers_what_the_handle_answers(judge_service: JudgeService, http: httpx.Client) -> None:
    applicant = judge_service.market.applicants[1]
    own, other = graded(judge_service, applicant)
    jobs = [*other[:3], *own]
    answer = http.post("/v1/judgements", json=body(applicant, jobs))
    assert answer.status_code == 200
    rows = answer.json()["judgements"]
    assert [row["job_id"] for row in rows] == [job.id for job in jobs]
    over_handle = judge_service.judge.judge(applicant, jobs)
    for row, judgement in zip(rows, over_handle, strict=True):
        assert row["reward"] == pytest.approx(judgement.reward, abs=0.03)
        assert row["judge"] == judgement.judge
        assert sum(row[f"p_{label}"] for label in ("apply", "save", "click", "ignore")) == pytest.approx(1.0)
    client = HttpJudge(judge_service.url, api_key=judge_service.api_key)
    assert client.fingerprint == judge_service.config.fingerprint
    assert [j.job_id for j in client.judge(applicant, jobs)] == [job.id for job in jobs]


def test_the_http_client_survives_pickling(judge_service: JudgeService) -> None:
    client = pickle.loads(pickle.dumps(HttpJudge(judge_service.url, api_key=judge_service.api_key)))  # noqa: S301
    assert client.fingerprint == judge_service.config.fingerprint


def test_without_the_key_nothing_is_judged_or_told(judge_service: JudgeService) -> None:
    applicant, job = judge_service.market.applicants[0], judge_service.market.jobs[0]
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {judge_service.api_key}"}):
        with httpx.Client(base_url=judge_service.url, headers=headers) as stranger:
            assert stranger.post("/v1/judgements", json=body(applicant, [job])).status_code == 401
            assert stranger.get("/v1/judge").status_code == 401
            assert stranger.get("/metrics").status_code == 401
            assert stranger.get("/healthz").status_code == 200
    with pytest.raises(JudgeError, match="401"):
        HttpJudge(judge_service.url, api_key="wrong").judge(applicant, [job])


def test_readiness_metrics_configuration_and_documentation(judge_service: JudgeService, http: httpx.Client) -> None:
    assert http.get("/readyz").status_code == 200
    applicant, job = judge_service.market.applicants[0], judge_service.market.jobs[0]
    http.post("/v1/judgements", json=body(applicant, [job]))
    metrics = http.get("/metrics").text
    assert 'judge_requests_total{status="200"}' in metrics
    assert f'judge_info{{judge="{judge_service.config.fingerprint}"}} 1.0' in metrics
    told = http.get("/v1/judge").json()
    assert told["judge"] == judge_service.config.fingerprint
    assert told["configuration"]["method"] == "likelihood"
    assert judge_service.api_key not in http.get("/v1/judge").text
    assert "/v1/judgements" in http.get("/openapi.json").json()["paths"]
    assert http.get("/docs").status_code == 200


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"jobs": []}, "jobs"),
        ({"jobs": [{"id": "x"}, {"id": "y", "title": ""}]}, "jobs[1]"),
        ({"jobs": [{"id": "x", "title": "a"}, {"id": "x", "title": "b"}]}, "twice"),
        ({"jobs": [{"id": "no such job"}]}, "not in the store"),
        ({"applicant": {"id": "nobody"}}, "not in the store"),
        ({"applicant": {"id": "a", "bio": ""}}, "applicant"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_bad_request_names_its_field(
    judge_service: JudgeService, http: httpx.Client, change: dict[str, Any], reason: str
) -> None:
    good = body(judge_service.market.applicants[0], [judge_service.market.jobs[0]])
    if "jobs" in change and len(change["jobs"]) == 2 and "title" not in change["jobs"][0]:
        change = {"jobs": [good["jobs"][0], change["jobs"][1]]}
    answer = http.post("/v1/judgements", json=good | change)
    assert answer.status_code == 422
    assert reason in answer.text


def test_records_named_by_id_are_kept_in_the_ledger_and_judged_once(
    judge_service: JudgeService, http: httpx.Client
) -> None:
    applicant = judge_service.market.applicants[2]
    jobs = [{"id": job.id} for job in judge_service.market.jobs[:6]]
    request = {"applicant": {"id": applicant.id}, "jobs": jobs}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: http.post("/v1/judgements", json=request).json(), range(4)))
    assert all(answer == answers[0] for answer in answers)
    with open_store(judge_service.store_uri, read_only=True) as store:
        rows = store.judgements(JudgeConfig().fingerprint, [applicant.id]).to_pylist()
    assert sorted(row["job_id"] for row in rows) == sorted(job["id"] for job in jobs)


DONE = {"event": "ignore", "ago": "this week"}


@pytest.mark.parametrize("method", ["likelihood", "choice"])
def test_a_history_moves_an_answer_and_has_a_key_of_its_own(judge_service: JudgeService, method: str) -> None:
    judge = judge_service.judge.variant(judge_service.config, method=method)
    applicant = judge_service.market.applicants[0]
    own, other = graded(judge_service, applicant)
    history = tuple(PastEvent(event="ignore", job_id=job.id, ago="today") for job in own[1:])
    told = with_history(applicant, history, {job.id: job for job in own})
    [before, after] = [judge.judge(who, [own[0], other[0]]) for who in (applicant, told)]
    assert [one.judge for one in before] == [without_memory(judge.fingerprint)] * 2
    assert [one.judge for one in after] == [ledger_key(judge.fingerprint, history)] * 2
    # Of a job that fits well, an answer may be as sure as it can be with and without.
    assert any(a.probabilities != pytest.approx(b.probabilities, abs=1e-4) for a, b in zip(before, after, strict=True))


def test_over_http_a_history_is_told_and_its_answers_are_paid_for_once(
    judge_service: JudgeService, http: httpx.Client
) -> None:
    applicant, jobs = judge_service.market.applicants[3], judge_service.market.jobs[:4]
    done = [{**DONE, "job_id": jobs[3].id}]
    request = stored(applicant, jobs[:3]) | {"history": done}
    rows = http.post("/v1/judgements", json=request).json()["judgements"]
    event = PastEvent.model_validate(done[0])
    key = ledger_key(judge_service.config.fingerprint, (event,))
    assert [row["judge"] for row in rows] == [key] * 3
    judged = _status(judge_service)["judged_pairs"]
    assert http.post("/v1/judgements", json=request).json()["judgements"] == rows
    assert _status(judge_service)["judged_pairs"] == judged
    with open_store(judge_service.store_uri, read_only=True) as store:
        assert store.judgements(key, [applicant.id]).num_rows == 3
    client = HttpJudge(judge_service.url, api_key=judge_service.api_key)
    told = with_history(applicant, (event,), {jobs[3].id: jobs[3]})  # with the whole records
    for answer, row in zip(client.judge(told, jobs[:3]), rows, strict=True):
        assert answer.judge == key
        assert answer.reward == pytest.approx(row["reward"], abs=0.03)


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        ([{**DONE, "job_id": f"job-00{i}-1"} for i in range(4)], "reads 3"),
        ([{**DONE, "job_id": "x", "title": "t"}] * 2, "twice"),
        ([{**DONE, "job_id": "no such job"}], "not in the store"),
        ([{**DONE, "job_id": "x", "event": "love"}], "history"),
        ([{**DONE, "job_id": "x", "title": "t" * 301}], "300"),
        ([{**DONE, "job_id": f"x{i}", "title": "t"} for i in range(21)], "20"),
    ],
)
def test_a_bad_history_is_refused(
    judge_service: JudgeService, http: httpx.Client, history: list[dict[str, Any]], reason: str
) -> None:
    request = body(judge_service.market.applicants[0], judge_service.market.jobs[:1]) | {"history": history}
    answer = http.post("/v1/judgements", json=request)
    assert answer.status_code == 422
    assert reason in answer.text


def test_past_its_limit_the_judge_says_429_and_a_client_waits(judge_service: JudgeService, http: httpx.Client) -> None:
    applicant = judge_service.market.applicants[3]
    many = [job.model_copy(update={"id": f"many-{i}"}) for i, job in enumerate(judge_service.market.jobs[:60])]
    with ThreadPoolExecutor(1) as pool:
        long_call = pool.submit(lambda: http.post("/v1/judgements", json=body(applicant, many)))
        _until(lambda: _status(judge_service)["pending_pairs"] >= len(many))
        refused = http.post("/v1/judgements", json=body(applicant, many))
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        impatient = HttpJudge(judge_service.url, api_key=judge_service.api_key, patience=0.0)
        with pytest.raises(JudgeBusy):
            impatient.judge(applicant, many)
        patient = HttpJudge(judge_service.url, api_key=judge_service.api_key)
        assert len(patient.judge(applicant, many[:50])) == 50
        assert long_call.result().status_code == 200  # calls that were accepted are still answered


def test_a_client_that_goes_away_cancels_its_work(judge_service: JudgeService) -> None:
    applicant = judge_service.market.applicants[3]
    many = [job.model_copy(update={"id": f"gone-{i}"}) for i, job in enumerate(judge_service.market.jobs[:60])]
    before = _status(judge_service)["judged_pairs"]

    async def leave() -> None:
        headers = {"Authorization": f"Bearer {judge_service.api_key}"}
        async with httpx.AsyncClient(base_url=judge_service.url, headers=headers, timeout=60) as client:
            call = asyncio.ensure_future(client.post("/v1/judgements", json=body(applicant, many)))
            while (await judge_service.judge._handle.status.remote())["pending_pairs"] == 0:
                await asyncio.sleep(0.02)
            call.cancel()

    asyncio.run(leave())
    _until(lambda: _status(judge_service)["pending_pairs"] == 0, seconds=3.0)  # judging all would take longer
    assert _status(judge_service)["judged_pairs"] == before


def test_start_judge_uses_the_one_that_runs(judge_service: JudgeService) -> None:
    process = _status(judge_service)["process"]
    again = start_judge(JudgeConfig())
    assert again.fingerprint == JudgeConfig().fingerprint == without_memory(judge_service.judge.fingerprint)
    assert again._run(_remote_status(again))["process"] == process


def test_choice_on_the_same_engine_reports_the_mass_on_the_letters(judge_service: JudgeService) -> None:
    choice = judge_service.judge.variant(judge_service.config, method="choice", rotations=4)
    applicant = judge_service.market.applicants[0]
    judgements = choice.judge(applicant, judge_service.market.jobs[:3])
    assert all(j.judge == without_memory(choice.fingerprint) and j.judge.startswith("choice-") for j in judgements)
    assert all(0.0 < j.label_mass <= 1.0 for j in judgements)
    orders = choice._run(choice.orders(applicant, judge_service.market.jobs[:2]))
    for judgement, distributions in zip(judgements, orders, strict=False):
        mean = [sum(column) / 4 for column in zip(*distributions, strict=True)]
        assert judgement.probabilities == pytest.approx(mean, abs=0.02)


def test_a_long_text_is_cut_and_the_judgement_says_so(judge_service: JudgeService) -> None:
    applicant = judge_service.market.applicants[0]
    job = Job(id="long", title="software developer", technical_skills=tuple(f"skill number {i}" for i in range(400)))
    short = Job(id="short", title="software developer", technical_skills=("Java",))
    long, brief = judge_service.judge.judge(applicant, [job, short])
    assert "job cut to 32 tokens" in long.note
    assert "job cut" not in brief.note
    assert not long.abstained


def test_nothing_to_read_is_an_abstention_not_an_ignore(judge_service: JudgeService) -> None:
    invisible = Job(id="invisible", title="\u200b\u2060\ufeff")
    readable = Job(id="readable", title="web developer")
    first, second = judge_service.judge.judge(judge_service.market.applicants[0], [invisible, readable])
    assert first.abstained
    assert first.reward is None
    assert "no readable text" in first.note
    assert not second.abstained


def test_no_service_is_an_error_after_the_clients_patience() -> None:
    nobody = HttpJudge(f"http://127.0.0.1:{free_port()}", patience=0.5)
    started = time.monotonic()
    with pytest.raises(JudgeUnavailable, match="no judge answers"):
        nobody.judge(Candidate(id="a", bio="b"), [Job(id="j", title="t")])
    assert time.monotonic() - started < 5


def _status(service: JudgeService) -> dict[str, Any]:
    return service.judge._run(_remote_status(service.judge))


async def _remote_status(judge: Any) -> dict[str, Any]:
    status: dict[str, Any] = await judge._handle.status.remote()
    return status


def _until(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_an_api_that_dies_in_a_call_is_replaced_and_no_judgement_is_written_twice(
    judge_service: JudgeService, http: httpx.Client
) -> None:
    """The process that writes the ledger is killed while the judge works for it."""
    applicant, jobs = judge_service.market.applicants[1], judge_service.market.jobs[:20]
    request = stored(applicant, jobs)
    api = next(p for p in psutil.Process().children(recursive=True) if "judge:api" in " ".join(p.cmdline()))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(lambda: http.post("/v1/judgements", json=request))
        _until(lambda: _status(judge_service)["pending_pairs"] > 0)
        api.kill()
        assert call.result(60).status_code == 500  # what Serve's proxy answers when the process dies; our clients retry
    client = HttpJudge(judge_service.url, api_key=judge_service.api_key)
    answer = client._run(client._retried(lambda: client._request("POST", "/v1/judgements", request)))
    assert [row["job_id"] for row in answer["judgements"]] == [job.id for job in jobs]
    assert _written(judge_service, applicant) == sorted(job.id for job in jobs)


def stored(applicant: Candidate, jobs: list[Job]) -> dict[str, Any]:
    """A request that names the store's records, whose answers are kept in the ledger."""
    return {"applicant": {"id": applicant.id}, "jobs": [{"id": job.id} for job in jobs]}


def _written(service: JudgeService, applicant: Candidate) -> list[str]:
    """Job ids of the applicant's judgements in the ledger, repetitions included."""
    with open_store(service.store_uri, read_only=True) as store:
        rows = store.judgements(JudgeConfig().fingerprint, [applicant.id])
    return sorted(rows.column("job_id").to_pylist())


def _engine_processes(replica: psutil.Process) -> list[psutil.Process]:
    """vLLM's processes below the replica's, by its title for them or, where a title cannot be set, by their command."""
    return [
        process
        for process in replica.children(recursive=True)
        if any(
            part in " ".join(process.cmdline())
            for part in ("VLLM::", "multiprocessing.spawn", "--multiprocessing-fork")
        )
    ]


def test_on_a_cpu_the_model_runs_in_the_engines_process(judge_service: JudgeService) -> None:
    """vLLM replaces the executor that does so by one with a worker process, unless it is named by its path."""
    engines = _engine_processes(psutil.Process(_status(judge_service)["process"]))
    assert len(engines) == 1, [process.cmdline() for process in engines]


def test_an_engine_that_dies_is_replaced_and_callers_may_ask_again(
    judge_service: JudgeService, http: httpx.Client
) -> None:
    """Last in this file: the next caller waits for the new engine. Nothing of the calls that failed is written."""
    applicant, jobs = judge_service.market.applicants[0], judge_service.market.jobs[:60]
    replica = psutil.Process(_status(judge_service)["process"])
    impatient = ServeJudge(judge_service.judge._handle, judge_service.judge.fingerprint, patience=0.0)
    request = stored(applicant, jobs[:30])
    engines = _engine_processes(replica)
    with ThreadPoolExecutor(3) as pool:
        failing = pool.submit(lambda: impatient.judge(applicant, jobs))
        waiting = pool.submit(lambda: judge_service.judge.judge(applicant, jobs[:5]))
        over_http = pool.submit(lambda: http.post("/v1/judgements", json=request))
        _until(lambda: _status(judge_service)["pending_pairs"] > len(jobs) + 5)
        for process in engines:  # found before, so that the kill comes while all three are waiting
            process.kill()
        with pytest.raises(JudgeUnavailable, match="try again"):
            failing.result(60)
        refused = over_http.result(60)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert _written(judge_service, applicant) == []
        assert [j.job_id for j in waiting.result(300)] == [job.id for job in jobs[:5]]
    assert _status(judge_service)["process"] != replica.pid
    assert http.get("/readyz").status_code == 200
    assert http.post("/v1/judgements", json=request).status_code == 200
    assert _written(judge_service, applicant) == sorted(job.id for job in jobs[:30])
