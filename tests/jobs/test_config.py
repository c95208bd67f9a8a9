"""What `dynaq config` prints is every setting with a meaning, and a file that the command takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynaq.agent.config import DynaQConfig
from dynaq.settings import meanings
from jobs.cli import run
from recommend_service.config import RecommendConfig
from reward_service.config import JudgeConfig

MODELS = {"agents": DynaQConfig, "judge": JudgeConfig, "recommender": RecommendConfig}


@pytest.mark.parametrize("kind", MODELS)
def test_every_setting_has_a_meaning(kind: str) -> None:
    assert [name for name, meaning in meanings(MODELS[kind]).items() if not meaning] == []


@pytest.mark.parametrize("model", [DynaQConfig, JudgeConfig])
def test_what_is_printed_is_a_file_with_the_defaults(
    model: type[DynaQConfig | JudgeConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = next(name for name, one in MODELS.items() if one is model)
    assert run(["config", "--show", "--of", kind]) == 0
    path = tmp_path / "settings.yaml"
    path.write_text(capsys.readouterr().out)
    assert model.load(path) == model()
    assert all(f"\n{name}: " in path.read_text() for name in model.model_fields)


def test_all_kinds_are_printed_unless_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "--show"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("# ") and "--config FILE)" in line] == [
        *MODELS
    ]
    assert "# distinct pairs that may be judged per applicant\nbudget: 50\n" in out
    assert "; one of trust, bayes, mlp" in out
    assert "# store: (must be given)" in out
