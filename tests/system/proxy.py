"""A proxy that does what networks do: holds connections, refuses, forgets and slows them, loses packets, flips bits."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from pathlib import Path
from typing import NamedTuple

_GREETING_BYTES = 64
_LONG, _COMMAND = 0x02, 0x04
_READ_BYTES = 65_536
_RETRANSMISSION_S = 0.2
"""What TCP waits at least before it sends a lost packet again (Linux); twice as long each further time."""


class Frame(NamedTuple):
    """One frame of ZMTP 3.1: where its body lies in what was fed, if all of it was there."""

    start: int
    end: int
    is_command: bool


class FrameReader:
    """Finds the frames in a stream of ZMTP 3.1 (rfc.zeromq.org/spec/37), whole ones only."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._greeting_left = _GREETING_BYTES

    def feed(self, data: bytes) -> list[tuple[bytearray, Frame]]:
        """Returns the parts of the stream that are complete now, each with its frame; the greeting's are empty.

        A peer sends its greeting bit by bit, as it hears the other's: it is passed on as it comes.
        """
        self._buffer += data
        parts = []
        if self._greeting_left:
            part = self._take(self._greeting_left)
            self._greeting_left -= len(part)
            parts.append((part, Frame(0, 0, is_command=True)))
        while not self._greeting_left and (frame := self._next()):
            parts.append((self._take(frame.end), frame))
        return parts

    def _take(self, count: int) -> bytearray:
        part = self._buffer[:count]
        del self._buffer[:count]
        return part

    def _next(self) -> Frame | None:
        if len(self._buffer) < 2:
            return None
        flags = self._buffer[0]
        header = 9 if flags & _LONG else 2
        if len(self._buffer) < header:
            return None
        size = int.from_bytes(self._buffer[1:header], "big")
        if len(self._buffer) < header + size:
            return None
        return Frame(header, header + size, bool(flags & _COMMAND))


class Proxy:
    """Forwards connections to one port, or from one unix socket to another, as long as it is told to."""

    def __init__(self, target: int | Path, at: Path | None = None, seed: int = 0) -> None:
        """Takes the port or unix socket to connect to; at: the unix socket to listen on, without which it is TCP."""
        self._target, self._at = target, at
        self._random = random.Random(seed)
        self._open = threading.Event()
        self._open.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._forgotten: set[socket.socket] = set()
        self._own_port = 0
        self._listener = self._listen()
        self.url = f"ipc://{at}" if at else f"tcp://127.0.0.1:{self._own_port}"
        self.bytes_per_s = 0.0
        """Of each direction; 0 = as fast as it goes."""
        self.loss = 0.0
        """Share of reads that are late, as when TCP has lost a packet and sends it again."""
        self.payloads_to_flip = 0
        """Payloads towards the server, the next ones, in which one bit is flipped."""
        self.flip_anything = 0.0
        """Share of reads towards the server in which one bit is flipped, wherever it is."""
        self.flipped = 0
        self.forwarded = 0
        """Bytes towards the server."""
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        """Lets nothing through any more; nobody is told."""
        self._open.clear()

    def heal(self) -> None:
        """Lets everything through again, what was held first."""
        if self._listener.fileno() < 0:
            self._listener = self._listen()
            threading.Thread(target=self._accept, daemon=True).start()
        self._open.set()

    def refuse(self) -> None:
        """Ends all connections and refuses new ones."""
        _end(self._listener)
        for pair in self._take_pairs():
            for end in pair:
                _end(end)

    def forget(self) -> None:
        """Drops all connections on the server's side; on the other side they stay open and lead nowhere."""
        for client, server in self._take_pairs():
            self._forgotten.add(client)
            _end(server)

    def close(self) -> None:
        self.refuse()
        for client in tuple(self._forgotten):
            _end(client)
        self._open.set()

    def _listen(self) -> socket.socket:
        if self._at:
            self._at.unlink(missing_ok=True)
            return socket.create_server(str(self._at), family=socket.AF_UNIX)
        listener = socket.create_server(("127.0.0.1", self._own_port))
        self._own_port = listener.getsockname()[1]
        return listener

    def _connect(self) -> socket.socket:
        if isinstance(self._target, int):
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            server.settimeout(None)
            return server
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self._target))
        except OSError:
            server.close()
            raise
        return server

    def _take_pairs(self) -> list[tuple[socket.socket, socket.socket]]:
        pairs, self._pairs = self._pairs, []
        return pairs

    def _accept(self) -> None:
        listener = self._listener
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            self._pairs.append((client, server))
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, towards_server: bool) -> None:
        reader = FrameReader()
        while True:
            try:
                data = source.recv(_READ_BYTES)
            except OSError:
                data = b""
            if source in self._forgotten and data:
                continue
            if not data:
                break
            self._open.wait()
            if towards_server:
                data = self._mutated(data, reader)
                self.forwarded += len(data)
            if delay_s := self._delay_s(len(data)):
                time.sleep(delay_s)
            try:
                target.sendall(data)
            except OSError:
                break
        if target not in self._forgotten:
            _end(target)
        if source in self._forgotten:
            self._forgotten.discard(source)
            source.close()

    def _delay_s(self, size: int) -> float:
        delay_s, wait_s = size / self.bytes_per_s if self.bytes_per_s else 0.0, _RETRANSMISSION_S
        while self.loss and self._random.random() < self.loss:
            delay_s, wait_s = delay_s + wait_s, 2 * wait_s
        return delay_s

    def _mutated(self, data: bytes, reader: FrameReader) -> bytes:
        if self.flip_anything and self._random.random() < self.flip_anything:
            return self._flip(bytearray(data), 0, len(data))
        # Frames are looked at from the start, so that the reader is in step when bits are to be flipped.
        return b"".join(self._perhaps_flipped(part, frame) for part, frame in reader.feed(data))

    def _perhaps_flipped(self, part: bytearray, frame: Frame) -> bytes:
        is_payload = not frame.is_command and frame.end - frame.start > 1_000
        if is_payload and self.payloads_to_flip > 0:
            self.payloads_to_flip -= 1
            return self._flip(part, frame.start, frame.end)
        return bytes(part)

    def _flip(self, data: bytearray, start: int, end: int) -> bytes:
        data[self._random.randrange(start, end)] ^= 1 << self._random.randrange(8)
        self.flipped += 1
        return bytes(data)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
