from __future__ import annotations

import numpy as np
import pytest
import torch

from dynaq.agent.pair_features import scaled_cosines
from dynaq.agent.reward_strategy import RewardStrategy, make_strategy
from dynaq.errors import InputError
from dynaq.judging.judgement import expected_reward, judgement_from_probabilities
from tests.support.toy_market import ToyMarket, small_config


def weights(strategy: RewardStrategy, *judged: int) -> list[float]:
    return strategy.cosine_weight(torch.tensor(judged)).tolist()


def test_the_cosine_is_scaled_to_0_1(market: ToyMarket) -> None:
    scaled = scaled_cosines(market.cache, ["ann03"])[0].numpy()
    cosines = market.cache.calculate_cosine_similarities("ann03")
    np.testing.assert_allclose(scaled, (cosines + 1) / 2, atol=1e-6)
    assert cosines.min() < 0 < scaled.min()


def test_the_llm_reward_is_the_expected_value_of_the_labels() -> None:
    assert expected_reward((0.4, 0.3, 0.2, 0.1)) == pytest.approx(0.4 + 0.15 - 0.01)
    judgement = judgement_from_probabilities("a", "b", (0.4, 0.3, 0.2, 0.1), judge="toy")
    assert judgement.label == "APPLY"
    assert judgement.reward == pytest.approx(0.54)


def test_cosine_and_llm_are_the_two_ends() -> None:
    config = small_config()
    assert weights(make_strategy("cosine", config), 0, 10, 1000) == [1.0, 1.0, 1.0]
    assert weights(make_strategy("llm", config), 0, 10, 1000) == [0.0, 0.0, 0.0]
    assert [make_strategy(name, config).needs_judge for name in ("cosine", "llm", "hybrid")] == [False, True, True]


def test_hybrid_is_annealed_linearly() -> None:
    strategy = make_strategy("hybrid", small_config(w_initial=0.9, w_final=0.1, anneal_steps=40))
    assert weights(strategy, 0, 10, 20, 40, 400) == pytest.approx([0.9, 0.7, 0.5, 0.1, 0.1])


def test_the_switch_step_ends_annealing_at_once() -> None:
    strategy = make_strategy("hybrid", small_config(w_initial=0.9, w_final=0.1, anneal_steps=40, switch_step=15))
    assert weights(strategy, 0, 10, 14, 15, 40) == pytest.approx([0.9, 0.7, 0.62, 0.1, 0.1])


def test_a_blend_is_the_weighted_sum() -> None:
    strategy = make_strategy("hybrid", small_config())
    blended = strategy.blend(torch.tensor([0.5, 1.0]), torch.tensor([-0.1, 0.0]), torch.tensor([0.25]))
    torch.testing.assert_close(blended, torch.tensor([0.25 * 0.5 - 0.75 * 0.1, 0.25]))


def test_a_strategy_that_does_not_exist_is_named() -> None:
    with pytest.raises(InputError, match=r"'greedy' does not exist; use one of cosine, llm, hybrid"):
        make_strategy("greedy", small_config())
