"""A baseline for serving batches: ZeroMQ messages of the same size from a process that does nothing else."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

import zmq

from shoal.commands.bench.data_plane.sampling_load import ANSWER_TIMEOUT_S, PREFETCH

_END = b"end"


class ZeroMqBaseline:
    """A process that answers each request with the same bytes, and the client's socket to it."""

    def __init__(self, size: int) -> None:
        """Starts the process, which answers each request with `size` bytes."""
        spawn = multiprocessing.get_context("spawn")
        receiver, sender = spawn.Pipe()
        self._process = spawn.Process(target=_answer, args=(size, sender), daemon=True)
        self._process.start()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, int(ANSWER_TIMEOUT_S * 1e3))
        self._socket.connect(receiver.recv())
        for _ in range(PREFETCH):
            self._socket.send(b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Stops the process."""
        self._socket.send(_END)
        self._process.join(ANSWER_TIMEOUT_S)
        self._context.destroy(linger=0)

    def draw(self) -> int:
        """Receives one answer, requests another, and returns 1."""
        self._socket.recv(copy=False)
        self._socket.send(b"")
        return 1


def _answer(size: int, parent: Connection) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    parent.send(f"tcp://127.0.0.1:{port}")
    payload = bytes(size)
    while True:
        peer, request = socket.recv_multipart()
        if request == _END:
            break
        socket.send_multipart([peer, payload], copy=False)
    context.destroy(linger=0)
