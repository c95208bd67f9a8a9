"""Run folders on S3: a real S3 API (moto's server) through pyarrow's filesystem, trained into and read back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from dynaq.runs.folder import RunFolder
from jobs.cli import run
from tests.support.markets import make_ledger, make_store


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URI of an empty bucket, with `{}` for the folder."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "testing")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    query = f"?scheme=http&endpoint_override={host}:{port}&region=us-east-1&allow_bucket_creation=true"
    filesystem, path = fs.FileSystem.from_uri(f"s3://runs{query}")
    filesystem.create_dir(path)
    yield f"s3://runs/{{}}{query}"
    patch.undo()
    server.stop()


def test_files_and_folders_come_back_from_s3(bucket: str) -> None:
    folder = RunFolder.at(bucket.format("one"))
    folder.write_yaml("config.yaml", {"seed": 1})
    with folder.new_folder("agents/block_00000-0001") as path:
        (path / "weights").write_bytes(b"w" * 1000)
    with folder.as_local("agents/block_00000-0001") as path:
        assert (path / "weights").read_bytes() == b"w" * 1000
    assert folder.read_yaml("config.yaml") == {"seed": 1}
    folder.remove("agents/block_00000-0001")
    assert not folder.exists("agents/block_00000-0001/weights")


def test_a_child_keeps_the_query_of_its_parents_uri(bucket: str) -> None:
    child = RunFolder.at(bucket.format("two")).child("llm")
    child.write_json("x.json", [1])
    assert RunFolder.at(bucket.format("two/llm")).read_json("x.json") == [1]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session_fixture")
def test_a_run_on_s3_holds_what_the_same_run_on_disk_holds(bucket: str, tmp_path: Path) -> None:
    make_store(str(tmp_path / "store"))
    judge = f"ledger:{make_ledger(tmp_path / 'ledger.parquet')}"
    arguments = ["train", "--store", f"{tmp_path}/store", "--strategy", "llm", "--judge", judge, "--budget", "10"]
    assert run([*arguments, "--out", bucket.format("three")]) == 0
    assert run([*arguments, "--out", bucket.format("three"), "--resume"]) == 0
    assert run([*arguments, "--out", str(tmp_path / "disk")]) == 0
    remote = RunFolder.at(bucket.format("three"))
    assert remote.read_table("recommendations.parquet") == pq.read_table(tmp_path / "disk" / "recommendations.parquet")
    assert remote.exists("report.html")
    assert run(["evaluate", "--run", bucket.format("three"), "--json"]) == 0
