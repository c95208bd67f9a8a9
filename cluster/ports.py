"""Ports of the services: taken before anything starts, and who else has one."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from dynaq.errors import InputError


@contextmanager
def held_port(host: str, port: int) -> Iterator[None]:
    """Reserve an address for the processes that this one starts.

    Ray's proxies listen with SO_REUSEPORT, with which the kernel lets every process of a user listen on the same port
    and sends each request to any of them. So a second service would come up without an error. The reservation itself
    also has that option, which is what lets the proxy in, but does not listen.

    Raises InputError that says who has the port, or why nobody can listen there.
    """
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise InputError(f"--host {host} is no address of this machine: {error.strerror}") from None
    with socket.socket(family, socket.SOCK_STREAM) as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that have just ended do not count
        try:
            held.bind(where)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise InputError(
                    f"port {port} on {host} is taken by {holder(port)}; end it, or choose another with --port"
                ) from None
            raise InputError(f"nothing can listen on port {port} of {host}: {error.strerror}") from None
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # with it, others could reserve the port too
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield


def refuse_taken_port(host: str, port: int) -> None:
    """Raises InputError when `held_port` could not reserve the address."""
    with held_port(host, port):
        pass


def holder(port: int) -> str:
    """Who listens on a TCP port of this machine, in words. Only names of programs: their arguments may hold keys."""
    listeners = [
        one
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port
    ]
    if not listeners:
        return "a process that does not listen yet, perhaps a dynaq serve that is starting"
    pid = next((one.pid for one in listeners if one.pid), None)
    if pid is None:
        return "a process of another user"
    try:
        return _described(psutil.Process(pid))
    except psutil.Error:
        return f"process {pid}"


def _described(process: psutil.Process) -> str:
    # A service's port is held by a Ray actor, which nobody has started by hand: name the command that started Ray.
    for one in (process, *process.parents()):
        words = one.cmdline()
        if "jobs.serve" in words or (len(words) > 2 and Path(words[1]).name == "dynaq" and "serve" in words):
            return f"another dynaq serve (process {one.pid})"
    return f"process {process.pid} ({process.name()})"
