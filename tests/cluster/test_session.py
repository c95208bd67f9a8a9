"""The Ray session: closed to the network, authenticated, and only ever shuts down what it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import joblib
import psutil
import pytest
import ray

from cluster.session import CORES, GIB, MIN_CPUS, object_store_bytes, ray_session, real_cores

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


@pytest.mark.usefixtures("ray_session_fixture")
def test_nothing_of_a_local_ray_listens_beyond_loopback() -> None:
    listening = {
        connection.laddr.ip
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening
    assert listening.issubset(LOOPBACK)


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_process_without_the_token_is_turned_away(tmp_path: Path) -> None:
    # Straight to the control store: ray.init would replace a loopback address and never get as far as the token.
    address = ray.get_runtime_context().gcs_address
    code = f"from ray._raylet import GcsClient; GcsClient(address={address!r}).internal_kv_keys(b'', None)"
    ours = os.environ | {"RAY_AUTH_MODE": "token"}
    theirs = ours | {"HOME": str(tmp_path), "RAY_AUTH_TOKEN": "0" * 32}
    friend, stranger = (
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
        for environment in (ours, theirs)
    )
    assert friend.returncode == 0, friend.stderr
    assert stranger.returncode != 0
    assert "auth" in stranger.stderr.lower()


@pytest.mark.usefixtures("ray_session_fixture")
def test_a_ray_that_is_connected_already_is_left_running() -> None:
    with ray_session():
        assert ray.is_initialized()
    assert ray.is_initialized()


def test_an_address_without_a_cluster_is_bad_input_that_names_it() -> None:
    code = "from cluster.session import ray_session; ray_session('127.0.0.1:1').__enter__()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "InputError: no Ray cluster answers at '127.0.0.1:1'" in done.stderr


@pytest.mark.slow
def test_a_signal_to_the_group_ends_the_command_and_its_ray_without_a_stack_trace() -> None:
    code = (
        "import ray, time\nfrom cluster.session import ray_session\ntry:\n    with ray_session():\n"
        "        waiting = ray.remote(lambda: time.sleep(100)).remote()\n        print('up', flush=True)\n"
        "        ray.get(waiting)\nexcept KeyboardInterrupt:\n    print('interrupted')"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert command.stdout is not None
    while (line := command.stdout.readline()) != "up\n":  # on a busy machine Ray has something to say first
        assert line, "Ray did not start"
    started = psutil.Process(command.pid).children(recursive=True)
    assert all(os.getpgid(one.pid) != command.pid for one in started if one.is_running())
    os.killpg(command.pid, signal.SIGTERM)
    told, _ = command.communicate(timeout=60)
    assert (command.returncode, told.splitlines()[-1]) == (0, "interrupted")
    assert "Traceback" not in told
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive


def test_a_local_ray_says_how_many_cores_there_are_whatever_it_may_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, object] = {}
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **given: told.update(given))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    with ray_session():
        assert (told["num_cpus"], told["resources"]) == (MIN_CPUS, {CORES: 2})
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, CORES: 2.0})
    assert real_cores() == 2
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 64.0})
    assert real_cores() == 64


def test_the_object_store_is_bounded(tmp_path: Path) -> None:
    assert GIB // 4 <= object_store_bytes(tmp_path) <= 2 * GIB
