from __future__ import annotations

from pathlib import Path

import pytest
from ray.tune.search.sample import Categorical, Float, Integer

from cluster.tuning.plan import Plan, make_searcher
from cluster.tuning.space import Space, read_space
from dynaq.agent.config import DynaQConfig
from dynaq.errors import InputError
from dynaq.runs.trials import label_of

GOOD = """
gamma: [0.8, 0.9]
learning_rate: {loguniform: [1e-4, 1e-2]}
planning_updates: {randint: [1, 10]}
q_hidden: {choice: [[64, 32], [128]]}
"""


def write(tmp_path: Path, text: str) -> str:
    (tmp_path / "space.yaml").write_text(text)
    return str(tmp_path / "space.yaml")


def test_a_space_is_tunes_own_words_over_the_configs_fields(tmp_path: Path) -> None:
    space = read_space(write(tmp_path, GOOD), DynaQConfig())
    assert space.drawn
    grid = space.grid()
    assert grid["gamma"] == {"grid_search": [0.8, 0.9]}
    rate = grid["learning_rate"]
    assert isinstance(rate, Float)
    assert (rate.lower, rate.upper) == (1e-4, 1e-2)
    assert isinstance(grid["planning_updates"], Integer)
    assert isinstance(space.domains()["gamma"], Categorical)
    for _ in range(20):
        assert DynaQConfig.load(None, {name: one.sample() for name, one in space.domains().items()})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gama: [0.8]", "gama"),
        ("gamma: [0.8, 1.8]", "gamma"),
        ("gamma: 0.8", "needs a list of values or one of uniform"),
        ("gamma: []", "needs a list of values"),
        ("gamma: {normal: [0, 1]}", "needs a list of values or one of uniform"),
        ("gamma: {uniform: [0.9, 0.8]}", "the lower bound first"),
        ("gamma: {uniform: [0.5, 1.5]}", "gamma"),
        ("learning_rate: {loguniform: [0, 1]}", "bounds above 0"),
        ("planning_updates: {randint: [1.5, 3]}", "whole numbers"),
        ("planning_updates: {randint: 3}", "randint needs a list"),
        ("seed: [1, 2]", "use --seeds"),
        ("", "must map settings"),
        ("- gamma", "must be a mapping"),
        ("gamma: [0.8", "cannot be read"),
    ],
)
def test_a_space_that_cannot_be_searched_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=r"space\.yaml.*" + message.replace("(", r"\(")):
        read_space(write(tmp_path, text), DynaQConfig())


def test_every_setting_is_tried_with_every_strategy_and_seed(tmp_path: Path) -> None:
    space = Space({"gamma": [0.8, 0.9], "ucb": [0.0, 0.3]})
    plan = Plan(("llm", "hybrid"), (3, 4), space)
    names = plan.names()
    assert len(names) == len(set(names)) == plan.size == 16
    assert names[0] == "llm-seed3-gamma=0.8-ucb=0"
    drawn = Plan(("llm", "hybrid"), (3, 4), space, samples=5, search="hyperopt")
    assert drawn.size == 20
    found = [drawn.trial({"gamma": 0.8, "ucb": 0.0, "__trial_index__": index}) for index in range(4)]
    assert [(one.strategy, one.seed) for one in found] == [("llm", 3), ("llm", 4), ("hybrid", 3), ("hybrid", 4)]
    assert Plan(("llm",)).names() == ["llm"]


def test_a_settings_name_is_fit_for_a_folder() -> None:
    assert label_of({"q_hidden": [64, 32], "loss": "a/../b"}) == "q_hidden=_64__32_-loss=a_.._b"


def test_a_searcher_without_its_package_is_an_input_error() -> None:
    with pytest.raises(InputError, match="--search optuna needs the package optuna"):
        make_searcher("optuna", 0)
    assert make_searcher("hyperopt", 0)
