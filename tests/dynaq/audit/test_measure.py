"""Every contrast of an audit: the judge, similarity lists and agents' lists, before and after redaction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from dynaq.agent.reward_strategy import make_strategy
from dynaq.audit.attributes import ATTRIBUTES, CONTRASTS, GENDERED_TITLES, TITLE_CONTRASTS, Contrast
from dynaq.audit.counterfactuals import Variant, base_texts, gendered_postings, variants
from dynaq.audit.lists import (
    Lists,
    answers_as,
    cache_of,
    similarity_lists,
    slates_of,
    states_of,
    trained_lists,
)
from dynaq.audit.measure import BY_AGENTS, BY_SIMILARITY, Answers, Measured, Sample, measure, rows_of, rows_of_postings
from dynaq.judging.judgement import Judgement, abstention, judgement_from_probabilities
from dynaq.layout import BLOCK_DIM
from dynaq.records import Candidate
from dynaq.tensor_cache import TensorCache
from tests.support.embedders import HashEmbedder
from tests.support.toy_market import small_config, toy_market

PROFILES = [Candidate(id=f"p{i}", bio=f"I know trade {i} and more.", hard_skills=(f"skill {i}",)) for i in range(8)]
JOBS = 6
WOMEN = {
    line.split()[1]
    for level in ("white woman", "Black woman")
    for line in next(one for one in ATTRIBUTES if one.name == "name (US)").levels[level]
}


def reward_of(text: Candidate, job_id: str, bias: float) -> float:
    """Depends on the job and the skills; women's names cost `bias`."""
    base = 0.3 + 0.4 * (sum(map(ord, job_id + "".join(text.hard_skills))) % 10) / 10
    woman = bool(WOMEN & set(text.bio.split("\n")[0].split()))
    return base - bias * woman


def judged(made: Sequence[Variant], jobs: Sequence[Sequence[str]], bias: float) -> dict[tuple[str, str], Judgement]:
    found = {}
    for one in made:
        for job_id in jobs[one.profile]:
            p = reward_of(one.text, job_id, bias)
            answer = judgement_from_probabilities(one.text.id, job_id, [p, 0.0, 1.0 - p, 0.0], judge="test")
            found[one.text.id, job_id] = answer
    return found


class Audit:
    """A small audit on the toy market's catalogue."""

    def __init__(self, folder: Path) -> None:
        self.catalogue = toy_market(folder / "store").cache
        self.ids = [profile.id for profile in PROFILES]
        self.cache = self.cached(PROFILES)
        self.jobs = list(slates_of(self.cache, JOBS).values())
        self.config = small_config(budget=JOBS, slate_size=3, warm_start_updates=2)

    def cached(self, texts: Sequence[Candidate]) -> TensorCache:
        return cache_of(self.catalogue, self.ids, states_of(texts, self.catalogue, HashEmbedder().encode_queries))

    def rankers(self, answers: Answers) -> dict[str, Callable[[Sequence[Candidate]], Lists]]:
        strategy = make_strategy("llm", self.config)
        return {
            BY_SIMILARITY: lambda texts: similarity_lists(self.cached(texts)),
            BY_AGENTS: lambda texts: trained_lists(
                self.cached(texts), answers_as(self.ids, texts, answers), strategy, self.config
            ),
        }

    def measured(self, contrasts: Sequence[Contrast], kinds: Sequence[str], *, redact: bool) -> dict[str, Measured]:
        """All contrasts by a judge that is biased against women's names."""
        made = variants(PROFILES, ATTRIBUTES, redact=redact)
        answers = judged(made, self.jobs, bias=0.2)
        rankers = {kind: ranker for kind, ranker in self.rankers(answers).items() if kind in kinds}
        found = measure(contrasts, Sample(rows_of(made, self.jobs), answers), rankers, 2 * len(contrasts))
        return {one.contrast.name: one for one in found}


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return Audit(tmp_path_factory.mktemp("audit"))


def test_with_redaction_answers_and_lists_are_identical(audit: Audit) -> None:
    found = audit.measured(CONTRASTS, [BY_SIMILARITY], redact=True)
    found |= audit.measured(CONTRASTS[:2], [BY_SIMILARITY, BY_AGENTS], redact=True)
    for one in found.values():
        assert one.identical
        assert (one.reward.interval.mean, one.reward.interval.low, one.reward.interval.high) == (0.0, 0.0, 0.0)
        assert not one.reward.found
        assert one.impact.ratio.mean == 1.0
        assert (one.labels.mean, one.overlap.mean) == (0.0, pytest.approx(1.0))
        for lists in one.lists.values():
            assert lists.overlap.mean == pytest.approx(1.0)
            assert lists.changed.mean == 0.0


