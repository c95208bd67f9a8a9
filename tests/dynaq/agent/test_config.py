from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dynaq.agent.config import DynaQConfig
from dynaq.errors import InputError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_values_come_from_preset_then_file_then_flags(tmp_path: Path) -> None:
    path = written(tmp_path, "preset: reference\nbudget: 70\ngamma: 0.5\nq_hidden: [128, 64]\n")
    config = DynaQConfig.load(path, {"budget": 80, "seed": None})
    assert config.model_hidden == (1024, 512)
    assert config.epsilon_start == 1.0
    assert config.gamma == 0.5
    assert config.q_hidden == (128, 64)
    assert config.budget == 80
    assert config.seed == 0


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert DynaQConfig.load(written(tmp_path, "")) == DynaQConfig()


def test_the_reference_preset_has_the_textbook_values() -> None:
    config = DynaQConfig.load(None, {"preset": "reference"})
    assert (config.q_hidden, config.model_hidden) == ((1024, 512, 256), (1024, 512))
    assert (config.dropout, config.learning_rate, config.gamma, config.batch_size) == (0.2, 1e-3, 0.9, 64)
    assert (config.epsilon_start, config.epsilon_end, config.epsilon_decay) == (1.0, 0.01, 0.995)
    assert config.planning_updates == 5


def test_what_a_run_folder_keeps_loads_again(tmp_path: Path) -> None:
    config = DynaQConfig.load(None, {"preset": "reference", "switch_step": 5, "label_values": VALUES})
    path = written(tmp_path, yaml.safe_dump(config.model_dump(mode="json")))
    assert DynaQConfig.load(path) == config


def test_a_file_of_an_older_run_still_loads(tmp_path: Path) -> None:
    assert DynaQConfig.load(written(tmp_path, "replay_capacity: 100000\nbudget: 7\n")) == DynaQConfig(budget=7)
    assert DynaQConfig(**DynaQConfig().model_dump(mode="json"), replay_capacity=100_000) == DynaQConfig()


VALUES = {"APPLY": 2.0, "SAVE": 0.5, "CLICK": 0.0, "IGNORE": -1.0}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"budget": 0}, "budget"),
        ({"budget": "many"}, "budget"),
        ({"slate_size": -1}, "slate_size"),
        ({"gamma": 1.0}, "gamma"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"q_hidden": [64, 0]}, "q_hidden"),
        ({"dropout": 1.0}, "dropout"),
        ({"loss": "l1"}, "loss"),
        ({"world_model": "oracle"}, "world_model"),
        ({"bugdet": 5}, "bugdet"),
        ({"epsilon_start": 0.1, "epsilon_end": 0.5}, "epsilon_end"),
        ({"label_values": {"APPLY": 1.0}}, "label_values"),
        ({"label_values": {"LIKE": 1.0}}, "label_values"),
        ({"preset": "textbook"}, "preset 'textbook'"),
        ({"preset": ["reference"]}, "preset"),
        ({"budget": 0, "gamma": 2}, "gamma"),
        ({7: 1}, "7"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_by_name(values: dict[Any, Any], named: str) -> None:
    with pytest.raises(InputError, match=named) as error:
        DynaQConfig.load(None, values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"), [("- budget\n", "expected `name: value` lines"), ("budget: [1\n", "config.yaml"), ("5", "int")]
)
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DynaQConfig.load(written(tmp_path, text))
    with pytest.raises(InputError, match=r"absent\.yaml"):
        DynaQConfig.load(tmp_path / "absent.yaml")
