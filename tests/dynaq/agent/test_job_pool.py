"""Agents over a few candidates of a larger catalogue, and over all of a small one as before."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynaq.agent.candidate_pool import CandidatePool
from dynaq.agent.checkpoint import load_block, save_block
from dynaq.agent.dyna_q import DynaQBlock
from dynaq.agent.job_pool import WholeCatalogue
from dynaq.agent.pair_features import job_embedding, pair_features, scaled_cosines, similarity_features
from dynaq.agent.reward_strategy import make_strategy
from dynaq.agent.stacked_mlp import agent_generator
from dynaq.job_index import with_index
from dynaq.judging.judgement import Judgement
from dynaq.tensor_cache import TensorCache
from tests.support.toy_market import GradeSource, ToyMarket, block_of, grade_judgement, small_config, toy_market

CPU = torch.device("cpu")
TRUSTING: dict[str, Any] = {"world_model": "trust", "weighting": "trust"}
FEW: dict[str, Any] = TRUSTING | {"candidates": 64, "planning_batch": 32}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ToyMarket:
    """600 jobs, of which an agent considers 64."""
    market = toy_market(tmp_path_factory.mktemp("large"), jobs=600, applicants=4, dimension=16)
    return ToyMarket(with_index(market.cache), market.grades, market.store)


def pool_of(cache: TensorCache, names: list[str], size: int = 64) -> CandidatePool:
    return CandidatePool(cache, names, size, CPU, [agent_generator(0, name, "test") for name in names])


@pytest.mark.parametrize("values", [TRUSTING, {}, {"world_model": "mlp"}, {"preset": "reference", "batch_size": 8}])
def test_in_a_catalogue_that_is_not_larger_the_setting_changes_no_bit(
    market: ToyMarket, values: dict[str, Any]
) -> None:
    found = []
    for candidates in (64, 1_000_000):  # the market has 60 jobs
        block = block_of(market, 3, "hybrid", candidates=candidates, **values)
        assert isinstance(block.pool, WholeCatalogue)
        assert block.candidates() is None
        found.append(block.fit(GradeSource(market.grades)).q_values())
    np.testing.assert_array_equal(*found)


def test_candidates_are_described_as_in_the_whole_catalogue(large: ToyMarket) -> None:
    """The sample is all of this catalogue, so nothing is an estimate."""
    cache, names = large.cache, ["ann00", "ann02"]
    pool = pool_of(cache, names)
    at = torch.from_numpy(pool.candidates)
    whole = scaled_cosines(cache, names)
    torch.testing.assert_close(pool.cosines, whole.gather(1, at), atol=1e-5, rtol=0)
    torch.testing.assert_close(pool.mean_cosine, whole.mean(1, keepdim=True), atol=1e-5, rtol=0)
    for ours, theirs in (
        (pool.features, pair_features(cache, names)),
        (pool.similarity_features(), similarity_features(cache, names, whole)),
    ):
        expected = theirs.gather(1, at[..., None].expand(-1, -1, theirs.shape[2]))
        torch.testing.assert_close(ours, expected, atol=2e-3, rtol=0)
    judged = torch.tensor([[3, 9, 20], [5, 0, 63]])
    embedding = job_embedding(cache)
    for slot, distances in enumerate(pool.distances(judged)):
        for agent in range(2):
            own = embedding[at[agent]]
            expected = (own - own[judged[agent, slot]]).square().sum(1)
            torch.testing.assert_close(distances[agent], expected, atol=1e-4, rtol=0)
    ours, theirs = pool.embedding(pool.candidates[0]), embedding[at[0]]
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T, atol=1e-4, rtol=0)


def test_the_first_candidates_are_the_most_similar_jobs_and_random_ones(large: ToyMarket) -> None:
    pool = pool_of(large.cache, ["ann01"])
    best, _ = large.cache.top_k("ann01", 40)
    assert np.isin(best, pool.candidates[0]).mean() > 0.9
    assert len(set(pool.candidates[0])) == 64
    assert not np.isin(pool.candidates[0], large.cache.top_k("ann01", 300)[0]).all()


def test_agents_find_what_does_not_resemble_their_texts(large: ToyMarket) -> None:
    """Applicants resemble one topic and want another; no job is asked about twice."""
    block = block_of(large, 4, "llm", budget=30, **FEW | {"world_model": "bayes", "planning_batch": 64})
    assert isinstance(block.pool, CandidatePool)
    source = GradeSource(large.grades)
    before = block.pool.candidates.copy()
    block.fit(source)
    assert len(set(source.asked)) == len(source.asked) == 4 * 30
    assert all((old != new).any() for old, new in zip(before, block.pool.candidates, strict=True))
    for applicant_id, ranked in zip(block.applicant_ids, block.recommendations(10), strict=True):
        grades = [large.grades[applicant_id][job_id] for job_id, _ in ranked]
        assert np.mean(grades) > 2.5, applicant_id
        assert [q for _, q in ranked] == sorted((q for _, q in ranked), reverse=True)


def test_every_job_comes_within_reach(large: ToyMarket) -> None:
    pool = pool_of(large.cache, ["ann00"])
    scores, kept = torch.arange(64.0)[None], torch.zeros(1, 64, dtype=torch.bool)
    last = set(np.argsort(large.cache.calculate_cosine_similarities("ann00"))[:100])
    seen: set[int] = set()
    for _ in range(100):
        pool.exchange([0], [[]], scores, kept)
        seen |= set(pool.candidates[0])
    assert len(last & seen) > 10


def test_places_that_are_kept_keep_their_job(large: ToyMarket) -> None:
    pool = pool_of(large.cache, ["ann00"])
    kept = torch.zeros(1, 64, dtype=torch.bool)
    kept[0, ::2] = True
    before = pool.candidates[0].copy()
    (agent, places), *rest = pool.exchange([0], [[3]], torch.zeros(1, 64), kept)
    assert (agent, rest) == (0, [])
    assert len(places) == 4
    assert not kept[0, torch.from_numpy(places)].any()
    np.testing.assert_array_equal(pool.candidates[0][::2], before[::2])
    assert len(set(pool.candidates[0])) == 64


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [FEW, FEW | {"world_model": "bayes"}, FEW | {"world_model": "mlp"}, FEW | {"preset": "reference", "batch_size": 8}],
    ids=["trust", "bayes", "mlp", "reference"],
)
def test_a_resumed_block_is_bit_equal_to_one_that_was_not_interrupted(
    large: ToyMarket, tmp_path: Path, values: dict[str, Any]
) -> None:
    whole = block_of(large, 3, "hybrid", **values).fit(GradeSource(large.grades))
    first = block_of(large, 3, "hybrid", **values)
    list(islice(first.rounds(GradeSource(large.grades)), 2))
    save_block(first, tmp_path)
    resumed = load_block(tmp_path, large.cache)
    assert torch.equal(resumed.model.mean, first.model.mean)
    resumed.fit(GradeSource(large.grades))
    assert resumed.candidates() is not None
    np.testing.assert_array_equal(resumed.candidates(), whole.candidates())
    np.testing.assert_array_equal(resumed.q_values(), whole.q_values())
    assert torch.equal(resumed.model.mean, whole.model.mean)


def test_an_agent_learns_the_same_alone_and_in_a_block(large: ToyMarket) -> None:
    together = block_of(large, 4, "llm", **FEW | {"world_model": "bayes"}).fit(GradeSource(large.grades))
    alone = block_of(large, 1, "llm", **FEW | {"world_model": "bayes"}).fit(GradeSource(large.grades))
    np.testing.assert_array_equal(together.candidates()[0], alone.candidates()[0])  # type: ignore[index]
    np.testing.assert_array_equal(together.q_values()[0], alone.q_values()[0])


def far_jobs(market: ToyMarket, applicant_id: str) -> list[Judgement]:
    """Answers on the ten jobs that resemble the applicant least."""
    order = np.argsort(market.cache.calculate_cosine_similarities(applicant_id))[:10]
    ids = [market.cache.job_ids[row] for row in order]
    return [grade_judgement(applicant_id, job_id, market.grades[applicant_id][job_id]) for job_id in ids]


def test_jobs_that_an_applicant_acted_on_are_candidates(large: ToyMarket) -> None:
    config = small_config(**FEW)
    done = far_jobs(large, "ann00")
    block = DynaQBlock(large.cache, ["ann00", "ann01"], make_strategy("llm", config), config, feedback=done)
    candidates = block.candidates()
    assert candidates is not None
    given = candidates[0][block.judged.jobs[0, :10].numpy()]
    assert [large.cache.job_id(row) for row in given] == [judgement.job_id for judgement in done]
    assert block.judged.given.tolist() == [10, 0]
    block.fit(GradeSource(large.grades))


def test_recorded_judgements_of_any_job_are_learned_from(large: ToyMarket) -> None:
    block = block_of(large, 2, "llm", **FEW)
    told = far_jobs(large, "ann01")
    block.learn_offline(told)
    candidates = block.candidates()
    assert candidates is not None
    assert block.judged.counts.tolist() == [0, 10]
    jobs = candidates[1][block.judged.jobs[1, :10].numpy()]
    assert {large.cache.job_id(row) for row in jobs} == {judgement.job_id for judgement in told}
