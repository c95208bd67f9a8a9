"""The calls behind the pages, over HTTP: profiles, documents, search, history, changes, runs side by side."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from dynaq.feedback.events import Exposure
from dynaq.runs.folder import CONFIG, METRICS, RunFolder
from dynaq.stores import open_store
from tests.recommend_service.test_api import answer, listed, problem, send, until
from tests.recommend_service.test_rights import KEY, READER, bearer, keyed
from tests.support.recommend_market import JOB_IDS, config, make_job, make_market, make_run, prefers, serving

pytestmark = pytest.mark.slow

PLACES = {
    "j00": {"Location": "Bergen", "contract": "permanent", "Language": ["en", "no"]},
    "j09": {"location": "Bergen"},
}


@pytest.fixture
def store(store_uri: str) -> str:
    """A market on a folder and on MongoDB; two of its jobs have a place."""
    make_market(store_uri)
    with open_store(store_uri) as store:
        store.put_records("job", [make_job(int(one[1:]), metadata=fields) for one, fields in PLACES.items()])
    return store_uri


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", {"a0": prefers(20, 3, 11)})
    return tmp_path / "run"


@pytest.fixture
def client(store: str, run: Path) -> Iterator[TestClient]:
    with serving(config(store, run)) as client:
        yield client


def get(client: TestClient, path: str, **query: Any) -> Any:
    response = client.get(f"/v1/{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_profile_says_what_is_known_and_can_be_changed(client: TestClient, store: str) -> None:
    known = get(client, "applicants/a3/profile")
    assert known == {
        "id": "a3",
        "bio": "I am number 3.",
        "hard_skills": ["skill 10", "Cooking"],
        "soft_skills": [],
        "experience": [],
        "has_agent": False,
        "answers": 0,
        "judged": 0,
    }
    before = listed(client, "a3", k=len(JOB_IDS))
    new = {"hard_skills": ["Skill 4"], "experience": [{"title": "Job <b>4</b>"}], "bio": "Write to me@example.org"}
    changed = client.put("/v1/applicants/a3/profile", json=new)
    assert changed.status_code == 200, changed.text
    assert changed.json()["hard_skills"] == ["Skill 4"]
    assert "example.org" not in changed.text
    now = answer(client, "a3", k=len(JOB_IDS), explain=True)["recommendations"]
    assert [one["job_id"] for one in now if one["explanation"]["shared_skills"]] == ["j04"]
    assert [one["job_id"] for one in now] != before
    with open_store(store, read_only=True) as opened:
        assert next(opened.records("candidate", ["a3"])).hard_skills == ("Skill 4",)
    problem(client.put("/v1/applicants/nobody/profile", json=new), 404, "unknown-applicant")
    problem(client.put("/v1/applicants/a3/profile", json={}), 422, "invalid-request")


def test_who_was_erased_is_not_written_back_by_a_change(client: TestClient) -> None:
    assert client.delete("/v1/applicants/a3").status_code == 200
    problem(client.put("/v1/applicants/a3/profile", json={"bio": "again"}), 404, "unknown-applicant")
    problem(client.get("/v1/applicants/a3/profile"), 404, "unknown-applicant")


def test_a_document_becomes_the_fields_of_a_profile_and_is_not_kept(client: TestClient) -> None:
    text = "Ann Smith\nann@example.org\n\nExperience\n2019 - 2023 Baker, Bergen Bread\n\nSkills\nKneading, Sourdough\n"
    read = client.post("/v1/documents", params={"name": "Ann Smith.txt"}, content=text.encode())
    assert read.status_code == 200, read.text
    body = read.json()
    assert body["hard_skills"] == ["Kneading", "Sourdough"]
    assert "Baker" in body["experience"][0]["title"]
    assert "Smith" not in read.text
    assert "example.org" not in read.text
    created = client.post("/v1/applicants", json={name: body[name] for name in ("bio", "hard_skills", "experience")})
    assert created.status_code == 201, created.text
    what = problem(client.post("/v1/documents", params={"name": "cv.exe"}, content=b"MZ"), 422, "unreadable-document")
    assert "or paste the text" in what["detail"]


def test_applicants_are_found_by_id_title_and_name(client: TestClient) -> None:
    def found(search: str, **query: Any) -> list[str]:
        return [one["id"] for one in get(client, "applicants", search=search, **query)["applicants"]]

    body = {"id": "new", "experience": [{"title": "Deck officer"}], "hard_skills": ["x"]}
    assert client.post("/v1/applicants", json=body).status_code == 201
    assert found("A3") == ["a3"]
    assert found("number 2") == ["a2"]
    assert found("2 number") == ["a2"]
    assert found("deck OFF") == ["new"]
    assert found("nobody at all") == []
    assert found("number", limit=2) == ["a0", "a1"]
    assert found("number", after="a1") == ["a2", "a3", "a4"]
    assert client.delete("/v1/applicants/new").status_code == 200
    assert found("deck") == []


def test_filters_keep_the_jobs_that_have_a_value(client: TestClient, store: str) -> None:
    assert get(client, "filters") == {
        "place": [{"value": "Bergen", "jobs": 2}],
        "contract": [{"value": "permanent", "jobs": 1}],
        "language": [{"value": "en", "jobs": 1}, {"value": "no", "jobs": 1}],
    }
    body = answer(client, place="Bergen")
    assert [one["job_id"] for one in body["recommendations"]] == ["j00", "j09"]
    assert body["recommendations"][0]["facets"] == {"place": "Bergen", "contract": "permanent", "language": "en, no"}
    assert listed(client, "a3", place="Bergen", language="no") == ["j00"]
    assert listed(client, place="Oslo") == []
    assert len(listed(client)) == 10  # the kept ranking is still of all jobs
    assert send(client, "j05", "click").status_code == 201  # written after the exposures that were queued before
    with open_store(store, read_only=True) as opened:
        shown = opened.exposures(["a0"]).to_pylist()
    # Such lists say nothing about a ranking of all jobs, as those with a preference.
    assert [one["preference"] for one in shown] == ["place: Bergen", None]


def test_what_was_said_is_one_answer_per_job_and_can_be_taken_back(client: TestClient) -> None:
    for job, event in (("j03", "save"), ("j11", "ignore"), ("j11", "undo"), ("j20", "click"), ("j20", "apply")):
        assert send(client, job, event).status_code == 201
    body = get(client, "applicants/a0/feedback")
    assert body["events"] == 5
    assert [(one["job_id"], one["title"], one["event"]) for one in body["answers"]] == [
        ("j20", "Job <b>20</b>", "apply"),
        ("j03", "Job <b>3</b>", "save"),
    ]
    assert listed(client, k=2) == ["j03", "j11"]
    assert get(client, "applicants/a0/profile")["answers"] == 2
    assert send(client, "j20", "undo").status_code == 201
    assert listed(client, k=1) == ["j20"]


def test_shown_lists_are_kept_newest_first(client: TestClient) -> None:
    assert get(client, "applicants/a0/exposures") == {"exposures": [], "total": 0}
    answer(client, k=1)
    answer(client, k=2, preference="at sea")
    assert send(client, "j05", "click").status_code == 201  # written after the exposures that were queued before
    body = get(client, "applicants/a0/exposures", limit=1)
    assert body["total"] == 2
    (newest,) = body["exposures"]
    assert (newest["preference"], len(newest["jobs"])) == ("at sea", 2)
    assert newest["jobs"][0].keys() == {"job_id", "title"}


def test_what_changed_since_an_earlier_day_and_why(store: str, run: Path) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    jobs = ("j20", "j03", "gone", "j29", "j11")
    with open_store(store) as opened:
        lists = [("old", 2, ("j01",), None), ("wish", 0, ("j02",), "x"), ("last", 1, jobs, None)]
        opened.add_exposures(
            [
                Exposure("a0", key, yesterday - timedelta(hours=hours), shown, (1.0,) * len(shown), "run-old", wish)
                for key, hours, shown, wish in lists
            ]
        )
    with serving(config(store, run)) as client:
        assert send(client, "j20", "apply").status_code == 201
        block = {"job_id": "j03", "action": "block", "operator": "op"}
        assert client.post("/v1/applicants/a0/decisions", json=block).status_code == 201
        body = get(client, "applicants/a0/changes")
        assert body["new_run"] is True
        assert [one["job_id"] for one in body["entered"]] == ["j00", "j01", "j02", "j04"]
        assert {one["job_id"]: one["why"] for one in body["left"]} == {
            "j20": "answered",
            "j03": "operator",
            "gone": "withdrawn",
            "j29": "ranked-lower",
        }
        assert body["left"][2]["title"] is None
        assert get(client, "applicants/a1/changes") == {"since": None, "new_run": False, "entered": [], "left": []}
        assert get(client, "applicants/a0/exposures")["total"] == 3  # looking is no exposure


def compared(tmp_path: Path) -> Path:
    """A comparison of two trials, the better of which has metrics."""
    place = tmp_path / "compared"
    make_run(place / "llm", {"a0": prefers(20, 3), "a1": prefers(5)})
    make_run(place / "cosine", {"a0": prefers(9, 20)})
    RunFolder.at(place).write_yaml(CONFIG, {"trials": ["cosine", "llm", "unfinished"], "best": "llm"})
    best = RunFolder.at(place / "llm")
    best.write_yaml(CONFIG, {"strategy": "llm", "judge": "vllm"})
    rows = [
        {"applicant_id": one, "round": turn, "judgements_used": 5 * turn, "mean_reward": 0.1 * turn, "applied": turn}
        for one in ("a0", "a1")
        for turn in (2, 1)
    ]
    best.write_table(METRICS, pa.Table.from_pylist([row | {"trust": float("nan")} for row in rows]))
    return place


def test_two_runs_lists_stand_side_by_side(store: str, tmp_path: Path) -> None:
    with serving(config(store, compared(tmp_path))) as client:
        runs = get(client, "runs")["runs"]
        assert [(one["name"], one["strategy"], one["serves"]) for one in runs] == [
            ("llm", "llm", True),
            ("cosine", None, False),
            ("similarity", None, False),
        ]
        assert send(client, "j00", "ignore").status_code == 201
        left, right, similar = (one["run_id"] for one in runs)
        body = get(client, "applicants/a0/comparison", left=left, right=right, k=3)
        assert [(one["job_id"], one["other_rank"]) for one in body["left"]["jobs"]] == [
            ("j20", 2),
            ("j03", None),
            ("j01", 3),
        ]
        assert [one["job_id"] for one in body["right"]["jobs"]] == ["j09", "j20", "j01"]
        assert body["left"]["jobs"][0]["score"] == 100.0
        assert body["shared"] == 2
        body = get(client, "applicants/a1/comparison", left=right, right=similar, k=3)
        assert (body["left"]["has_agent"], body["shared"]) == (False, 3)
        nowhere = client.get("/v1/applicants/a0/comparison", params={"left": left, "right": "run-none"})
        problem(nowhere, 404, "unknown-run")
        points = get(client, "applicants/a0/learning")["points"]
        assert [(one["judgements"], one["reward"], one["applied"], one["trust"]) for one in points] == [
            (5, 0.1, 1, None),
            (10, 0.2, 2, None),
        ]
        assert get(client, "applicants/a0/learning", run=right)["points"] == []
        assert get(client, "applicants/a0/exposures")["total"] == 0


def test_a_persons_token_opens_what_is_theirs_and_the_rest_needs_the_service_key(store: str, run: Path) -> None:
    own = ("profile", "feedback", "exposures", "changes", "learning")
    with serving(keyed(store, run)) as client:
        token = bearer(client, "a0")
        for name in own:
            assert client.get(f"/v1/applicants/a0/{name}", headers=token).status_code == 200, name
            problem(client.get(f"/v1/applicants/a1/{name}", headers=token), 403, "forbidden")
            problem(client.get(f"/v1/applicants/a0/{name}", headers=READER), 403, "forbidden")
            problem(client.get(f"/v1/applicants/a0/{name}"), 401, "unauthorized")
        assert client.get("/v1/filters", headers=token).status_code == 200
        everybodys = ("runs", "applicants", "applicants/a0/comparison?left=similarity&right=similarity")
        for path in everybodys:
            problem(client.get(f"/v1/{path}", headers=token), 403, "forbidden")
            for key in (KEY, READER):
                assert client.get(f"/v1/{path}", headers=key).status_code == 200, path
        new = {"bio": "I changed."}
        assert client.put("/v1/applicants/a0/profile", json=new, headers=token).status_code == 200
        problem(client.put("/v1/applicants/a1/profile", json=new, headers=token), 403, "forbidden")
        looking = bearer(client, "a0", read_only=True)
        problem(client.put("/v1/applicants/a0/profile", json=new, headers=looking), 403, "forbidden")
        upload = {"params": {"name": "cv.txt"}, "content": b"I bake."}
        problem(client.post("/v1/documents", headers=looking, **upload), 403, "forbidden")
        assert client.post("/v1/documents", headers=token, **upload).status_code == 200


def test_reasons_are_plain_words(client: TestClient, store: str) -> None:
    body = client.put(
        "/v1/applicants/a3/profile",
        json={"hard_skills": ["skill 10", "Cooking"], "experience": [{"title": "Job <b>10</b>"}]},
    )
    assert body.status_code == 200
    listed = answer(client, "a3", k=30, explain=True, preference=make_job(17).description)["recommendations"]
    said = {one["job_id"]: one["explanation"]["reasons"] for one in listed}
    assert "Fits what you asked for." in said["j17"]
    assert "Asks for Skill 10 and cooking, which you name." in said["j10"]
    assert "Close to what you did before, such as Job <b>10</b>." in said["j10"]
    assert all(said.values())


def test_a_job_that_ranks_lower_is_marked_as_exploring(store: str, run: Path) -> None:
    with serving(config(store, run, explore=True, sharpness=0.0)) as client:
        body = answer(client, k=10)["recommendations"]
        best = ["j20", "j03", "j11", "j00", "j01", "j02", "j04", "j05", "j06", "j07"]
        assert [one["exploring"] for one in body] == [one["job_id"] not in best for one in body]
        assert any(one["exploring"] for one in body)
        assert not any(one["exploring"] for one in answer(client, k=len(JOB_IDS))["recommendations"])


def test_an_empty_store_is_served_and_filled_while_it_is(store_uri: str, tmp_path: Path) -> None:
    uri = store_uri
    with open_store(uri, create=True):
        pass
    with serving(config(uri, None, serving=str(tmp_path / "serving"))) as client:
        assert get(client, "applicants") == {"applicants": [], "next": None}
        assert get(client, "filters") == {"place": [], "contract": [], "language": []}
        assert client.get("/readyz").json()["jobs"] == 0
        problem(client.post("/v1/applicants", json={"bio": "I bake."}), 409, "no-jobs")
        make_market(uri)
        until(lambda: client.get("/readyz").json()["jobs"] == len(JOB_IDS))
        assert len(listed(client, "a3")) == 10


def test_a_store_with_jobs_alone_takes_its_first_applicant(store: str, tmp_path: Path) -> None:
    with open_store(store) as opened:
        opened.delete_records("candidate", opened.ids("candidate"))
    with serving(config(store, None, serving=str(tmp_path / "serving"))) as client:
        assert client.post("/v1/applicants", json={"id": "first", "hard_skills": ["Skill 4"]}).status_code == 201
        assert listed(client, "first", k=1)
        assert get(client, "applicants")["applicants"][0]["id"] == "first"
