"""Keys, erasure, export, retention and oversight over HTTP."""

from __future__ import annotations

import gc
import json
import logging
import weakref
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from fastapi.testclient import TestClient

from dynaq.feedback.events import OVERSEEN
from dynaq.judging.judgement import judgement_from_probabilities
from dynaq.rights.record import note_erasure
from dynaq.stores import open_store
from recommend_service.api import make_app
from recommend_service.keys import Keys
from recommend_service.problems import Problem
from recommend_service.service import Recommender
from tests.recommend_service.test_api import answer, listed, problem, send, until
from tests.support.embedders import HashEmbedder
from tests.support.events import event
from tests.support.planted import PERSON, WORDS, found_in_folder, found_in_mongo
from tests.support.recommend_market import BASE_URL, JOB_IDS, config, make_market, make_run, prefers, serving

pytestmark = pytest.mark.slow

KEY = {"Authorization": "Bearer sesame"}
READER = {"Authorization": "Bearer looking"}


@pytest.fixture
def store(tmp_path: Path) -> str:
    return make_market(str(tmp_path / "store"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", {"a0": prefers(20, 3, 11), PERSON: prefers(9), "a1": prefers(5)})
    return tmp_path / "run"


def keyed(store: str, run: Path, **more: Any) -> Any:
    return config(store, run, api_key="sesame", read_key="looking", **more)


def bearer(client: TestClient, applicant: str, **body: Any) -> dict[str, str]:
    issued = client.post(f"/v1/applicants/{applicant}/tokens", json=body, headers=KEY)
    assert issued.status_code == 201, issued.text
    return {"Authorization": f"Bearer {issued.json()['token']}"}


def test_a_persons_token_opens_what_is_theirs_and_nothing_else(store: str, run: Path) -> None:
    with serving(keyed(store, run)) as client:
        own = bearer(client, "a0")
        assert client.get("/v1/me", headers=own).json()["applicant_id"] == "a0"
        assert client.get("/v1/applicants/a0/recommendations", headers=own).status_code == 200
        assert client.get("/v1/jobs/j01", headers=own).status_code == 200
        assert client.get("/v1/applicants/a0/export", headers=own).status_code == 200
        event = {"applicant_id": "a0", "job_id": "j01", "event": "save"}
        assert client.post("/v1/feedback", json=event, headers=own).status_code == 201
        other = event | {"applicant_id": "a1"}
        refused: list[httpx.Response] = [
            client.get("/v1/applicants/a1/recommendations", headers=own),
            client.get("/v1/applicants/nobody/recommendations", headers=own),  # nor whether somebody exists
            client.get("/v1/applicants/a1/export", headers=own),
            client.get("/v1/applicants/a1/decisions", headers=own),
            client.delete("/v1/applicants/a1", headers=own),
            client.post("/v1/feedback", json=other, headers=own),
            client.post("/v1/feedback", json={"events": [event, other]}, headers=own),
            client.get("/v1/applicants", headers=own),
            client.get("/metrics", headers=own),
            client.post("/v1/applicants", json={"bio": "x"}, headers=own),
            client.post("/v1/applicants/a0/tokens", json={}, headers=own),
            client.post(
                "/v1/applicants/a0/decisions",
                json={"job_id": "j01", "action": "pin", "operator": "me"},
                headers=own,
            ),
        ]
        for response in refused:
            problem(response, 403, "forbidden")
    with open_store(store, read_only=True) as opened:
        assert opened.feedback()["applicant_id"].to_pylist() == ["a0"]


def test_what_only_reads_writes_nothing(store: str, run: Path) -> None:
    with serving(keyed(store, run)) as client:
        reading = bearer(client, "a0", read_only=True)
        event = {"applicant_id": "a0", "job_id": "j01", "event": "save"}
        for headers in (READER, reading):
            problem(client.post("/v1/feedback", json=event, headers=headers), 403, "forbidden")
            problem(client.delete("/v1/applicants/a0", headers=headers), 403, "forbidden")
        seen = client.get("/v1/applicants/a1/recommendations", headers=READER).json()
        assert (seen["recommendations"][0]["job_id"], seen["exposure"]) == ("j05", None)
        assert client.get("/v1/applicants", headers=READER).status_code == 200
        assert client.get("/metrics", headers=READER).status_code == 200
        problem(client.get("/v1/applicants/a1/export", headers=READER), 403, "forbidden")
        problem(client.post("/v1/applicants", json={"bio": "x"}, headers=READER), 403, "forbidden")
    with open_store(store, read_only=True) as opened:
        assert (opened.feedback().num_rows, opened.exposures().num_rows) == (0, 0)


def test_tokens_expire_and_cannot_be_made_elsewhere() -> None:
    keys = Keys("sesame")
    text, expires_at = keys.issue("a0", 1)
    assert timedelta(0) < expires_at - datetime.now(UTC) <= timedelta(minutes=1)
    assert keys.caller(text).applicant_id == "a0"
    claims = {"sub": "a0", "aud": "dynaq-recommend", "exp": datetime.now(UTC) + timedelta(hours=1)}
    forged = [
        keys.issue("a0", -1)[0],
        Keys("another").issue("a0", 1)[0],
        jwt.encode(claims, "sesame" * 8, algorithm="HS256"),
        jwt.encode(claims, None, algorithm="none"),
        jwt.encode({**claims, "aud": "others"}, keys._secret, algorithm="HS256"),
        jwt.encode({k: v for k, v in claims.items() if k != "exp"}, keys._secret, algorithm="HS256"),
        text[:-2] + ("AA" if text[-2:] != "AA" else "BB"),
        "",
        "\ud800",
        None,
    ]
    for one in forged:
        with pytest.raises(Problem) as refused:
            keys.caller(one)
        assert refused.value.status == 401


def plant(uri: str) -> None:
    with open_store(uri) as store:
        store.add_judgements([judgement_from_probabilities(PERSON, "j01", (1, 0, 0, 0), judge="j")])


@pytest.mark.parametrize("kind", ["folder", "mongo"])
def test_erasing_somebody_leaves_nothing_in_store_run_logs_or_memory(
    kind: str, run: Path, tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    uri = make_market(str(tmp_path / "store") if kind == "folder" else request.getfixturevalue("mongo_uri"))
    with serving(keyed(uri, run, access_log=str(tmp_path / "access.log"))) as client:
        client.headers.update(KEY)
        profile = {"id": PERSON, "bio": "I carve", "hard_skills": [WORDS[2]], "experience": [{"title": WORDS[1]}]}
        assert client.post("/v1/applicants", json=profile).status_code == 201
        plant(uri)
        assert listed(client, PERSON, k=1, explain=True) == ["j09"]
        assert send(client, "j03", "ignore", PERSON).status_code == 201
        decision = {"job_id": "j11", "action": "block", "operator": "op", "reason": "closed"}
        assert client.post(f"/v1/applicants/{PERSON}/decisions", json=decision).status_code == 201
        assert send(client, "j20", "save", "a0").status_code == 201
        own = bearer(client, PERSON)
        held = client.get(f"/v1/applicants/{PERSON}/export", headers=own).json()
        parts = ("profile", "vectors", "judgements", "feedback", "exposures", "decisions", "runs")
        assert all(held[part] for part in parts)
        assert held["profile"][0]["experience"][0]["title"] == WORDS[1]

        erased = client.delete(f"/v1/applicants/{PERSON}", headers=own)

        assert erased.status_code == 200, erased.text
        assert erased.json()["runs"] == [str(run)]
        assert {name for name, count in erased.json()["rows"].items() if count} >= {
            "feedback",
            "exposures",
            "decisions",
        }
        for response in (
            client.get(f"/v1/applicants/{PERSON}/recommendations", headers=own),
            client.get(f"/v1/applicants/{PERSON}/export", headers=own),
            client.delete(f"/v1/applicants/{PERSON}"),
            send(client, "j01", "save", PERSON),
        ):
            problem(response, 404, "unknown-applicant")
        assert PERSON not in client.get("/v1/applicants").text
        assert listed(client, "a0", k=1) == ["j20"]
        assert answer(client, "a1")["source"] == "agent"  # their agents were in the same block
        assert found_in_folder(tmp_path) == {}  # store, run, access log, while the service still runs
    assert found_in_folder(tmp_path) == {}
    assert PERSON not in caplog.text.replace(f"/v1/applicants/{PERSON}", "")  # the test's own client logs its requests
    if kind == "mongo":
        assert found_in_mongo(uri) == {}
    with open_store(uri, read_only=True) as opened:
        assert len(opened.forgotten()) == 1
        assert opened.feedback()["applicant_id"].to_pylist() == ["a0"]


def test_no_comparison_of_runs_keeps_the_catalogue_that_an_erased_applicant_was_in(store: str, run: Path) -> None:
    service = Recommender(config(store, run), HashEmbedder())
    with TestClient(make_app(service), base_url=BASE_URL, client=("127.0.0.1", 5000)) as client:
        asked = {"left": "similarity", "right": "similarity"}
        assert client.get("/v1/applicants/a0/comparison", params=asked).status_code == 200
        before = weakref.ref(service.ranker.catalogue)
        assert client.delete("/v1/applicants/a0").status_code == 200
        gc.collect()
        assert before() is None


def test_who_was_erased_may_come_back_of_their_own_accord(store: str, run: Path) -> None:
    with serving(config(store, run)) as client:
        assert send(client, "j07", "ignore", "a0").status_code == 201
        assert client.delete("/v1/applicants/a0").status_code == 200
        assert client.post("/v1/applicants", json={"id": "a0", "hard_skills": ["Skill 7"]}).status_code == 201
        assert answer(client, "a0")["source"] == "warm-start"
        assert "j07" in listed(client, "a0", k=len(JOB_IDS))  # what they said before is forgotten


def test_a_store_that_is_busy_says_so_and_keeps_the_applicant(store: str, run: Path) -> None:
    with serving(config(store, run)) as client:
        with open_store(store):
            assert "repeat the call" in problem(client.delete("/v1/applicants/a1"), 503, "store-busy")["detail"]
            assert answer(client, "a1")["applicant_id"] == "a1"
        assert client.delete("/v1/applicants/a1").status_code == 200


def test_an_erasure_by_another_process_reaches_memory_and_what_was_written_since(mongo_uri: str, run: Path) -> None:
    with serving(config(make_market(mongo_uri), run)) as client:
        assert send(client, "j20", "ignore", "a0").status_code == 201
        with open_store(mongo_uri) as store:
            store.forget_events("a0")
            store.forget_records("a0")
            store.add_feedback([event("late", applicant="a0", job="j01")])  # of a call that was under way here
            note_erasure(store, "a0")
        until(lambda: client.get("/v1/applicants/a0/recommendations").status_code == 404)
        with open_store(mongo_uri, read_only=True) as store:
            until(lambda: not store.feedback(["a0"]).num_rows)


def test_what_is_older_than_it_may_be_is_deleted_and_forgotten(store: str, run: Path) -> None:
    now = datetime.now(UTC)
    with open_store(store) as opened:
        opened.add_feedback(
            [
                event(at=now - timedelta(days=days), applicant="a0", job=job, what="ignore", key=job)
                for job, days in (("j20", 40), ("j03", 2))
            ]
        )
    with serving(config(store, run, keep_days=30)) as client:
        assert listed(client, "a0", k=2) == ["j20", "j11"]
        with open_store(store, read_only=True) as opened:
            assert opened.feedback()["job_id"].to_pylist() == ["j03"]


def test_an_operator_pins_and_blocks_and_it_is_logged(store: str, run: Path) -> None:
    def decide(client: TestClient, job: str, action: str) -> httpx.Response:
        body = {"job_id": job, "action": action, "operator": "op-7", "reason": "asked on the phone"}
        return client.post("/v1/applicants/a0/decisions", json=body)

    with serving(config(store, run)) as client:
        plain = answer(client, k=3)
        assert {(one["by"], one["what"]) for one in plain["parts"]} == {("model", "order")}
        assert decide(client, "j25", "pin").status_code == 201
        assert decide(client, "j03", "block").status_code == 201
        assert send(client, "j11", "ignore").status_code == 201
        problem(decide(client, "nowhere", "pin"), 404, "unknown-job")
        body = answer(client, k=3)
        assert [(one["job_id"], one["placed_by"]) for one in body["recommendations"]] == [
            ("j25", "person"),
            ("j20", "model"),
            ("j00", "model"),
        ]
        assert [one["how"] for one in body["parts"] if one["by"] == "person"] == [
            "1 job left out after the applicant's own answers",
            "1 job pinned by the operator",
            "1 job left out by the operator",
        ]
        explained = answer(client, k=1, explain=True)["recommendations"][0]
        assert (explained["job_id"], explained["explanation"]["q"]) == ("j25", -0.25)
        assert send(client, "j25", "apply").status_code == 201
        assert listed(client, k=1) == ["j20"]  # what the applicant answered goes before what was pinned
        for job in ("j25", "j03"):
            assert decide(client, job, "clear").status_code == 201
        assert listed(client, k=2) == ["j20", "j03"]
        log = client.get("/v1/applicants/a0/decisions").json()["decisions"]
        assert [(one["action"], one["operator"]) for one in log] == [
            (action, "op-7") for action in ("pin", "block", "clear", "clear")
        ]
    with serving(config(store, run)) as client:
        assert decide(client, "j25", "pin").status_code == 201
    with serving(config(store, run)) as client:  # a decision outlives the service
        assert listed(client, "a1", k=1) == ["j05"]
        assert [one["how"] for one in answer(client)["parts"] if "pinned" in one["how"]]
    with open_store(store, read_only=True) as opened:
        policies = opened.exposures(["a0"])["policy"].to_pylist()
    assert policies.count(OVERSEEN) == 4


def test_the_access_log_names_nobody(store: str, run: Path, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with serving(keyed(store, run, access_log=str(path))) as client:
        own = bearer(client, "a0")
        client.get("/v1/applicants/a0/recommendations", params={"preference": "by the sea"}, headers=own)
        client.get("/v1/applicants/a0/recommendations")
    lines = [line.split(" ", 2)[2] for line in path.read_text().splitlines()]
    assert lines[1].startswith("GET /v1/applicants/{applicant_id:path}/recommendations 200 ")
    assert [line.split()[-1] for line in lines] == ["service", "applicant", "nobody"]
    text = path.read_text()
    assert not [word for word in ("a0", "sea", "127.0.0.1", json.dumps(own)[-20:-5]) if word in text]
