"""Lists that take account of what the applicant has just seen, over HTTP: in the test's process, and on Ray Serve."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from bench.recommend import served
from dynaq.agent.pair_features import job_embedding
from dynaq.encoder import Embedder, Encoder
from dynaq.feedback.events import REMEMBERED, FeedbackEvent, exposures
from dynaq.feedback.exposure_policy import rank_probabilities
from dynaq.layout import BLOCK_DIM, EXTENDED
from dynaq.records import Candidate, Job
from dynaq.sequential.history import Change
from dynaq.sequential.people import NO_JOB, People, PersonConfig, families_of, similar_rewards
from dynaq.stores import open_feedback, open_store
from dynaq.tensor_cache import TensorCache
from recommend_service import memory
from recommend_service.catalogue import Catalogue
from tests.support.embedders import HashEmbedder
from tests.support.recommend_market import config, make_run, serving

FAMILIES, EACH, PEOPLE = 6, 8, 16
JOB_IDS = tuple(f"j{job:02d}" for job in range(FAMILIES * EACH))
NAMES = tuple(f"p{person:02d}" for person in range(PEOPLE))
VALUES = {"ignore": -0.1, "click": 0.0, "save": 0.5, "apply": 1.0}
SATIATION = 0.4
START = datetime.now(UTC) - timedelta(days=400)
BEST = 2  # the family that agents prefer; the next one follows it


def family(job_id: str) -> int:
    return int(job_id[1:]) // EACH


def make_store(uri: Path, embedder: Embedder) -> str:
    """Six kinds of jobs, and people who resemble all of them, some kinds more."""
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((FAMILIES, BLOCK_DIM)) / BLOCK_DIM**0.5

    def near(centres: np.ndarray) -> np.ndarray:
        return (centres + 0.1 * rng.standard_normal(centres.shape) / BLOCK_DIM**0.5).astype(np.float32)

    with open_store(uri, create=True) as store:
        store.put_meta(layout="extended", encoder=embedder.name, encoder_revision=embedder.revision)
        store.put_records("job", (Job(id=job, title=f"Job {job}", description="What is done.") for job in JOB_IDS))
        store.put_records("candidate", (Candidate(id=name, bio=f"I am {name}") for name in NAMES))
        of = kinds[[family(job) for job in JOB_IDS]]
        store.put_vectors("job", JOB_IDS, {block: near(of) for block in EXTENDED.action}, JOB_IDS)
        alike = np.repeat((kinds * np.linspace(1.0, 0.5, FAMILIES)[:, None]).sum(0)[None], PEOPLE, axis=0)
        store.put_vectors("candidate", NAMES, {block: near(alike) for block in EXTENDED.state}, NAMES)
    return str(uri)


def make_agents(path: Path, more: float = 0.0) -> str:
    """Of the first person: all jobs of a family are worth about the same, and the families differ by a tenth.

    more: what all jobs are worth beyond that, which makes it another run.
    """
    return make_run(path, {"p00": np.array([worth(job) + more for job in JOB_IDS], np.float32)}, JOB_IDS)


def worth(job_id: str) -> float:
    return 5.0 - ((family(job_id) - BEST) % FAMILIES) / 10 - JOB_IDS.index(job_id) / 1000


def told(store: str, satiation: float) -> list[dict[str, Any]]:
    """What all but the first two did in eight sessions with random jobs, more than a year ago."""
    with open_store(store, read_only=True) as opened:
        embedding = job_embedding(TensorCache.copy_from_database(opened)).double().numpy()
    rng, names = np.random.default_rng(0), NAMES[2:]
    people = People(PersonConfig(satiation=satiation), names, families_of(embedding), similar_rewards(embedding), 0)
    likes = np.where(rng.random((len(names), FAMILIES)) < 0.5, 0.9, 0.1)
    day, found = np.zeros(len(names)), []
    for _ in range(8):
        for nth in range(5):
            jobs = np.array([rng.choice(np.flatnonzero(row)) if row.any() else NO_JOB for row in people.open])
            rewards = people.look(jobs, np.array([likes[i, job // EACH] for i, job in enumerate(jobs)]))
            found += [
                {
                    "applicant_id": names[i],
                    "job_id": JOB_IDS[jobs[i]],
                    "event": min(VALUES, key=lambda event: abs(VALUES[event] - rewards[i])),
                    "at": (START + timedelta(days=float(day[i]), minutes=nth)).isoformat(),
                }
                for i in np.flatnonzero(~np.isnan(rewards))
            ]
        day += people.end_session()
    return found


def tell(store: str, satiation: float) -> None:
    records = [
        FeedbackEvent(**one | {"at": datetime.fromisoformat(one["at"]), "source": "", "key": str(key)})
        for key, one in enumerate(told(store, satiation))
    ]
    with open_feedback(store) as opened:
        opened.add_feedback(records)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return make_store(tmp_path / "store", HashEmbedder())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_agents(tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def client(store: str, run: Path) -> Iterator[TestClient]:
    tell(store, SATIATION)
    with serving(config(store, run, memory=True)) as client:
        yield client


def answer(client: Any, applicant: str = "p00", **query: Any) -> dict[str, Any]:
    response = client.get(f"/v1/applicants/{applicant}/recommendations", params=query)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def families(client: Any, applicant: str = "p00", **query: Any) -> list[int]:
    return [family(one["job_id"]) for one in answer(client, applicant, **query)["recommendations"]]


def listed(client: Any, **query: Any) -> list[str]:
    return [one["job_id"] for one in answer(client, **query)["recommendations"]]


def say(client: Any, job: str, event: str, applicant: str = "p00") -> None:
    sent = client.post("/v1/feedback", json={"applicant_id": applicant, "job_id": job, "event": event})
    assert sent.status_code == 201, sent.text


def without_key(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "exposure"}


def test_after_not_for_me_the_jobs_of_its_family_fall_and_undo_brings_them_back(client: TestClient) -> None:
    before = answer(client, k=20)
    assert families(client, k=EACH) == [BEST] * EACH
    say(client, before["recommendations"][0]["job_id"], "ignore")
    assert BEST not in families(client, k=EACH)
    assert BEST in families(client, k=len(JOB_IDS))  # they fall, and are not hidden
    said = {part["how"] for part in answer(client)["parts"]}
    assert "kinds of jobs moved by what the applicant acted on lately" in said
    say(client, before["recommendations"][0]["job_id"], "undo")
    assert without_key(answer(client, k=20)) == without_key(before)


def test_a_pinned_job_stays_first_and_a_blocked_one_away_when_their_family_falls(client: TestClient) -> None:
    declined, pinned, blocked = listed(client, k=3)
    for job, action in ((pinned, "pin"), (blocked, "block")):
        decision = {"job_id": job, "action": action, "operator": "op"}
        assert client.post("/v1/applicants/p00/decisions", json=decision).status_code == 201
    say(client, declined, "ignore")
    shown = listed(client, k=EACH)
    assert shown[0] == pinned
    assert BEST not in {family(job) for job in shown[1:]}
    assert not {declined, blocked} & set(listed(client, k=len(JOB_IDS)))


def test_a_wish_orders_what_the_history_leaves(client: TestClient) -> None:
    """Both count: the declined job's family falls, and yet the order is not the one without the wish."""
    wished = {"k": len(JOB_IDS), "preference": "something with people"}

    def places() -> list[int]:
        return [place for place, job in enumerate(listed(client, **wished)) if family(job) == BEST]

    before = places()
    say(client, listed(client, k=1)[0], "ignore")
    after = places()
    assert np.mean(after) > np.mean(before) + EACH / 2
    assert listed(client, k=len(JOB_IDS)) != listed(client, **wished)


