"""Jobs on a real local cluster with authentication on: the same command, followed, with its exit code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from dynaq.errors import InputError
from jobs.cli import run
from jobs.submit import entrypoint, project_root, sent_code
from tests.support.markets import APPLICANTS, make_store

# Ports of its own: the test session's Ray has the usual ones.
HEAD = """
import socket, sys
from cluster import session
from ray.cluster_utils import Cluster
free = [socket.socket() for _ in range(2)]
for one in free:
    one.bind(("127.0.0.1", 0))
ports = [one.getsockname()[1] for one in free]
for one in free:
    one.close()
options = {"num_cpus": 4, "object_store_memory": 256 << 20, "include_dashboard": True}
options |= {"dashboard_port": ports[0], "dashboard_agent_listen_port": ports[1]}
cluster = Cluster(initialize_head=True, head_node_args=options)
print("ready", cluster.head_node.webui_url, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """URL of a cluster that runs beside the test session's Ray."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # jobs run the first `python` in it
    command = [sys.executable, "-c", HEAD]
    head = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PATH": path}
    )
    assert head.stdout is not None
    words = head.stdout.readline().split()
    yield f"http://{words[1]}"
    assert head.stdin is not None
    head.stdin.close()
    head.wait(timeout=60)


@pytest.mark.slow
def test_a_submitted_command_trains_and_its_output_is_followed(
    dashboard: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(str(tmp_path / "store"))
    command = [
        "train",
        "--store",
        f"{tmp_path}/store",
        "--strategy",
        "cosine",
        "--budget",
        "5",
        "--out",
        f"{tmp_path}/run",
    ]
    assert run(["submit", "--address", dashboard, "--", *command]) == 0
    assert re.search(rf"applicants trained +{APPLICANTS}", capsys.readouterr().out)
    assert pq.read_table(tmp_path / "run" / "recommendations.parquet").num_rows > 0


@pytest.mark.slow
def test_rays_own_command_does_the_same(dashboard: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text("id,title\n1,Cook\n")
    ray = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", dashboard]
    check = ["python", "-m", "jobs.ingest", "--store", f"{tmp_path}/store", "--jobs", f"{tmp_path}/jobs.csv"]
    command = [*ray, "--working-dir", str(project_root()), "--", *check, "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "jobs: 1 accepted" in done.stdout + done.stderr


@pytest.mark.slow
def test_the_exit_code_is_the_jobs_own(dashboard: str, tmp_path: Path) -> None:
    command = ["train", "--store", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")]
    assert run(["submit", "--address", dashboard, "--", *command]) == 2


@pytest.mark.slow
def test_a_stranger_without_the_token_cannot_submit(dashboard: str, tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "RAY_AUTH_TOKEN": "0" * 32}
    code = "import sys; from jobs.cli import run; sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "submit", "--address", dashboard, "--", "report", "--run", "x"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "job " not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("stops", [True, False])
def test_ctrl_c_ends_the_view_and_the_job_only_when_asked(dashboard: str, tmp_path: Path, stops: bool) -> None:
    make_store(str(tmp_path / "store"))
    config = tmp_path / "endless.yaml"
    config.write_text("warm_start_updates: 100000000\n")
    command = ["--", "train", "--store", f"{tmp_path}/store", "--strategy", "cosine", "--out", f"{tmp_path}/run"]
    option = ["--stop-on-interrupt"] if stops else []
    view = subprocess.Popen(
        [sys.executable, "-m", "jobs.submit", "--address", dashboard, *option, *command, "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ,
    )
    assert view.stdout is not None
    job = next(line.split()[1] for line in view.stdout if line.startswith("job "))
    client = JobSubmissionClient(dashboard)
    _until(lambda: client.get_job_status(job) == JobStatus.RUNNING)
    next(view.stdout)  # of the job: the command follows its output
    view.send_signal(signal.SIGINT)
    said = view.communicate(timeout=60)[0]
    assert view.returncode == 130
    if stops:
        assert "is being stopped" in said
        _until(lambda: client.get_job_status(job) == JobStatus.STOPPED)
    else:
        assert "keeps running" in said
        assert client.get_job_status(job) == JobStatus.RUNNING
        client.stop_job(job)


def _until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def test_only_commands_of_this_project_are_submitted() -> None:
    assert entrypoint(["train", "--out", "a b"]) == "python -m jobs.train --out 'a b'"
    with pytest.raises(InputError, match="'rm'"):
        entrypoint(["rm", "-rf", "x"])


def test_an_address_without_a_dashboard_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["submit", "--address", "http://127.0.0.1:1", "--", "report", "--run", "x"]) == 2
    assert "http://127.0.0.1:1" in capsys.readouterr().err


def test_a_working_tree_is_sent_and_the_folder_around_an_installed_wheel_is_not(tmp_path: Path) -> None:
    assert sent_code(project_root())["working_dir"] == str(project_root())
    assert sent_code(tmp_path) == {}
