from __future__ import annotations

import torch

from dynaq.agent.replay_buffer import JudgedPairs
from dynaq.judging.judgement import abstention, judgement_from_probabilities


def filled() -> JudgedPairs:
    pairs = JudgedPairs(2, 10, 4, torch.device("cpu"))
    answers = [
        judgement_from_probabilities("a", "3", (1, 0, 0, 0), judge="toy"),
        abstention("a", "5", judge="toy", note=""),
        judgement_from_probabilities("b", "3", (0, 1, 0, 0), judge="toy"),
        judgement_from_probabilities("a", "7", (0, 0, 1, 1), judge="toy"),
    ]
    pairs.add([0, 0, 1, 0], [3, 5, 3, 7], answers)
    return pairs


def test_each_pair_goes_into_its_agents_next_slot() -> None:
    pairs = filled()
    assert pairs.counts.tolist() == [2, 1]
    assert pairs.jobs[0, :2].tolist() == [3, 7]
    assert pairs.jobs[1, :1].tolist() == [3]
    torch.testing.assert_close(pairs.rewards[0, :2], torch.tensor([1.0, -0.05]))
    torch.testing.assert_close(pairs.probabilities[0, 1], torch.tensor([0.0, 0.0, 0.5, 0.5]))
    pairs.add([1], [9], [judgement_from_probabilities("b", "9", (1, 0, 0, 0), judge="toy")])
    assert pairs.jobs[1, :2].tolist() == [3, 9]
    assert pairs.longest == 2


def test_an_abstention_is_remembered_as_asked_and_nothing_else() -> None:
    pairs = filled()
    assert pairs.asked[0].nonzero().flatten().tolist() == [3, 5, 7]
    assert pairs.asked[1].nonzero().flatten().tolist() == [3]
    assert 5 not in pairs.jobs[0].tolist()


def test_nothing_but_abstentions_leaves_the_slots_empty() -> None:
    pairs = JudgedPairs(1, 10, 4, torch.device("cpu"))
    pairs.add([0], [2], [abstention("a", "2", judge="toy", note="")])
    assert pairs.longest == 0
    assert pairs.valid().shape == (1, 0)


def test_masks_tell_pairs_from_padding() -> None:
    pairs = filled()
    assert pairs.valid().tolist() == [[True, True], [True, False]]
    assert pairs.filled().tolist() == [[True, True, False, False], [True, False, False, False]]


def test_pairs_whose_reward_is_known_need_no_judge() -> None:
    pairs = JudgedPairs(1, 10, 4, torch.device("cpu"))
    pairs.add_known([0, 0], [4, 6], [0.25, 0.75])
    torch.testing.assert_close(pairs.rewards[0, :2], torch.tensor([0.25, 0.75]))
    assert pairs.asked[0].nonzero().flatten().tolist() == [4, 6]


def test_state_restores_everything() -> None:
    pairs, copy = filled(), JudgedPairs(2, 10, 4, torch.device("cpu"))
    copy.load_state(pairs.state())
    assert all(torch.equal(copy.state()[name], tensor) for name, tensor in pairs.state().items())
    copy.add_known([0], [1], [0.5])
    assert pairs.counts.tolist() == [2, 1]
