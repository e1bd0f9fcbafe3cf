from __future__ import annotations

from pathlib import Path

import zmq

from common.ipc_file import IpcFile


def test_the_file_goes_with_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind(f"ipc://{path}")
        file = IpcFile(f"ipc://{path}")
        assert path.exists()
    file.remove()
    assert not path.exists()
    file.remove()


def test_the_file_of_whoever_has_taken_the_address_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as first, context.socket(zmq.ROUTER) as second:
        first.bind(f"ipc://{path}")
        file = IpcFile(f"ipc://{path}")
        second.bind(f"ipc://{path}")
        file.remove()
        assert path.exists()


def test_other_addresses_have_no_file() -> None:
    for endpoint in ("tcp://127.0.0.1:1", "inproc://a", "ipc://@abstract"):
        IpcFile(endpoint).remove()
