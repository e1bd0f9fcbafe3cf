from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest
import zmq

from common.errors import ConfigError
from common.wire.socket_file import SocketFile
from common.wire.sockets import bind


def test_the_file_goes_with_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind(f"ipc://{path}")
        file = SocketFile(f"ipc://{path}")
        assert path.exists()
    file.remove()
    assert not path.exists()
    file.remove()


def test_the_file_of_whoever_has_taken_the_address_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as first, context.socket(zmq.ROUTER) as second:
        first.bind(f"ipc://{path}")
        file = SocketFile(f"ipc://{path}")
        second.bind(f"ipc://{path}")
        file.remove()
        assert path.exists()


def test_other_addresses_have_no_file() -> None:
    for endpoint in ("tcp://127.0.0.1:1", "inproc://a", "ipc://@abstract"):
        SocketFile(endpoint).remove()


def test_a_path_that_a_server_listens_on_is_not_taken_from_it(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path / 'socket'}"
    with zmq.Context() as context, context.socket(zmq.PUSH) as client:
        first, second = context.socket(zmq.PULL), context.socket(zmq.PULL)
        bind(first, endpoint, "--bind")
        with pytest.raises(ConfigError, match=r"--bind ipc://.*in use\. Stop the process"):
            bind(second, endpoint, "--bind")
        client.connect(endpoint)
        client.send(b"still there")
        assert first.recv() == b"still there"
        first.close()
        second.close()


def test_a_path_left_by_a_killed_server_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as killed:
        killed.bind(str(path))
    assert path.is_socket()
    with zmq.Context() as context, context.socket(zmq.PULL) as server:
        assert bind(server, f"ipc://{path}", "--bind") == f"ipc://{path}"


def test_a_file_is_not_removed_for_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("mine")
    with (
        zmq.Context() as context,
        context.socket(zmq.PULL) as server,
        pytest.raises(ConfigError, match=r"not a socket\. Remove it"),
    ):
        bind(server, f"ipc://{path}", "--bind")
    assert path.read_text() == "mine"
