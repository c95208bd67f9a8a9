"""Joining a Ray cluster, or starting one on this machine for as long as a command runs."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

# Ray reads these at import, here and in the processes that it starts. `_raylet.Config.initialize` below reads them
# again in case ray was imported before this module.
os.environ.setdefault("RAY_AUTH_MODE", "token")  # nobody on the network joins or submits without ~/.ray/auth_token
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "30")  # its 5 s are too few on a busy machine
# Serve's controller asks for all nodes and their resources in each round; every 0.1 s, that is a load without a call.
os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.5")

import joblib
import ray
from ray import _raylet
from ray._private import services

from dynaq.errors import DynaqError, InputError

_raylet.Config.initialize("")  # type: ignore[attr-defined]

GIB = 1 << 30
# Ray's CPU slots, even on a smaller machine: the judge and three trials with two actors each must all be scheduled.
MIN_CPUS = 8
CORES = "dynaq_cores"  # Ray resource of a node that was told another number of CPUs than it has: its real ones

# Without this, Ray replaces 127.0.0.1 by the address that other machines see, and listens on every interface.
_LOOPBACK = patch.object(services, "resolve_ip_for_localhost", lambda host: host)

# Ray's processes in a process group of their own: a SIGTERM to this command's group must leave them alive until they
# have finished what they accepted. They end with this process all the same, however it ends: Ray asks the kernel to.
_OWN_GROUP = patch.object(services, "ConsolePopen", partial(services.ConsolePopen, process_group=0))


@contextmanager
def ray_session(
    address: str | None = None,
    *,
    num_cpus: int | None = None,
    dashboard: bool = False,
    object_store_gib: float | None = None,
    temp_dir: str | None = None,
) -> Iterator[None]:
    """Connect to `address` (or $RAY_ADDRESS), else start Ray on loopback; shut down only what was started here.

    A Ray started here listens on 127.0.0.1 only: gRPC, metrics and agents.
    A Ray that this process is already connected to is used and not shut down. Arrays travel as numpy, which the
    object store maps zero-copy and read-only; RAY_ENABLE_ZERO_COPY_TORCH_TENSORS stays off on purpose, since an
    in-place update of a mapped tensor would change every process's copy.

    Raises InputError when no cluster answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    cluster = cluster_address(address)
    if cluster:
        _connect(cluster)
    else:
        _start(num_cpus, dashboard, object_store_gib, temp_dir)
    try:
        with _ending_on_sigterm():
            yield
    finally:
        ray.shutdown()


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process as Ctrl-C does. Ray's own handler aborts with a stack trace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def cluster_address(address: str | None) -> str | None:
    """The running cluster that `address`, or else $RAY_ADDRESS, names; None when Ray is to start on this machine."""
    address = address or os.environ.get("RAY_ADDRESS") or None
    return None if address == "local" else address


def real_cores() -> float:
    """CPU cores of the connected cluster. A Ray that `ray_session` started may have more scheduling slots."""
    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return have.get(CORES, have.get("CPU", 1.0))


def _connect(address: str) -> None:
    try:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if port.isdigit():
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray itself would try for minutes
        with _LOOPBACK:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, namespace="dynaq")
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"no Ray cluster answers at {address!r} ({reason}); start one with `ray start --head`, "
            "check --address and the token in ~/.ray/auth_token"
        ) from error


def _start(num_cpus: int | None, dashboard: bool, object_store_gib: float | None, temp_dir: str | None) -> None:
    cores = joblib.cpu_count()  # that this process may use, also in a container
    try:
        with _LOOPBACK, _OWN_GROUP:
            ray.init(
                address="local",
                num_cpus=num_cpus or max(cores, MIN_CPUS),
                resources={CORES: cores},
                include_dashboard=dashboard,
                object_store_memory=int(object_store_gib * GIB) if object_store_gib else object_store_bytes(),
                log_to_driver=False,
                logging_level=logging.ERROR,
                namespace="dynaq",
                _node_ip_address="127.0.0.1",
                _temp_dir=temp_dir,
            )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DynaqError(f"Ray does not start on this machine: {reason}; `ray stop` clears a stale one") from error


def object_store_bytes(shm: Path = Path("/dev/shm")) -> int:
    """A quarter of the free shared memory, between 256 MiB and 2 GiB: the store holds the cache and little else."""
    free = shutil.disk_usage(shm).free if sys.platform == "linux" and shm.exists() else 4 * GIB
    return int(min(2 * GIB, max(GIB // 4, free // 4)))
