"""Batches, prefetched: a thread owns the sockets to the replay servers, the learner takes tensors from a queue.

    replay --Batch--> thread --records--> queue (prefetch) --> learner
    learner --messages--> outbox --> thread --PutWeights, LearnerReport, StatusRequest--> replay

| waits for             | frees it                                                       |
|-----------------------|----------------------------------------------------------------|
| a replay that answers | Opened; asked for each second                                  |
| a batch               | Batch; until then Held says why, each second                   |
| a lost server         | five seconds of silence: opened again, open requests made anew |
| room in the queue     | the learner takes a batch                                      |
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import NamedTuple

import numpy as np
import torch
import zmq

from common.errors import PeerError, ProtocolError
from common.messages import (
    Batch,
    Held,
    Message,
    Open,
    Opened,
    PutWeights,
    Refused,
    SampleRequest,
    Status,
    ToPeer,
    Unknown,
)
from common.run import Run
from common.transitions import transition_dtype
from common.wire import Buffer, Client

OPEN_PERIOD_S = 1.0
SILENCE_S = 5.0
POLL_MS = 100

_log = logging.getLogger(__name__)


class Records(NamedTuple):
    """One batch as it came: rows of 4-byte words, and the replay's clock."""

    words: torch.Tensor
    """float32 `[B, words of a record]`, in pinned memory if asked for."""
    env_steps: int
    """Transitions ever stored in the run."""