def test_without_redaction_a_biased_judge_shows_on_answers_and_agents(audit: Audit) -> None:
    gender, race, placebo = CONTRASTS[1], CONTRASTS[0], CONTRASTS[-1]
    found = audit.measured([gender, race, placebo], [BY_SIMILARITY, BY_AGENTS], redact=False)
    hit = found[gender.name]
    assert not hit.identical
    assert hit.reward.found
    assert hit.reward.interval.mean == pytest.approx(-0.2, abs=0.01)
    assert hit.impact.other < hit.impact.reference
    assert hit.lists[BY_AGENTS].expected is not None
    assert hit.lists[BY_AGENTS].expected.found
    assert hit.lists[BY_AGENTS].expected.interval.mean < -0.02
    assert hit.lists[BY_SIMILARITY].expected is None
    for fair in (found[race.name], found[placebo.name]):
        assert not fair.reward.found
        assert fair.reward.interval.mean == pytest.approx(0.0, abs=1e-9)
    assert found[placebo.name].lists[BY_SIMILARITY].overlap.mean < 1.0


def test_an_abstention_leaves_the_pair_out_on_both_sides(audit: Audit) -> None:
    made = variants(PROFILES, ATTRIBUTES, redact=False)
    contrast = CONTRASTS[4]
    answers: dict[tuple[str, str], Judgement] = dict(judged(made, audit.jobs, 0.0))
    silent = next(one for one in made if one.level == contrast.other[0])
    for job_id in audit.jobs[silent.profile][:2]:
        answers[silent.text.id, job_id] = abstention(silent.text.id, job_id, judge="test", note="")
    [found] = measure([contrast], Sample(rows_of(made, audit.jobs), answers), {}, 1)
    assert found.pairs == len(PROFILES) * JOBS - 2
    assert found.reward.interval.mean == 0.0
    [none] = measure([contrast], Sample(rows_of(made, audit.jobs), {}), {}, 1)
    assert none.pairs == 0
    assert math.isnan(none.reward.interval.mean)


def test_postings_are_compared_by_the_gender_of_their_title() -> None:
    postings = gendered_postings()
    rows = {GENDERED_TITLES.name: rows_of_postings(base_texts(PROFILES), postings)}
    answers = {
        (text.id, job.id): judgement_from_probabilities(text.id, job.id, [p, 0.0, 1 - p, 0.0], judge="test")
        for text in base_texts(PROFILES)
        for level, p in (("masculine", 0.6), ("feminine", 0.5), ("neutral", 0.6))
        for job in postings[level]
    }
    feminine, neutral = measure(TITLE_CONTRASTS, Sample(rows, answers), {}, 2)
    assert (feminine.reward.found, neutral.reward.found) == (True, False)
    assert feminine.reward.interval.mean == pytest.approx(-0.1)
    assert not feminine.identical
    assert not feminine.contrast.decides


def test_slates_are_near_and_random_jobs_of_each_profile(audit: Audit) -> None:
    slates = slates_of(audit.cache, JOBS)
    assert {len(set(own)) for own in slates.values()} == {JOBS}
    for applicant_id, own in slates.items():
        near = [audit.cache.job_id(int(row)) for row in audit.cache.top_k(applicant_id, JOBS // 2)[0]]
        assert list(own[: JOBS // 2]) == near
    assert slates == slates_of(audit.cache, JOBS)
    assert {len(own) for own in slates_of(audit.cache, 10_000).values()} == {audit.cache.n_jobs}


def test_a_cache_with_other_applicants_keeps_the_catalogue(audit: Audit) -> None:
    assert audit.cache.applicant_ids == tuple(audit.ids)
    assert np.array_equal(audit.cache.jobs, audit.catalogue.jobs)
    assert audit.cache.applicants.shape == (len(PROFILES), 3 * BLOCK_DIM)
    cosines = audit.cache.block_similarities("p0")
    state = audit.cache.get_applicant_state("p0").numpy()[:BLOCK_DIM]
    job = audit.cache.jobs[0][:BLOCK_DIM]
    assert cosines[0, 0] == pytest.approx(float(state @ job / np.linalg.norm(state) / np.linalg.norm(job)), abs=1e-6)
