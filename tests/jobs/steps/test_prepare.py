from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dynaq.agent.config import DynaQConfig
from dynaq.errors import InputError
from dynaq.records import Candidate
from dynaq.runs.folder import CONFIG, RunFolder
from dynaq.stores import open_store
from jobs.steps.cohort import read_cohort
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


def test_a_cohort_of_many_ids_is_no_file_name(tmp_path: Path) -> None:
    """Together they are longer than any name of a file may be."""
    ids = [f"applicant-{n:04d}" for n in range(400)]
    with open_store(tmp_path / "store", create=True) as store:
        store.put_records("candidate", (Candidate(id=one, bio="A person.") for one in ids))
        assert read_cohort(", ".join(reversed(ids)), store) == ids[::-1]
