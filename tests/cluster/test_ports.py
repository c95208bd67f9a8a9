"""A port is one service's: whoever has it is named, and nobody else gets it meanwhile."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest
from ray.serve._private.http_util import set_socket_reuse_port

from cluster.ports import held_port, refuse_taken_port
from dynaq.errors import InputError
from tests.support.judge_service import free_port

HOST = "127.0.0.1"
LISTEN = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"


@pytest.mark.parametrize("their_host", [HOST, "0.0.0.0"])
def test_a_port_on_which_anybody_listens_is_refused_with_the_process(their_host: str) -> None:
    with socket.create_server((their_host, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} on {HOST} is taken by process {os.getpid()} \(.+--port"):
            refuse_taken_port(HOST, port)
    refuse_taken_port(HOST, port)


def test_a_proxy_of_ray_is_refused_although_the_kernel_would_share_its_port() -> None:
    with socket.socket() as proxy:
        set_socket_reuse_port(proxy)
        proxy.bind((HOST, 0))
        proxy.listen()
        with pytest.raises(InputError, match="is taken by"):
            refuse_taken_port(HOST, proxy.getsockname()[1])


def test_another_dynaq_serve_is_named_as_such_and_its_arguments_are_not_shown() -> None:
    command = [sys.executable, "-c", LISTEN, "jobs.serve", "--store", "mongodb://user:secret@host"]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        with pytest.raises(InputError) as told:
            refuse_taken_port(HOST, int(other.stdout.readline()))
        assert f"another dynaq serve (process {other.pid})" in str(told.value)
        assert "secret" not in str(told.value)
    finally:
        other.communicate("\n", timeout=10)


def test_a_reserved_port_is_open_to_the_own_proxy_and_to_nobody_else() -> None:
    port = free_port()
    with held_port(HOST, port):
        with pytest.raises(InputError, match="does not listen yet, perhaps a dynaq serve that is starting"):
            refuse_taken_port(HOST, port)
        with socket.socket() as proxy:
            set_socket_reuse_port(proxy)
            proxy.bind((HOST, port))
            proxy.listen()
            with socket.create_connection((HOST, port), timeout=5) as client, proxy.accept()[0] as served:
                served.sendall(b"mine")
                assert client.recv(4) == b"mine"  # the reservation takes no connection away
    refuse_taken_port(HOST, port)  # also right after a connection there has ended


@pytest.mark.parametrize("host", ["192.0.2.7", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(InputError, match=re.escape(host)):
        refuse_taken_port(host, free_port())