def test_someone_without_an_agent_gets_lists_by_their_history_too(client: TestClient) -> None:
    first = answer(client, "p01", k=1)
    assert first["source"] == "warm-start"
    say(client, first["recommendations"][0]["job_id"], "ignore", "p01")
    assert family(first["recommendations"][0]["job_id"]) not in families(client, "p01", k=EACH)


def test_what_was_seen_long_ago_no_longer_counts(client: TestClient) -> None:
    before, old = answer(client, k=20), {"at": (START + timedelta(days=1)).isoformat()}
    job = before["recommendations"][-1]["job_id"]
    sent = client.post("/v1/feedback", json={"applicant_id": "p00", "job_id": job, "event": "save"} | old)
    assert sent.status_code == 201
    after = answer(client, k=20)["recommendations"]
    assert [one["job_id"] for one in after] == [one["job_id"] for one in before["recommendations"]]


def test_while_events_show_no_change_lists_are_those_without_a_memory(store: str, run: Path) -> None:
    tell(store, 0.0)
    found = []
    for on in (False, True):
        with serving(config(store, run, memory=on, explore=True)) as client:
            found.append([without_key(answer(client, name, k=20, explain=True)) for name in NAMES])
    assert found[0] == found[1]
    with open_store(store, read_only=True) as opened:
        kept = list(exposures(opened.exposures()))
    half = len(kept) // 2
    assert [one.propensities for one in kept[:half]] == [one.propensities for one in kept[half:]]
    assert REMEMBERED not in {one.policy for one in kept}


