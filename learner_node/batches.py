"""Batches, prefetched: a thread owns the sockets to the replay servers, the learner takes tensors from a queue.

    replay --Batch--> thread --records--> queue (prefetch) --> learner
    learner --messages--> outbox --> thread --PutWeights, LearnerReport, StatusRequest--> replay

| waits for             | frees it                                                                  |
|-----------------------|---------------------------------------------------------------------------|
| a replay that answers | Opened; asked for each second                                             |
| a batch               | Batch; until then Held says why, each second                              |
| a lost server         | five seconds without an answer: opened again, batches asked for once more |
| room in the queue     | the learner takes a batch                                                 |
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time

import zmq

from common.errors import PeerError, ProtocolError
from common.messages import Message, PutWeights, SampleRequest, Status
from common.run import Run
from common.wire import Client
from learner_node.source import Inspector, Records, Source

POLL_MS = 100

_log = logging.getLogger(__name__)


class BatchStream:
    """Prefetched batches from one or several replay servers, in turn."""

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

        clock: inserts and samples of the run as far as the learner knows, for servers that have forgotten.
        """
        self._context = zmq.Context()
        inspector = Inspector(run, pin=pin)
        shares = [amount // len(endpoints) for amount in clock]
        self._sources = [
            Source(Client(self._context, endpoint), run, learner, (shares[0], shares[1]), inspector)
            for endpoint in endpoints
        ]
        self._inspector = inspector
        self._prefetch, self._batch = prefetch, run.spec.replay.batch
        self._batches: queue.Queue[Records | None] = queue.Queue()
        """None says that the thread has ended."""
        self._outbox: queue.SimpleQueue[tuple[Message, bytes | None]] = queue.SimpleQueue()
        self._requested = 0
        self._error: Exception | None = None
        self._closing = False
        self._wake, wake_end = self._pair()
        self._thread = threading.Thread(target=self._main, args=(wake_end,), name="batches", daemon=True)
        self._thread.start()

    @property
    def opened(self) -> bool:
        """Whether any replay server has taken the learner in."""
        return any(source.opened for source in self._sources)

    @property
    def weights_version(self) -> int:
        """The newest weights any server remembers."""
        return max(source.opened.weights_version if source.opened else 0 for source in self._sources)

    @property
    def env_steps(self) -> int:
        """Transitions ever stored in the run, as far as is known here."""
        return sum(source.inserts for source in self._sources)

    @property
    def status(self) -> Status | None:
        """The newest one asked for, of the first server."""
        return self._sources[0].status

    @property
    def rejected(self) -> int:
        """Batches thrown away because they held non-finite numbers."""
        return self._inspector.rejected

    @property
    def waiting_for(self) -> str:
        """Why no batch comes, in words."""
        if not self.opened:
            return f"the replay server at {', '.join(source.client.endpoint for source in self._sources)}"
        return next((source.held for source in self._sources if source.held), "the replay server's batches")

    def next(self, timeout_s: float) -> Records | None:
        """Returns the next batch, or None when none came in time; raises what ended the thread."""
        try:
            records = self._batches.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if records is None:
            self._batches.put(None)
            raise self._error or PeerError("the batch thread has ended")
        self._wake_thread()
        return records

    def send(self, message: Message, payload: bytes | None = None) -> None:
        """Hands a message to the thread, which sends it to every replay server that is there."""
        self._outbox.put((message, payload))
        self._wake_thread()

    def close(self) -> None:
        """Sends what is left in the outbox and ends the thread."""
        self._closing = True
        self._wake_thread()
        self._thread.join(5.0)
        self._wake.close()
        # What was sent last, the final weights and report, gets a moment to leave.
        self._context.destroy(linger=200)

    def _wake_thread(self) -> None:
        # When the thread has ended nobody takes the message: never wait for that.
        with contextlib.suppress(zmq.Again):
            self._wake.send(b"", zmq.NOBLOCK)

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
                poller.poll(POLL_MS)
                while wake.poll(0):
                    wake.recv()
                self._turn(time.monotonic())
            self._send_outbox()
        except Exception as e:  # noqa: BLE001  (raised again where the learner takes batches)
            self._error = e
        finally:
            self._batches.put(None)
            wake.close()

    def _turn(self, now: float) -> None:
        for source in self._sources:
            for records in self._received(source, now):
                self._batches.put(records)
            source.look_after(now)
        self._send_outbox()
        self._request(now)

    def _received(self, source: Source, now: float) -> list[Records]:
        found: list[Records] = []
        while True:
            try:
                received = source.client.receive()
            except ProtocolError as e:
                raise PeerError(f"{source.client.endpoint} does not speak this version's protocol: {e}") from e
            if received is None:
                return found
            records = source.take(*received, now)
            if records is not None:
                found.append(records)

    def _send_outbox(self) -> None:
        while not self._outbox.empty():
            message, payload = self._outbox.get()
            for source in self._sources:
                if source.opened:
                    source.client.send(message, payload if isinstance(message, PutWeights) else None)

    def _request(self, now: float) -> None:
        """Keeps as many batches asked for or queued as are to be prefetched, from the servers in turn."""
        opened = [source for source in self._sources if source.opened]
        while opened and self._batches.qsize() + sum(len(source.requests) for source in opened) < self._prefetch:
            source = opened[self._requested % len(opened)]
            self._requested += 1
            if not source.request(SampleRequest(self._requested, self._batch), now):
                return