class _Source:
    """One replay server as the thread sees it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.opened: Opened | None = None
        self.open_at = -OPEN_PERIOD_S
        self.heard_at = 0.0
        self.requests: set[int] = set()
        self.held = ""


class BatchStream:
    """Prefetched batches from one or several replay servers."""

    def __init__(
        self,
        run: Run,
        learner: str,
        endpoints: tuple[str, ...],
        prefetch: int,
        *,
        pin: bool,
        clock: tuple[int, int] = (0, 0),
    ) -> None:
        """Connects in the background; ConfigError when an address cannot be one.

        clock: inserts and samples of the run as far as the learner knows, for a replay that knows less.
        """
        self._run, self._learner, self._pin = run, learner, pin
        self._clock = clock
        self._record_words = transition_dtype(run.joint).itemsize // 4
        self._context = zmq.Context()
        self._sources = [_Source(Client(self._context, endpoint)) for endpoint in endpoints]
        self._prefetch, self._batch = prefetch, run.spec.replay.batch
        self._batches: queue.Queue[Records] = queue.Queue()
        self._outbox: queue.SimpleQueue[tuple[Message, bytes | None]] = queue.SimpleQueue()
        self._requested = 0
        self._error: Exception | None = None
        self._closing = False
        self.status: Status | None = None
        """The newest one asked for."""
        self._wake, wake_end = self._pair()
        self._thread = threading.Thread(target=self._main, args=(wake_end,), name="batches", daemon=True)
        self._thread.start()

    @property
    def opened(self) -> Opened | None:
        """What the first replay server said when it took the learner in; None before."""
        return self._sources[0].opened

    @property
    def waiting_for(self) -> str:
        """Why no batch comes, in words."""
        unopened = [source.client.endpoint for source in self._sources if source.opened is None]
        if len(unopened) == len(self._sources):
            return f"the replay server at {', '.join(unopened)}"
        return next((source.held for source in self._sources if source.held), "the replay server's batches")

    def next(self, timeout_s: float) -> Records | None:
        """Returns the next batch, or None when none came in time; raises what ended the thread."""
        try:
            batch = self._batches.get(timeout=timeout_s)
        except queue.Empty:
            if self._error:
                raise self._error from None
            return None
        self._wake.send(b"")
        return batch

    def send(self, message: Message, payload: bytes | None = None) -> None:
        """Hands a message to the thread, which sends it to every replay server that is there."""
        self._outbox.put((message, payload))
        self._wake.send(b"")

    def close(self) -> None:
        """Sends what is left in the outbox and ends the thread."""
        self._closing = True
        self._wake.send(b"")
        self._thread.join(5.0)
        self._wake.close()
        self._context.destroy(linger=200)

    def _pair(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        ours, theirs = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        ours.bind("inproc://wake")
        theirs.connect("inproc://wake")
        return ours, theirs

    # ---- the thread -----------------------------------------------------------------------------------------------

    def _main(self, wake: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        for socket in (wake, *(source.client.socket for source in self._sources)):
            poller.register(socket, zmq.POLLIN)
        try:
            while not self._closing:
                self._turn(dict(poller.poll(POLL_MS)), wake)
            self._send_outbox()
        except Exception as e:  # noqa: BLE001  (raised again where the learner takes batches)
            self._error = e
        finally:
            wake.close()
            for source in self._sources:
                source.client.close()

    def _turn(self, ready: dict[object, int], wake: zmq.Socket[bytes]) -> None:
        now = time.monotonic()
        while wake in ready and wake.poll(0):
            wake.recv()
        for source in self._sources:
            self._receive(source, now)
            if source.opened and now - source.heard_at > SILENCE_S:
                _log.warning("no word from %s for %.0f s; opening it again", source.client.endpoint, SILENCE_S)
                self._lose(source)
            if source.opened is None and now - source.open_at >= OPEN_PERIOD_S:
                source.open_at = now
                source.client.send(Open(self._learner, self._run, *self._clock))
        self._send_outbox()
        self._request()

    def _receive(self, source: _Source, now: float) -> None:
        while True:
            try:
                received = source.client.receive()
            except ProtocolError as e:
                _log.warning("ignored an answer of %s: %s", source.client.endpoint, e)
                continue
            if received is None:
                return
            source.heard_at = now
            self._take(source, *received)

    def _take(self, source: _Source, message: ToPeer, payload: Buffer | None) -> None:
        match message:
            case Batch():
                source.requests.discard(message.request)
                source.held = ""
                self._take_batch(source, message, payload)
            case Held():
                source.held = message.reason
            case Opened():
                source.opened = message
                _log.info("%s holds %d transitions of this run", source.client.endpoint, message.size)
            case Status():
                self.status = message
            case Unknown():
                self._lose(source)
            case Refused():
                raise PeerError(f"{source.client.endpoint} refuses this learner: {message.reason}")
            case _:
                _log.debug("ignored %s", message)

    def _take_batch(self, source: _Source, batch: Batch, payload: Buffer | None) -> None:
        if payload is None or batch.count != self._batch or len(payload) != batch.count * self._record_words * 4:
            _log.warning("%s sent a batch of the wrong size", source.client.endpoint)
            return
        # The one copy there is: out of the frame into memory that is aligned, writable and, for a GPU, pinned.
        words = torch.empty(batch.count, self._record_words, pin_memory=self._pin)
        words.numpy()[:] = np.frombuffer(payload, "<f4").reshape(batch.count, -1)
        self._clock = (batch.inserts, self._clock[1] + batch.count)
        self._batches.put(Records(words, batch.inserts))

    def _lose(self, source: _Source) -> None:
        source.opened, source.held = None, ""
        source.requests.clear()

    def _send_outbox(self) -> None:
        while not self._outbox.empty():
            message, payload = self._outbox.get()
            for source in self._sources:
                if source.opened:
                    source.client.send(message, payload if isinstance(message, PutWeights) else None)

    def _request(self) -> None:
        """Keeps as many batches asked for or queued as are to be prefetched, from the servers in turn."""
        opened = [source for source in self._sources if source.opened]
        while opened and self._batches.qsize() + sum(len(source.requests) for source in opened) < self._prefetch:
            source = opened[self._requested % len(opened)]
            self._requested += 1
            if not source.client.send(SampleRequest(self._requested, self._batch)):
                return
            source.requests.add(self._requested)