def test_exposures_have_the_probabilities_of_the_order_by_history_and_say_so(store: str, run: Path) -> None:
    tell(store, SATIATION)
    with serving(config(store, run, memory=True)) as client:
        job = answer(client, k=1)["recommendations"][0]["job_id"]
        say(client, job, "ignore")
        order = [one["job_id"] for one in answer(client, k=100)["recommendations"]]
    with serving(config(store, run, memory=True, explore=True)) as client:
        shown = answer(client, k=10, explain=True)
        again = answer(client, k=10, explain=True)
    assert again["recommendations"] == shown["recommendations"]
    with open_store(store, read_only=True) as opened:
        kept = {one.key: one for one in exposures(opened.exposures())}[shown["exposure"]]
    assert kept.policy == REMEMBERED
    chances = rank_probabilities(len(order))
    assert kept.propensities == tuple(chances[order.index(one), rank] for rank, one in enumerate(kept.job_ids))
    for one in shown["recommendations"]:
        assert one["explanation"]["q"] == pytest.approx(worth(one["job_id"]), abs=1e-5)  # of the agent, not the memory


def test_what_is_learned_from_and_ranked_anew_is_bounded(
    store: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(store, SATIATION)
    parts: list[tuple[int, int]] = []
    part = Catalogue.part

    def counted(catalogue: Catalogue, rows: np.ndarray, applicants: tuple[str, ...] = ()) -> Any:
        parts.append((len(rows), len(applicants)))
        return part(catalogue, rows, applicants)

    monkeypatch.setattr(Catalogue, "part", counted)
    monkeypatch.setattr(memory, "change_in", lambda events, cache: Change(cost=1.0))
    for name, most in (("LEARNED_JOBS", 20), ("LEARNED_PEOPLE", 12), ("OWN_EVENTS", 15)):
        monkeypatch.setattr(memory, name, most)
    with serving(config(store, run, memory=True)) as client:
        answer(client, NAMES[2])
    assert parts[0] == (20, 12)
    assert parts[1:] == [(len(JOB_IDS) + 15, 0)]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_service_learns_from_its_own_feedback_that_people_tire_and_shows_other_families(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", Encoder())
    make_agents(tmp_path / "run")
    events = told(store, SATIATION)
    with (
        served(tmp_path, memory=True, explore=False, poll_seconds=0.2) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        first = answer(client, k=EACH)
        assert {family(one["job_id"]) for one in first["recommendations"]} == {BEST}
        assert client.post("/v1/feedback", json={"events": events}).status_code == 201
        next_run = make_agents(tmp_path / "run", more=1.0)  # the run that it picks up next is when it learns
        until(lambda: client.get("/readyz").json()["run_id"] == next_run)
        say(client, first["recommendations"][0]["job_id"], "ignore")
        until(lambda: BEST not in families(client, k=EACH))
        say(client, first["recommendations"][0]["job_id"], "undo")
        assert families(client, k=EACH) == [BEST] * EACH
