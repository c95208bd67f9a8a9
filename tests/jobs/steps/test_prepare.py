from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dynaq.agent.config import DynaQConfig
from dynaq.errors import InputError
from dynaq.runs.folder import CONFIG, RunFolder
from jobs.steps.prepare import open_run


def settings(**values: Any) -> dict[str, Any]:
    return {"strategy": "llm", "config": DynaQConfig(**values).model_dump(mode="json")}


def test_a_run_is_resumed_with_its_own_options_only(tmp_path: Path) -> None:
    folder = RunFolder.at(str(tmp_path / "run"))
    open_run(folder, settings(), resume=False)
    open_run(folder, settings(), resume=True)
    with pytest.raises(InputError, match="another config"):
        open_run(folder, settings(gamma=0.5), resume=True)


def test_a_run_that_an_older_version_began_can_be_resumed(tmp_path: Path) -> None:
    folder = RunFolder.at(str(tmp_path / "run"))
    older = settings()
    older["config"]["replay_capacity"] = 100_000
    folder.write_yaml(CONFIG, older)
    open_run(folder, settings(), resume=True)
    with pytest.raises(InputError, match="another config"):
        open_run(folder, settings(gamma=0.5), resume=True)
