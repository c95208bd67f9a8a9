"""Run folders: whole files or none, folders that appear when they are complete."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from dynaq.errors import InputError
from dynaq.runs.folder import RunFolder


def test_tables_yaml_and_json_come_back_as_they_were_written(tmp_path: Path) -> None:
    folder = RunFolder.at(tmp_path / "run")
    table = pa.table({"a": [1, 2]})
    folder.write_table("deep/table.parquet", table)
    folder.write_yaml("config.yaml", {"seed": 3})
    folder.write_json("agents/x.json", {"round": 1})
    assert folder.read_table("deep/table.parquet") == table
    assert (folder.read_yaml("config.yaml"), folder.read_json("agents/x.json")) == ({"seed": 3}, {"round": 1})


def test_a_missing_file_names_the_folder_and_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no metrics\.parquet"):
        RunFolder.at(tmp_path).read_table("metrics.parquet")


def test_a_folder_that_was_not_filled_to_the_end_never_appears(tmp_path: Path) -> None:
    folder = RunFolder.at(tmp_path / "run")

    def fail_halfway() -> None:
        with folder.new_folder("agents/block") as path:
            (path / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert folder.names("agents") == []


def test_a_new_folder_replaces_the_one_of_that_name(tmp_path: Path) -> None:
    folder = RunFolder.at(tmp_path / "run")
    for text in ("old", "new"):
        with folder.new_folder("agents/block") as path:
            (path / text).write_text(text)
    assert folder.names("agents/block") == ["new"]


def test_an_unknown_kind_of_uri_is_bad_input() -> None:
    with pytest.raises(InputError, match="nowhere"):
        RunFolder.at("nowhere://bucket/run")


def test_a_gcs_uri_is_a_run_folder_whose_trials_lie_in_it() -> None:
    """As far as it goes without Google: the filesystem is made, paths are right. S3 is used for real elsewhere."""
    folder = RunFolder.at("gs://anonymous@bucket/runs/one")
    filesystem, path = folder._place
    assert isinstance(filesystem, fs.GcsFileSystem)
    assert path == "bucket/runs/one"
    assert folder.local is None
    assert folder.child("llm-0")._place[1] == "bucket/runs/one/llm-0"


def test_a_table_in_parts_is_one_table_for_us_and_for_others(tmp_path: Path) -> None:
    folder = RunFolder.at(tmp_path)
    parts = [pa.table({"a": [f"{i:02d}", f"{i + 1:02d}"], "empty": [None, None]}) for i in range(0, 24, 2)]
    folder.write_table("t.parquet", parts[0])
    assert not folder.in_parts("t.parquet")
    folder.write_parts("t.parquet", iter(parts))
    assert folder.in_parts("t.parquet")
    for found in (folder.read_table("t.parquet"), pq.read_table(tmp_path / "t.parquet")):
        assert found.column("a").to_pylist() == [f"{i:02d}" for i in range(24)]
        assert found.schema.field("empty").type == pa.float64()
