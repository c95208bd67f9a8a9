from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dynaq.agent.config import DynaQConfig
from dynaq.errors import InputError
from dynaq.settings import load_settings
from recommend_service.config import RecommendConfig
from reward_service.config import JudgeConfig


class Engine(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    size: int = Field(default=3, gt=0)
    key: int | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _small(self) -> Engine:
        if self.size > 9:
            raise ValueError("size must be below 10")
        return self


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "engine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_values_come_from_defaults_then_preset_then_file_then_flags(tmp_path: Path) -> None:
    presets = {"default": {"name": "d"}, "large": {"name": "l", "size": 8}}
    path = written(tmp_path, "size: 5\n")
    assert load_settings(Engine, "engine", presets=presets) == Engine(name="d")
    assert load_settings(Engine, "engine", path, {"preset": "large"}, presets) == Engine(name="l", size=5)
    assert load_settings(Engine, "engine", path, {"name": "n", "size": None}) == Engine(name="n", size=5)
    assert load_settings(Engine, "engine", path, {"name": "n", "size": 7}) == Engine(name="n", size=7)
    assert load_settings(Engine, "engine", written(tmp_path, "# nothing\n"), {"name": "n"}) == Engine(name="n")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "n", "size": 0}, r"^engine: size: .* greater than 0 \(got 0\)$"),
        ({"name": 5, "size": "x"}, r"^engine: name: .*\(got 5\); size: .*\(got 'x'\)$"),
        ({}, "^engine: needs name; name it with --name or in the file$"),
        ({"name": "n", "size": 10}, "^engine: size must be below 10$"),
        ({"name": "n", "sise": 1}, r"^engine: sise: there is no such setting; did you mean 'size'\?$"),
        ({"name": "n", "wings": 1}, "^engine: wings: there is no such setting$"),
    ],
)
def test_every_wrong_field_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_settings(Engine, "engine", None, values)


@pytest.mark.parametrize("field", ["key", "kye"])
def test_a_key_is_not_shown_even_under_a_wrong_name(field: str) -> None:
    with pytest.raises(InputError, match=field) as error:
        load_settings(Engine, "engine", None, {"name": "n", field: "s3cret"})
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (DynaQConfig, "configuration"),
        (JudgeConfig, "judge configuration"),
        (RecommendConfig, "recommender configuration"),
    ],
)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("size: [1\n", "engine.yaml' cannot be read: "),
        ("- size\n", "engine.yaml' must be a mapping: expected `name: value` lines, found list"),
        ("7", "engine.yaml' must be a mapping: expected `name: value` lines, found int"),
        ("sise: 1\n", "sise: there is no such setting"),
    ],
)
def test_all_configurations_say_the_same_about_a_file(
    tmp_path: Path, model: type[DynaQConfig | JudgeConfig | RecommendConfig], what: str, text: str, reason: str
) -> None:
    with pytest.raises(InputError) as error:
        model.load(written(tmp_path, text))
    assert str(error.value).startswith(what)
    assert reason in str(error.value)
    with pytest.raises(InputError, match=rf"^{what} .*absent\.yaml' cannot be read"):
        model.load(tmp_path / "absent.yaml")
