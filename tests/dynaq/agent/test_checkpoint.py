from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynaq.agent.checkpoint import NAME, load_block, save_block, without_agent
from dynaq.agent.dyna_q import DynaQBlock
from dynaq.errors import InputError
from dynaq.tensor_cache import TensorCache
from tests.support.toy_market import ABSTAINED, GradeSource, ToyMarket, block_of, toy_market

TRUSTING = {"world_model": "trust", "weighting": "trust"}
EXPLORING: dict[str, Any] = {"epsilon_start": 0.5, "epsilon_end": 0.1, "dropout": 0.3, "target_sync": 2, "tau": 0.5}


def records(block: DynaQBlock, source: GradeSource, rounds: int = 100) -> list[str]:
    return [repr(record) for one in islice(block.rounds(source), rounds) for record in one]


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3, 4])
@pytest.mark.parametrize(
    "values",
    [
        TRUSTING,
        EXPLORING,
        EXPLORING | {"preset": "reference", "batch_size": 8},
        EXPLORING | {"world_model": "mlp", "loss": "huber", "double_q": True},
        {"judge_noise": 0.3, "planning_batch": 16},
    ],
    ids=["trust", "bayes", "reference", "mlp", "noisy"],
)
def test_a_resumed_block_is_bit_equal_to_one_that_was_not_interrupted(
    market: ToyMarket, tmp_path: Path, values: dict[str, Any], after: int
) -> None:
    """Records, Q, weights, and what was asked, with agents that advance unevenly."""
    whole, source = block_of(market, 4, "hybrid", **values), GradeSource(market.grades, ABSTAINED)
    expected = records(whole, source)
    first, first_source = block_of(market, 4, "hybrid", **values), GradeSource(market.grades, ABSTAINED)
    begun = records(first, first_source, after)
    save_block(first, tmp_path)
    resumed = load_block(tmp_path, market.cache)
    np.testing.assert_array_equal(resumed.q_values(), first.q_values())
    second_source = GradeSource(market.grades, ABSTAINED)
    assert begun + records(resumed, second_source) == expected
    assert first_source.asked + second_source.asked == source.asked
    np.testing.assert_array_equal(resumed.q_values(), whole.q_values())
    for name, tensor in whole.q.state().items():
        assert torch.equal(resumed.q.state()[name], tensor), name
    assert torch.equal(resumed.model.mean, whole.model.mean)


def test_a_checkpoint_changes_nothing_in_the_block_that_is_saved(market: ToyMarket, tmp_path: Path) -> None:
    plain, saved = block_of(market, 4, "hybrid", **EXPLORING), block_of(market, 4, "hybrid", **EXPLORING)
    for _ in range(4):
        plain.step(GradeSource(market.grades))
        saved.step(GradeSource(market.grades))
        save_block(saved, tmp_path)
    np.testing.assert_array_equal(plain.q_values(), saved.q_values())


def test_strategy_config_and_failures_come_back(market: ToyMarket, tmp_path: Path) -> None:
    block = block_of(market, 4, "hybrid", w_initial=0.7, switch_step=3)
    block.step(GradeSource(market.grades))
    block.failures["ann02"] = "a reason"
    save_block(block, tmp_path)
    loaded = load_block(tmp_path, market.cache)
    assert loaded.config == block.config
    assert loaded.strategy == block.strategy
    assert loaded.failures == {"ann02": "a reason"}
    assert (loaded.round, loaded.cumulative) == (1, block.cumulative)
    assert [r.applicant_id for r in loaded.step(GradeSource(market.grades))] == ["ann00", "ann01", "ann03"]


def test_the_cosine_strategy_resumes_too(market: ToyMarket, tmp_path: Path) -> None:
    whole, half = block_of(market, 4, "cosine"), block_of(market, 4, "cosine")
    half.step()
    save_block(half, tmp_path)
    resumed = load_block(tmp_path, market.cache)
    whole.fit()
    resumed.fit()
    np.testing.assert_array_equal(resumed.q_values(), whole.q_values())


