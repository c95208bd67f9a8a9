"""What simulated applicants do with their lists, and what agents know of the jobs that nobody was shown."""

from __future__ import annotations

import pytest

from dynaq.evaluation.intervals import paired_difference
from dynaq.feedback.events import events, exposures
from dynaq.qrels import Qrels
from dynaq.stores import open_store
from jobs.steps import visits
from jobs.steps.visits import VISITED, Taught, shown_jobs, taught, taught_words, visit
from recommend_service.simulation import Behaviour
from tests.support.toy_market import ToyMarket, toy_market


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> ToyMarket:
    return toy_market(tmp_path_factory.mktemp("visits") / "store")


@pytest.fixture(scope="module")
def qrels(market: ToyMarket) -> Qrels:
    return Qrels({one: {job: g for job, g in grades.items() if g > 0} for one, grades in market.grades.items()})


def test_people_act_on_what_they_were_shown_and_a_second_time_adds_nothing(market: ToyMarket, qrels: Qrels) -> None:
    shown = shown_jobs(market.cache, market.cache.applicant_ids)
    sent = visit(str(market.store), shown, qrels, Behaviour())
    assert visit(str(market.store), shown, qrels, Behaviour()) == sent
    with open_store(market.store, read_only=True) as store:
        done, lists = list(events(store.feedback())), list(exposures(store.exposures()))
    assert len(done) == sent
    assert {one.applicant_id: list(one.job_ids) for one in lists} == shown
    assert all(one.job_id in shown[one.applicant_id] for one in done)
    wanted = [one for one in done if one.event == "apply" and qrels.grades(one.applicant_id).get(one.job_id, 0) == 3]
    assert len(wanted) > 0.6 * sum(one.event == "apply" for one in done)
    assert {one.event for one in done} == {"apply", "save", "click", "ignore"}


def test_only_jobs_that_were_not_shown_count(market: ToyMarket, qrels: Qrels) -> None:
    people = market.cache.applicant_ids
    shown = {one: jobs[:4] for one, jobs in shown_jobs(market.cache, people).items()}
    ideal = {one: sorted(market.grades[one], key=lambda job: -market.grades[one][job]) for one in people}
    by_cosine = {one: [market.cache.job_ids[j] for j in market.cache.top_k(one, VISITED + 10)[0]] for one in people}
    # The shown jobs in front of each list: they are known, and must not make it better or worse.
    best = taught({one: shown[one] + ideal[one] for one in people}, market.cache, qrels, shown)
    assert best.agents == pytest.approx(1.0)
    same = taught(by_cosine, market.cache, qrels, shown)
    assert same.agents == same.cosine < best.agents
    assert best.difference.better == "a"


@pytest.mark.parametrize(
    ("agents", "words"),
    [
        ([0.5, 0.6, 0.7, 0.6], "rank the jobs that nobody was shown better: nDCG@10 there is 0.600, by cosine 0.300"),
        ([0.1, 0.0, 0.1, 0.0], "rank the jobs that nobody was shown worse"),
        ([0.9, 0.1, 0.3, 0.0], "The data cannot tell whether it helps"),
    ],
)
def test_the_words_say_no_more_than_the_interval(agents: list[float], words: str) -> None:
    cosine = [0.3, 0.2, 0.4, 0.3]
    found = Taught(sum(agents) / 4, sum(cosine) / 4, paired_difference(agents, cosine))
    said = taught_words(found, 4, 30)
    assert words in said
    assert f"their first {visits.VISITED} jobs by cosine and acted 30 times" in said
