"""Two replicas on one database, in the test's process: what one stores, the other knows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dynaq.feedback.events import events
from dynaq.runs.q_table import ServedRun
from dynaq.stores import open_store
from recommend_service.promotions import ServingFolder
from tests.recommend_service.test_api import answer, listed, problem, send, until
from tests.support.planted import PERSON, found_in_mongo
from tests.support.recommend_market import JOB_IDS, config, make_market, make_run, prefers, serving

pytestmark = pytest.mark.slow

Pair = tuple[TestClient, TestClient]


@pytest.fixture
def store(shared_uri: str) -> str:
    return make_market(shared_uri)


@pytest.fixture
def folder(tmp_path: Path) -> ServingFolder:
    """A serving folder whose run prefers j20."""
    make_run(tmp_path / "first", {"a0": prefers(20, 3)})
    folder = ServingFolder(str(tmp_path / "serving"))
    folder.promote(ServedRun.open(str(tmp_path / "first")))
    return folder


@pytest.fixture
def pair(store: str, folder: ServingFolder) -> Iterator[Pair]:
    settings = config(store, None, serving=folder.folder.uri, catalogue_seconds=60.0, feedback_burst=1000)
    with serving(settings) as one, serving(settings) as other:
        yield one, other


def test_what_one_stored_is_missing_from_the_very_next_list_of_the_other(pair: Pair) -> None:
    one, other = pair
    assert listed(other, k=2) == ["j20", "j03"]
    assert send(one, "j20", "ignore").status_code == 201
    assert "j20" not in listed(other)
    assert send(other, "j03", "apply").status_code == 201
    assert not {"j20", "j03"} & set(listed(one))
    assert send(one, "j05", "save").status_code == 201
    assert [item["job_id"] for item in answer(other)["recommendations"] if item["marked"]] == ["j05"]


def test_it_knows_within_two_seconds_even_if_it_cannot_ask(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other follows what is stored, so that it also knows while the store is away."""
    one, other = pair
    monkeypatch.setattr("recommend_service.service.LOOKUP_SECONDS", -1.0)
    assert listed(other, k=1) == ["j20"]
    began = time.monotonic()
    assert send(one, "j20", "ignore").status_code == 201
    until(lambda: "j20" not in listed(other))
    assert time.monotonic() - began < 8  # 2 s on a machine that is not loaded; polls are half a second apart


def test_an_event_sent_to_both_under_one_key_is_stored_once_and_at_its_first_time(pair: Pair, store: str) -> None:
    one, other = pair
    key = {"Idempotency-Key": "sent twice"}
    first = send(one, "j20", "save", headers=key)
    assert send(one, "j20", "ignore").status_code == 201
    again = send(other, "j20", "save", headers=key)  # later than the ignore, but it is the save from before it
    assert (again.status_code, again.json()) == (201, first.json())
    assert "j20" not in listed(other)
    with open_store(store, read_only=True) as opened:
        assert [one.event for one in events(opened.feedback())] == ["save", "ignore"]


def test_a_limit_holds_for_both_together(store: str, folder: ServingFolder) -> None:
    settings = config(
        store, None, serving=folder.folder.uri, feedback_per_second=0.01, feedback_burst=6, max_batch=2,
        applicants_per_minute=1,
    )  # fmt: skip
    with serving(settings) as one, serving(settings) as other:
        codes = [send(client, "j01", "click").status_code for client in (one, other) * 5]
        assert codes == [201] * 6 + [429] * 4
        profile = {"hard_skills": ["x"]}
        assert [client.post("/v1/applicants", json=profile).status_code for client in (one, other)] == [201, 429]


def test_an_applicant_created_at_one_is_at_the_other_at_once(pair: Pair) -> None:
    one, other = pair
    assert one.post("/v1/applicants", json={"id": "ann", "hard_skills": ["Skill 3"]}).status_code == 201
    body = answer(other, "ann", k=3, explain=True)
    assert body["recommendations"] == answer(one, "ann", k=3, explain=True)["recommendations"]
    assert one.post("/v1/applicants", json={"id": "bob", "hard_skills": ["Skill 4"]}).status_code == 201
    assert send(other, "j01", "save", "bob").status_code == 201
    assert one.post("/v1/applicants", json={"id": "eve", "hard_skills": ["Skill 5"]}).status_code == 201
    until(lambda: {"ann", "bob", "eve"} <= {a["id"] for a in other.get("/v1/applicants").json()["applicants"]})
    problem(other.get("/v1/applicants/nobody/recommendations"), 404, "unknown-applicant")