def test_a_finished_block_recommends_the_same(market: ToyMarket, tmp_path: Path) -> None:
    """Also the agents that were done while others of their block went on."""
    block = block_of(market, 4, "hybrid")
    records(block, GradeSource(market.grades, ABSTAINED))
    save_block(block, tmp_path)
    assert load_block(tmp_path, market.cache).recommendations(10) == block.recommendations(10)


def test_a_folder_that_is_no_checkpoint_of_this_catalogue_is_refused(market: ToyMarket, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_block(tmp_path / "absent", market.cache)
    save_block(block_of(market, 4, "hybrid"), tmp_path)
    other = toy_market(tmp_path / "other", jobs=7, applicants=4)
    with pytest.raises(InputError, match="60 jobs in the extended layout, the store has 7"):
        load_block(tmp_path, other.cache)
    record = json.loads((tmp_path / f"{NAME}.json").read_text())
    (tmp_path / f"{NAME}.json").write_text(json.dumps(record | {"version": 99}))
    with pytest.raises(InputError, match="version 99"):
        load_block(tmp_path, market.cache)
    (tmp_path / f"{NAME}.safetensors").write_bytes(b"cut off")
    with pytest.raises(InputError, match="cannot be read"):
        load_block(tmp_path, market.cache)


@pytest.mark.parametrize(
    "values", [TRUSTING, EXPLORING, EXPLORING | {"world_model": "mlp"}], ids=["trust", "bayes", "mlp"]
)
def test_agents_learn_from_vectors_of_any_dimension(tmp_path: Path, values: dict[str, Any]) -> None:
    market = toy_market(tmp_path / "store", dimension=50)
    block = block_of(market, 4, "hybrid", **values)
    assert records(block, GradeSource(market.grades))
    save_block(block, tmp_path / "block")
    np.testing.assert_array_equal(load_block(tmp_path / "block", market.cache).q_values(), block.q_values())


def test_a_checkpoint_of_another_encoder_is_refused(market: ToyMarket, tmp_path: Path) -> None:
    save_block(block_of(market, 4, "hybrid"), tmp_path / "block")
    other = toy_market(tmp_path / "store", dimension=50)
    with pytest.raises(InputError, match="384 numbers, the store has 50"):
        load_block(tmp_path / "block", other.cache)
    manifest, arrays = market.cache.to_arrays()
    one, two = (TensorCache.from_arrays(manifest | {"encoder": name}, arrays) for name in ("one", "two"))
    save_block(block_of(replace(market, cache=one), 4, "hybrid"), tmp_path / "of-one")
    load_block(tmp_path / "of-one", one)
    with pytest.raises(InputError, match="encoder one, the store has those of two"):
        load_block(tmp_path / "of-one", two)
    record = json.loads((tmp_path / "block" / f"{NAME}.json").read_text())
    for key in ("block_dim", "encoder"):
        del record[key]
    (tmp_path / "block" / f"{NAME}.json").write_text(json.dumps(record))
    load_block(tmp_path / "block", market.cache)  # as written before these fields were recorded


@pytest.mark.parametrize("values", [TRUSTING, EXPLORING | {"world_model": "mlp"}], ids=["trust", "mlp"])
def test_a_block_without_one_agent_goes_on_with_the_others_as_they_were(
    market: ToyMarket, tmp_path: Path, values: dict[str, Any]
) -> None:
    block, source = block_of(market, 4, "llm", **values), GradeSource(market.grades, ABSTAINED)
    records(block, source, 2)
    gone = block.applicant_ids[1]
    save_block(block, tmp_path / "all")
    without_agent(tmp_path / "all", tmp_path / "left", gone)
    left = load_block(tmp_path / "left", market.cache)
    assert list(left.applicant_ids) == [one for one in block.applicant_ids if one != gone]
    np.testing.assert_allclose(left.q_values(), np.delete(block.q_values(), 1, axis=0), rtol=1e-5)
    further = GradeSource(market.grades, ABSTAINED)
    records(left, further)
    assert further.asked
    assert {one for one, _ in further.asked} == set(left.applicant_ids)
    if values.get("world_model") == "mlp":  # agents of which none shares an estimate of the judge
        whole = GradeSource(market.grades, ABSTAINED)
        records(block, whole)
        assert further.asked == [pair for pair in whole.asked if pair[0] != gone]
    assert gone not in (tmp_path / "left" / "block.json").read_text()
