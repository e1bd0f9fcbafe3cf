"""One replay server as the learner sees it: asked for what, heard when; and a look at the batches it sends."""

from __future__ import annotations

import logging
import warnings
from typing import NamedTuple

import numpy as np
import torch

from common.errors import PeerError
from common.run.run import Run
from common.transitions import field_columns, transition_dtype
from common.wire.client import Client
from common.wire.codec import Buffer
from common.wire.messages import (
    Batch,
    Held,
    NotReady,
    Open,
    Opened,
    Priorities,
    Refused,
    SampleRequest,
    Status,
    ToPeer,
    Unknown,
)
from common.wire.sample_info import SAMPLE_INFO, SampleInfo, with_values

OPEN_PERIOD_S = 1.0
SILENCE_S = 5.0

_log = logging.getLogger(__name__)


class SampledBatch(NamedTuple):
    """One batch of records."""

    words: torch.Tensor
    """Rows of 4-byte words as float32 `[B, words of a record]`; read-only, in pinned memory if asked for."""
    complete: bool
    """Whether every agent acted in every record and in the step after it."""
    probabilities: torch.Tensor | None = None
    """How likely each was drawn, in units of a uniform draw (N p) `[B]` float32; None where all were drawn alike."""
    places: SampleInfo | None = None
    """Where they stand in the replay `[B]`: goes back with their TD errors."""
    origin: str = ""
    """The replay they come from."""


def priority_update(records: SampledBatch, errors: torch.Tensor) -> tuple[Priorities, bytes]:
    """Returns what tells a replay the absolute TD errors `[B]`, on the CPU, of records that it drew by priorities."""
    if records.places is None:
        raise ValueError("these records were not drawn by priorities")
    return Priorities(len(records.places)), with_values(records.places, errors.detach().numpy()).tobytes()


class BatchChecker:
    """Turns payloads into records, and stops numbers that would spoil the networks."""

    def __init__(self, run: Run, *, pin: bool) -> None:
        self._count, self._pin = run.spec.replay.batch, pin
        self._place_bytes = SAMPLE_INFO.itemsize if run.spec.replay.priority_exponent else 0
        dtype = transition_dtype(run.joint)
        columns = field_columns(dtype)
        self._record_bytes = dtype.itemsize
        self._numbers = slice(0, columns["policy_version"].start)
        self._acting = slice(columns["discount"].start, columns["present"].stop)
        self.rejected = 0
        # A tensor over a received frame keeps the frame alive and must not be written to; nothing does.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

    def open(self, payload: Buffer | None, origin: str) -> SampledBatch | None:
        """Returns the payload's records, None when they are not all finite; PeerError for a wrong size."""
        size = len(payload) if payload is not None else 0
        records_bytes, places_bytes = self._count * self._record_bytes, self._count * self._place_bytes
        if payload is None or size != records_bytes + places_bytes:
            raise PeerError(
                f"{origin} sent a batch of {size} bytes, not {self._count} records of {self._record_bytes}"
                f" and places of {self._place_bytes}; do replay and learner run the same version?"
            )
        words = np.frombuffer(payload, "<f4", records_bytes // 4).reshape(self._count, -1)
        if not words.flags.aligned:
            words = words.copy()
        # All words at once take half as long as without the last column, and versions seldom look like no number.
        if not (np.isfinite(words).all() or np.isfinite(words[:, self._numbers]).all()):
            self.rejected += 1
            _log.error("threw away a batch of %s with non-finite numbers: look at what the world returns", origin)
            return None
        tensor = torch.from_numpy(words)
        complete = bool((words[:, self._acting] > 0.0).all())
        records = SampledBatch(tensor.pin_memory() if self._pin else tensor, complete, origin=origin)
        return self._with_places(records, payload[records_bytes:]) if places_bytes else records

    def _with_places(self, records: SampledBatch, payload: Buffer) -> SampledBatch:
        places = np.frombuffer(payload, SAMPLE_INFO)
        # A word's copy is aligned, which a frame need not be.
        probabilities = torch.from_numpy(places["value"].copy())
        return records._replace(probabilities=probabilities.pin_memory() if self._pin else probabilities, places=places)


class ReplaySession:
    """The session with one replay server. All times are monotonic seconds."""

    def __init__(self, client: Client, run: Run, learner: str, clock: tuple[int, int], inspector: BatchChecker) -> None:
        """Takes the clock (inserts, samples) as it was when this learner last knew it."""
        self.client = client
        self.opened: Opened | None = None
        self.status: Status | None = None
        self.requests: set[int] = set()
        """Sent and not answered yet."""
        self.held = ""
        """Why they are not."""
        self.size = 0
        """Transitions it holds."""
        self.turn = 0.0
        """When it is to be asked next, in the time of whoever asks several in turn."""
        self.inserts, self._samples = clock
        self._run, self._learner, self._inspector = run.without_spaces, learner, inspector
        self._open_sent_at = -OPEN_PERIOD_S
        self.not_ready = ""
        """Why the server does not open the run yet."""
        self._heard_at = 0.0

    @property
    def where(self) -> str:
        """Its address, and why it does not let this learner in, where that is known."""
        trouble = self.client.connection_error(_log)
        return f"{self.client.endpoint} ({trouble})" if trouble else self.client.endpoint

    def look_after(self, now: float) -> None:
        """Opens the session, and opens it again when requests have had no answer for long."""
        if self.requests and now - self._heard_at > SILENCE_S:
            _log.warning("no word from %s for %.0f s; opening it again", self.client.endpoint, SILENCE_S)
            self._lose()
        if self.opened is None and now - self._open_sent_at >= OPEN_PERIOD_S:
            opening = Open(self._learner, self._run, self.inserts, self._samples)
            self._open_sent_at = now if self.client.send(opening) else self._open_sent_at
            self.client.connection_error(_log)

    def request(self, message: SampleRequest, now: float) -> bool:
        """Asks for a batch; returns whether the request is on its way."""
        if not self.client.send(message):
            return False
        if not self.requests:
            self._heard_at = now
        self.requests.add(message.request)
        return True

    def take(self, message: ToPeer, payload: Buffer | None, now: float) -> SampledBatch | None:
        """Takes an answer in; returns the batch if it is one. PeerError when the server refuses this learner."""
        self._heard_at = now
        self.not_ready = message.reason if isinstance(message, NotReady) else ""
        match message:
            case Batch():
                return self._take_batch(message, payload)
            case Held():
                self.held, self.inserts = message.reason, message.inserts
            case Opened():
                self.opened, self.size = message, message.size
                self.inserts, self._samples = message.inserts, message.samples
                _log.info("%s holds %d transitions of this run", self.client.endpoint, message.size)
            case Status():
                self.status = message
                if self.opened:
                    self.inserts = max(self.inserts, message.inserts)
            case Unknown():
                self._lose()
            case NotReady():
                pass  # asked again each second
            case Refused():
                raise PeerError(f"{self.client.endpoint} refuses this learner: {message.reason}")
            case _:
                _log.debug("ignored %s", message)
        return None

    def _take_batch(self, batch: Batch, payload: Buffer | None) -> SampledBatch | None:
        self.requests.discard(batch.request)
        self.held, self.size, self.inserts = "", batch.size, batch.inserts
        self._samples += batch.count
        return self._inspector.open(payload, self.client.endpoint)

    def _lose(self) -> None:
        self.opened, self.held = None, ""
        self.requests.clear()