def test_an_erasure_at_one_reaches_the_other_long_before_it_looks_at_the_store(pair: Pair, store: str) -> None:
    one, other = pair
    profile = {"id": PERSON, "hard_skills": ["Skill 3"]}
    assert one.post("/v1/applicants", json=profile).status_code == 201
    for applicant in ("a0", PERSON):
        assert send(other, "j20", "ignore", applicant).status_code == 201
        assert one.delete(f"/v1/applicants/{applicant}").status_code == 200
        for client in pair:
            until(lambda client=client, name=applicant: client.get(f"/v1/applicants/{name}/export").status_code == 404)
            until(lambda client=client, name=applicant: send(client, "j01", "save", name).status_code == 404)
            until(
                lambda client=client, name=applicant: client.get(
                    f"/v1/applicants/{name}/recommendations"
                ).status_code == 404
            )  # fmt: skip
            assert applicant not in [one["id"] for one in client.get("/v1/applicants").json()["applicants"]]
    assert found_in_mongo(store) == {}
    assert other.post("/v1/applicants", json=profile).status_code == 201  # of their own accord
    until(lambda: one.get(f"/v1/applicants/{PERSON}/recommendations").status_code == 200)
    assert "j20" in listed(one, PERSON, k=len(JOB_IDS))


def test_what_an_operator_decides_at_one_counts_in_the_next_list_of_the_other(pair: Pair) -> None:
    one, other = pair
    for job, action in (("j25", "pin"), ("j20", "block")):
        body = {"job_id": job, "action": action, "operator": "op", "reason": "asked"}
        assert one.post("/v1/applicants/a0/decisions", json=body).status_code == 201
    assert listed(other, k=2) == ["j25", "j03"]


def test_what_one_deleted_for_its_age_is_unknown_to_the_other(
    store: str, folder: ServingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recommend_service.service.EXPIRY_SECONDS", 0.2)
    settings = config(store, None, serving=folder.folder.uri, keep_days=2 / 86_400)
    with serving(settings) as one, serving(settings) as other:
        assert send(one, "j20", "ignore").status_code == 201
        for client in (one, other):
            until(lambda client=client: "j20" in listed(client))


def test_creating_an_applicant_can_be_repeated_at_the_other(pair: Pair) -> None:
    one, other = pair
    profile: dict[str, Any] = {"hard_skills": ["Skill 3"]}
    key = {"Idempotency-Key": "create"}
    first = one.post("/v1/applicants", json=profile, headers=key)
    assert other.post("/v1/applicants", json=profile, headers=key).json() == first.json()
    named = profile | {"id": "ann"}
    assert [client.post("/v1/applicants", json=named, headers=key).status_code for client in pair] == [201, 201]
    problem(other.post("/v1/applicants", json=named), 409, "applicant-exists")
    problem(other.post("/v1/applicants", json=named | {"bio": "else"}, headers=key), 409, "applicant-exists")


def test_of_two_who_create_one_applicant_at_once_one_succeeds(pair: Pair) -> None:
    def create(i: int) -> int:
        profile = {"id": "ann", "hard_skills": [f"Skill {i}"]}
        return pair[i].post("/v1/applicants", json=profile).status_code

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(create, range(2))) == [201, 409]


def run_ids(pair: Pair) -> list[str]:
    return [client.get("/readyz").json()["run_id"] for client in pair]


def test_a_promoted_run_is_taken_over_by_both(pair: Pair, folder: ServingFolder, tmp_path: Path) -> None:
    new = make_run(tmp_path / "second", {"a0": prefers(11)})
    folder.promote(ServedRun.open(str(tmp_path / "second")))
    until(lambda: run_ids(pair) == [new, new])
    assert [listed(client, k=1) for client in pair] == [["j11"], ["j11"]]
    assert [client.get("/readyz").json()["problem"] for client in pair] == [None, None]
