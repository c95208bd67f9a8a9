"""The service over HTTP, in the test's process, on a real store and a real run folder."""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from dynaq.feedback.events import WARM_START, events, exposures
from dynaq.ingest.embedding import embed_pending
from dynaq.judging.judgement import judgement_from_probabilities
from dynaq.layout import EXTENDED
from dynaq.runs.folder import RunFolder
from dynaq.runs.q_table import ServedRun
from dynaq.stores import Store, event_log, open_store
from dynaq.tensor_cache import TensorCache
from tests.support.embedders import HashEmbedder
from tests.support.recommend_market import (
    APPLICANTS,
    JOB_IDS,
    config,
    make_job,
    make_market,
    make_run,
    prefers,
    serving,
)

PROBLEM = "application/problem+json"


@pytest.fixture
def store(tmp_path: Path) -> str:
    return make_market(str(tmp_path / "store"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", {"a0": prefers(20, 3, 11), "a1": prefers(5)})
    return tmp_path / "run"


@pytest.fixture
def client(store: str, run: Path) -> Iterator[TestClient]:
    with serving(config(store, run)) as client:
        yield client


def listed(client: TestClient, applicant: str = "a0", **query: Any) -> list[str]:
    return [item["job_id"] for item in answer(client, applicant, **query)["recommendations"]]


def answer(client: TestClient, applicant: str = "a0", **query: Any) -> dict[str, Any]:
    response = client.get(f"/v1/applicants/{applicant}/recommendations", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def send(client: TestClient, job: str, event: str, applicant: str = "a0", **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    body = {"applicant_id": applicant, "job_id": job, "event": event} | more
    return client.post("/v1/feedback", json=body, headers=headers)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def reading(store: str) -> Store:
    return open_store(store, read_only=True)


def problem(response: httpx.Response, status: int, name: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    body: dict[str, Any] = response.json()
    assert body["type"] == f"urn:dynaq:problem:v1:{name}"
    assert (body["status"], body["version"]) == (status, 1)
    return body


def test_the_agents_ranking_is_the_list(client: TestClient) -> None:
    body = answer(client, k=4)
    assert [item["job_id"] for item in body["recommendations"]] == ["j20", "j03", "j11", "j00"]
    assert [item["rank"] for item in body["recommendations"]] == [1, 2, 3, 4]
    assert body["source"] == "agent"
    assert body["run_id"] == client.get("/readyz").json()["run_id"]
    assert body["recommendations"][0]["title"] == "Job <b>20</b>"
    assert 280 < len(body["recommendations"][0]["summary"]) <= 300
    assert body["recommendations"][0]["summary"].endswith(" …")
    assert listed(client, "a1", k=2) == ["j05", "j00"]
    assert len(listed(client)) == 10
    assert len(listed(client, k=100)) == len(JOB_IDS)


def test_an_applicant_without_an_agent_gets_the_warm_start_and_is_told_so(client: TestClient, store: str) -> None:
    body = answer(client, "a3", k=5, explain=True)
    with reading(store) as opened:
        rows, cosines = TensorCache.copy_from_database(opened).top_k("a3", 5)
    assert [item["job_id"] for item in body["recommendations"]] == [JOB_IDS[row] for row in rows]
    assert [item["explanation"]["cosine"] for item in body["recommendations"]] == pytest.approx(list(cosines), abs=1e-5)
    assert (body["source"], body["run_id"]) == ("warm-start", None)
    assert "No agent" in body["note"]
    assert body["recommendations"][0]["explanation"]["q"] is None


def test_an_explanation_says_cosine_q_judge_and_shared_skills(store: str, run: Path) -> None:
    with open_store(store) as opened:
        for p, judge in (((0.1, 0.2, 0.3, 0.4), "old"), ((0.4, 0.3, 0.2, 0.1), "new")):
            opened.add_judgements([judgement_from_probabilities("a0", "j03", p, judge=judge)])
        cosines = TensorCache.copy_from_database(opened).calculate_cosine_similarities("a0")
    with serving(config(store, run)) as client:
        items = {item["job_id"]: item["explanation"] for item in answer(client, k=20, explain=True)["recommendations"]}
    assert items["j03"]["judge"] == pytest.approx({"apply": 0.4, "save": 0.3, "click": 0.2, "ignore": 0.1})
    assert items["j20"]["judge"] is None
    assert (items["j20"]["q"], items["j03"]["q"]) == (100.0, 99.0)
    assert items["j03"]["cosine"] == pytest.approx(float(cosines[3]), abs=1e-5)
    assert items["j07"]["shared_skills"] == ["Skill 7", "cooking"]
    assert items["j20"]["preference"] is None


def test_a_preference_orders_the_shortlist_anew(store: str, run: Path) -> None:
    wish = make_job(17).description  # for the hash encoder, only equal texts are similar
    with serving(config(store, run)) as client:
        body = answer(client, k=3, preference=wish, explain=True)
        first = body["recommendations"][0]
        assert first["job_id"] == "j17"
        assert first["explanation"]["preference"] == pytest.approx(1.0, abs=1e-4)
        assert body["preference"] == " ".join(wish.split())
        assert listed(client, k=3) == ["j20", "j03", "j11"]
        assert listed(client, k=3, preference="  ") == ["j20", "j03", "j11"]
    with serving(config(store, run, preference_weight=0.0)) as client:
        assert listed(client, k=3, preference=wish) == ["j20", "j03", "j11"]


def test_what_was_applied_to_or_declined_leaves_the_list_and_what_was_saved_stays(client: TestClient) -> None:
    assert send(client, "j20", "apply").status_code == 201
    assert send(client, "j03", "ignore").status_code == 201
    assert send(client, "j11", "save").status_code == 201
    assert send(client, "j00", "click").status_code == 201
    assert send(client, "j20", "click").status_code == 201  # a click does not undo an application
    body = answer(client, k=2)
    assert [(item["job_id"], item["marked"]) for item in body["recommendations"]] == [("j11", "save"), ("j00", "click")]
    assert send(client, "j03", "save").status_code == 201  # the applicant changed their mind
    assert listed(client, k=2) == ["j03", "j11"]
    assert listed(client, "a1", k=1) == ["j05"]


def test_everything_answered_is_an_empty_list(client: TestClient) -> None:
    batch = [{"applicant_id": "a0", "job_id": job, "event": "ignore"} for job in JOB_IDS]
    assert client.post("/v1/feedback", json={"events": batch}).json()["accepted"] == len(JOB_IDS)
    assert answer(client, preference="anything", explain=True)["recommendations"] == []


def test_feedback_is_in_the_store_when_it_is_acknowledged_and_outlives_the_service(store: str, run: Path) -> None:
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    with serving(config(store, run)) as client:
        response = send(client, "j20", "hire", at=at.isoformat(), source="import", headers={"Idempotency-Key": "k1"})
        assert response.status_code == 201
        with reading(store) as opened:
            (kept,) = events(opened.feedback())
        assert (kept.applicant_id, kept.job_id, kept.event, kept.at) == ("a0", "j20", "hire", at)
        assert (kept.source, kept.key) == ("import", response.json()["keys"][0])
    with serving(config(store, run)) as client:
        assert listed(client, k=1) == ["j03"]


def test_a_database_serves_as_a_folder_does(mongo_uri: str, run: Path) -> None:
    with serving(config(make_market(mongo_uri), run)) as client:
        assert listed(client, k=2) == ["j20", "j03"]
        assert [send(client, "j20", "apply", headers={"Idempotency-Key": "1"}).status_code for _ in range(2)] == [
            201
        ] * 2
        created = client.post("/v1/applicants", json={"bio": "new"}).json()
        assert client.get(created["recommendations"]).json()["source"] == "warm-start"
        until(lambda: client.get("/readyz").json()["catalogue"] is not None and listed(client, k=1) == ["j03"])
    with reading(mongo_uri) as opened:
        assert opened.feedback().num_rows == 1
        assert opened.exposures().num_rows >= 3


def test_a_store_that_cannot_keep_events_acknowledges_none(
    client: TestClient, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(event_log, "_write_all", full)
        response = send(client, "j20", "apply")
        assert "No space left" in problem(response, 503, "store-unavailable")["detail"]
    assert listed(client, k=1) == ["j20"]
    with reading(store) as opened:
        assert opened.feedback().num_rows == 0
    assert send(client, "j20", "apply").status_code == 201


def test_a_store_of_another_encoder_understands_no_wishes(store: str, run: Path) -> None:
    with open_store(store) as opened:
        opened.put_meta(encoder_revision="another")
    with serving(config(store, run)) as client:
        assert listed(client, k=1) == ["j20"]
        wish = client.get("/v1/applicants/a0/recommendations", params={"preference": "sea"})
        assert "another" in problem(wish, 409, "no-encoder")["detail"]
        problem(client.post("/v1/applicants", json={"bio": "new"}), 409, "no-encoder")


def test_a_repeated_request_is_kept_once(client: TestClient, store: str) -> None:
    key, at = {"Idempotency-Key": "again"}, "2026-03-01T12:00:00+02:00"
    answers = [send(client, "j01", "click", headers=key).json() for _ in range(3)]
    assert answers == [answers[0]] * 3
    assert len({send(client, "j02", "click", at=at).json()["keys"][0] for _ in range(3)}) == 1
    assert send(client, "j02", "save", headers=key).json()["keys"] != answers[0]["keys"]
    send(client, "j04", "click")
    send(client, "j04", "click")  # without a key or a time these are two events
    with reading(store) as opened:
        assert opened.feedback().num_rows == 5


def test_a_batch_is_kept_whole_or_not_at_all(client: TestClient, store: str) -> None:
    good = {"applicant_id": "a0", "job_id": "j01", "event": "save"}
    batch = [good, good | {"job_id": "j02"}, good | {"job_id": "nowhere"}]
    assert "events[2]" in problem(client.post("/v1/feedback", json={"events": batch}), 404, "unknown-job")["detail"]
    with reading(store) as opened:
        assert opened.feedback().num_rows == 0
    assert client.post("/v1/feedback", json={"events": batch[:2]}).json()["accepted"] == 2


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"applicant_id": "nobody"}, "unknown-applicant"),
        ({"job_id": "nothing"}, "unknown-job"),
        ({"event": "like"}, "invalid-request"),
        ({"at": "2026-03-01T12:00:00"}, "invalid-request"),
        ({"at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}, "invalid-request"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "invalid-request"),
        ({"source": "x" * 513}, "invalid-request"),
        ({"job_id": "\ud800"}, "invalid-request"),
        ({"more": 1}, "invalid-request"),
    ],
)
def test_feedback_that_is_none_is_refused(client: TestClient, store: str, change: dict[str, Any], name: str) -> None:
    body = {"applicant_id": "a0", "job_id": "j01", "event": "save"} | change
    sent = client.post("/v1/feedback", content=json.dumps(body), headers={"content-type": "application/json"})
    assert problem(sent, 404 if name.startswith("unknown") else 422, name)["detail"]
    with open_store(store, read_only=True) as opened:
        assert opened.feedback().num_rows == 0


def test_exposures_are_kept_with_policy_and_propensities(store: str, run: Path) -> None:
    with serving(config(store, run, explore=True)) as client:
        by_agent, warm = answer(client, k=5, preference="by the sea"), answer(client, "a4", k=3)
        again = answer(client, k=5, preference="by the sea")
    assert again["recommendations"] == by_agent["recommendations"]  # reloading a page does not change the list
    with reading(store) as opened:
        kept = {one.key: one for one in exposures(opened.exposures())}
    assert set(kept) == {body["exposure"] for body in (by_agent, warm, again)}
    one = kept[by_agent["exposure"]]
    assert list(one.job_ids) == [item["job_id"] for item in by_agent["recommendations"]]
    assert (one.policy, one.preference) == (by_agent["run_id"], "by the sea")
    assert all(0 < p < 1 for p in one.propensities)
    assert kept[warm["exposure"]].policy == WARM_START


def test_a_new_applicant_has_recommendations_at_once(client: TestClient, store: str) -> None:
    profile = {"id": "ann / é", "bio": "Cook by the sea", "hard_skills": ["Skill 3"], "experience": [{"title": "Cook"}]}
    response = client.post("/v1/applicants", json=profile)
    assert response.status_code == 201
    assert response.headers["location"] == response.json()["recommendations"]
    body = client.get(response.json()["recommendations"], params={"k": 3, "explain": True}).json()
    assert (body["applicant_id"], body["source"], len(body["recommendations"])) == ("ann / é", "warm-start", 3)
    assert send(client, "j01", "save", "ann / é").status_code == 201
    with reading(store) as opened:
        assert next(opened.records("candidate", ["ann / é"])).hard_skills == ("Skill 3",)
        rows, _ = TensorCache.copy_from_database(opened).top_k("ann / é", 3)
    assert [item["job_id"] for item in body["recommendations"]] == [JOB_IDS[row] for row in rows]
    problem(client.post("/v1/applicants", json=profile), 409, "applicant-exists")
    anonymous = client.post("/v1/applicants", json={"hard_skills": ["x"]}).json()["id"]
    assert len(listed(client, anonymous)) == 10
    problem(client.post("/v1/applicants", json={"bio": "  "}), 422, "invalid-request")
    ids = [one["id"] for one in client.get("/v1/applicants").json()["applicants"]]
    assert ids == sorted(["ann / é", anonymous, *(f"a{i}" for i in range(APPLICANTS))])


def test_a_new_applicants_personal_data_is_neither_stored_nor_used(store: str, run: Path) -> None:
    profile = {"id": "p", "bio": "I cook. Write to jane.doe@example.com.", "experience": [{"title": "Cook"}]}
    with serving(config(store, run)) as client:
        assert client.post("/v1/applicants", json=profile).status_code == 201
        only = client.post("/v1/applicants", json={"bio": "jane.doe@example.com"})
        assert "without personal data" in problem(only, 422, "invalid-request")["detail"]
    with reading(store) as opened:
        assert next(opened.records("candidate", ["p"])).bio == "I cook. Write to."
        [batch] = opened.vectors("candidate", ["profile"], ids=["p"])
    np.testing.assert_allclose(batch.blocks["profile"], HashEmbedder().encode(["Cook. I cook. Write to."]), atol=1e-6)
    with open_store(store) as opened:
        opened.put_meta(personal_data="kept")
    with serving(config(store, run)) as client:
        assert client.post("/v1/applicants", json=profile | {"id": "q"}).status_code == 201
    with reading(store) as opened:
        assert next(opened.records("candidate", ["q"])).bio == profile["bio"]


def test_a_store_that_another_writes_to_is_busy_and_feedback_is_taken_all_the_same(
    client: TestClient, store: str
) -> None:
    with open_store(store):
        response = client.post("/v1/applicants", json={"bio": "late"})
        assert "being written by process" in problem(response, 503, "store-busy")["detail"]
        assert response.headers["retry-after"] == "5"
        assert send(client, "j01", "save").status_code == 201
    assert client.post("/v1/applicants", json={"bio": "late"}).status_code == 201


def test_applicants_come_page_by_page(client: TestClient) -> None:
    first = client.get("/v1/applicants", params={"limit": 3}).json()
    assert [(one["id"], one["has_agent"]) for one in first["applicants"]] == [("a0", True), ("a1", True), ("a2", False)]
    rest = client.get("/v1/applicants", params={"limit": 3, "after": first["next"]}).json()
    assert [one["id"] for one in rest["applicants"]] == ["a3", "a4"]
    assert rest["next"] is None
    assert first["applicants"][0]["headline"] == "I am number 0."


def test_jobs_are_looked_up(client: TestClient) -> None:
    assert client.get("/v1/jobs/j07").json()["technical_skills"] == ["Skill 7", "cooking"]
    problem(client.get("/v1/jobs/nothing%2Fhere"), 404, "unknown-job")


@pytest.mark.parametrize(
    ("path", "status", "name"),
    [
        ("/v1/applicants/nobody/recommendations", 404, "unknown-applicant"),
        ("/v1/applicants/a0/recommendations?k=0", 422, "invalid-request"),
        ("/v1/applicants/a0/recommendations?k=101", 422, "invalid-request"),
        ("/v1/applicants/a0/recommendations?k=ten", 422, "invalid-request"),
        (f"/v1/applicants/a0/recommendations?preference={'x' * 2001}", 422, "invalid-request"),
        ("/v2/applicants", 404, "not-found"),
        ("/v1/feedback", 405, "method-not-allowed"),
    ],
)
def test_a_wrong_question_is_a_problem_with_a_name(client: TestClient, path: str, status: int, name: str) -> None:
    assert problem(client.get(path), status, name)["detail"]


def test_a_new_run_is_picked_up_without_a_restart(client: TestClient, run: Path, tmp_path: Path) -> None:
    before = client.get("/readyz").json()["run_id"]
    assert listed(client, k=1) == ["j20"]
    after = make_run(run, {"a0": prefers(8), "a2": prefers(9)})
    until(lambda: client.get("/readyz").json()["run_id"] == after != before)
    assert (listed(client, k=1), listed(client, "a2", k=1)) == (["j08"], ["j09"])
    assert answer(client, "a1")["source"] == "warm-start"  # the new run has no agent for a1


def test_a_promoted_run_is_picked_up_and_a_broken_one_refused(store: str, tmp_path: Path) -> None:
    serve = RunFolder.at(tmp_path / "serving")
    first = make_run(tmp_path / "one", {"a0": prefers(1)})
    with serving(config(store, None, serving=serve.uri)) as client:
        assert answer(client)["source"] == "warm-start"  # nothing was promoted yet
        serve.write_json("current.json", {"run": str(tmp_path / "one")})
        until(lambda: client.get("/readyz").json()["run_id"] == first)
        make_run(tmp_path / "two", {"a0": prefers(2)})
        values = tmp_path / "two/agents/block_00000-0001/q_values.npy"
        whole = values.read_bytes()
        values.write_bytes(whole[:-1] + b"\x00")
        serve.write_json("current.json", {"run": str(tmp_path / "two")})
        until(lambda: client.get("/readyz").json()["problem"] is not None)
        assert "q_values.npy is not the file that was written" in client.get("/readyz").json()["problem"]
        assert answer(client, k=1)["run_id"] == first
        assert "recommend_refused_runs 1.0" in client.get("/metrics").text
        values.write_bytes(whole)
        until(lambda: listed(client, k=1) == ["j02"])
        assert client.get("/readyz").json()["problem"] is None


def test_a_run_that_did_not_change_is_read_once(store: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole, looked = ServedRun.open, RunFolder.read_json
    monkeypatch.setattr(ServedRun, "open", lambda uri: (read.append("whole"), whole(uri))[1])
    monkeypatch.setattr(RunFolder, "read_json", lambda *a: (read.append("looked"), looked(*a))[1])
    with serving(config(store, run)):
        until(lambda: read.count("looked") > 5)
    assert read.count("whole") == 1


def test_a_run_of_another_store_is_refused(store: str, run: Path, tmp_path: Path) -> None:
    with serving(config(store, run)) as client:
        make_run(run, {"a0": np.ones(2)}, ("x", "y"))
        until(lambda: "none of the catalogue's jobs" in (client.get("/readyz").json()["problem"] or ""))
        assert client.get("/readyz").json()["run_id"] is not None


def test_an_agent_whose_run_was_removed_is_replaced_by_the_warm_start(client: TestClient, run: Path) -> None:
    assert answer(client)["source"] == "agent"
    shutil.rmtree(run)
    assert answer(client)["source"] == "agent"  # its ranking is still in memory
    body = answer(client, "a1")
    assert (body["source"], len(body["recommendations"])) == ("warm-start", 10)
    assert "recommend_unreadable_agents 1.0" in client.get("/metrics").text


def test_the_list_follows_the_catalogue(client: TestClient, store: str) -> None:
    with open_store(store) as opened:
        opened.delete_records("job", ["j20"])
        # Added after training, with the text of the agent's second job, so it is ranked beside that one.
        opened.put_records("job", [make_job(3, id="new")])
        embed_pending(opened, HashEmbedder(), EXTENDED)
    until(lambda: client.get("/readyz").json()["jobs"] == len(JOB_IDS) and "j20" not in listed(client))
    items = answer(client, k=4, explain=True)["recommendations"]
    estimated = {item["job_id"]: item["explanation"]["q_is_estimated"] for item in items}
    assert estimated == {"j03": False, "j11": False, "new": True, "j00": False}
    assert send(client, "j20", "apply").status_code == 201  # it may still be on somebody's screen


def test_only_so_many_events_are_taken_from_one_caller(store: str, run: Path) -> None:
    with serving(config(store, run, feedback_per_second=0.5, feedback_burst=3, max_batch=2)) as client:
        assert [send(client, "j01", "click").status_code for _ in range(3)] == [201] * 3
        response = send(client, "j01", "click")
        problem(response, 429, "too-many-requests")
        assert response.headers["retry-after"] == "2"
        assert client.get("/v1/jobs/j01").status_code == 200
        batch = [{"applicant_id": "a0", "job_id": "j01", "event": "save"}] * 3
        problem(client.post("/v1/feedback", json={"events": batch}), 413, "too-large")


def test_a_body_is_bounded_whether_it_says_its_length_or_not(client: TestClient) -> None:
    big = b'{"bio": "' + b"x" * (2 << 20) + b'"}'
    kind = {"content-type": "application/json"}
    assert client.post("/v1/applicants", content=big, headers=kind).status_code == 413
    assert client.post("/v1/applicants", content=iter([big]), headers=kind).status_code == 413


def test_with_a_key_only_its_owner_is_answered(store: str, run: Path) -> None:
    with serving(config(store, run, api_key="sesame")) as client:
        paths = ("/v1/applicants/a0/recommendations", "/v1/jobs/j01", "/v1/applicants", "/metrics")
        for path in paths:
            for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}):
                response = client.get(path, headers=header)
                problem(response, 401, "unauthorized")
                assert response.headers["www-authenticate"] == "Bearer"
            assert client.get(path, headers={"Authorization": "Bearer sesame"}).status_code == 200
        problem(client.post("/v1/feedback", json={}), 401, "unauthorized")
        for path in ("/healthz", "/readyz", "/", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200


def test_without_a_key_a_page_that_was_pointed_here_is_refused(client: TestClient) -> None:
    for host in ("evil.example.org", "127.0.0.1.evil.org", "[::1", ""):
        problem(client.get("/v1/applicants", headers={"Host": host}), 403, "wrong-host")
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert client.get("/v1/applicants", headers={"Host": host}).status_code == 200


def test_form_posts_from_other_pages_are_no_feedback(client: TestClient) -> None:
    body = '{"applicant_id": "a0", "job_id": "j01", "event": "apply"}'
    response = client.post("/v1/feedback", content=body, headers={"content-type": "text/plain"})
    assert response.status_code == 422


def test_metrics_count_what_happened(client: TestClient) -> None:
    answer(client)
    answer(client)
    send(client, "j01", "save")
    client.get("/v1/jobs/nothing")
    text = client.get("/metrics").text
    for line in (
        'recommend_lists_total{source="agent"} 2.0',
        'recommend_feedback_total{event="save"} 1.0',
        'recommend_requests_total{route="/v1/jobs/{job_id:path}",status="404"} 1.0',
        "recommend_cache_misses 1.0",
        "recommend_cache_hits 1.0",
    ):
        assert line in text


def test_memory_holds_so_many_agents_and_no_more(store: str, run: Path) -> None:
    with serving(config(store, run, cached_agents=2)) as client:
        for applicant in ("a0", "a1", "a2", "a3", "a0"):
            answer(client, applicant)
        text = client.get("/metrics").text
    assert "recommend_cached_agents 2.0" in text
    assert "recommend_cache_misses 5.0" in text


def test_the_documentation_needs_neither_network_nor_script(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for text in ("/v1/feedback", "preference", "ProblemDetails", "Idempotency-Key"):
        assert text.lower() in page.text.lower()
    assert "<script" not in page.text
    assert "http://" not in page.text.replace("http://127.0.0.1:8000", "")  # of the examples
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
