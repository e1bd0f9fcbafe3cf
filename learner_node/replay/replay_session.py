"""The learner's session with one replay server, and the check of each batch that the server sends."""

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
from common.wire.refusals import Refusals
from common.wire.sample_info import SAMPLE_INFO, SampleInfo, with_values

OPEN_PERIOD_S = 1.0
SILENCE_S = 5.0

_log = logging.getLogger(__name__)


class SampledBatch(NamedTuple):
    """One batch of records, drawn by a replay server."""

    records: torch.Tensor
    """Records as rows of 4-byte numbers `[B, numbers]` float32; read-only, in pinned memory if `pin`."""
    complete: bool
    """Whether every agent acted in every record and in the step after it."""
    probabilities: torch.Tensor | None = None
    """Probability of each draw relative to a uniform one (N p) `[B]` float32; None after uniform sampling."""
    sample_info: SampleInfo | None = None
    """Slot and generation of each record in the replay server `[B]`; the learner returns them with the TD errors."""
    origin: str = ""
    """The endpoint of the replay server that sent the batch."""


def priority_update(batch: SampledBatch, td_errors: torch.Tensor) -> tuple[Priorities, bytes]:
    """Returns a message and payload with absolute TD errors `[B]` (on the CPU); ValueError after uniform sampling."""
    if batch.sample_info is None:
        raise ValueError("this batch was sampled uniformly and has no priorities to update")
    return Priorities(len(batch.sample_info)), with_values(batch.sample_info, td_errors.detach().numpy()).tobytes()


class BatchChecker:
    """Converts payloads to batches, and drops each batch with a non-finite number."""

    def __init__(self, run: Run, *, pin: bool) -> None:
        self._count, self._pin = run.spec.batch_rows, pin
        self._info_bytes = SAMPLE_INFO.itemsize if run.spec.replay.priority_exponent else 0
        dtype = transition_dtype(run.joint)
        columns = field_columns(dtype)
        self._record_bytes = dtype.itemsize
        self._numbers = slice(0, columns["policy_version"].start)
        self._acting = slice(columns["discount"].start, columns["present"].stop)
        self.rejected = 0
        # torch warns of tensors over read-only memory. The learner never writes to a received frame.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

    def open(self, payload: Buffer | None, origin: str) -> SampledBatch | None:
        """Returns the payload's batch, None if a number is not finite; PeerError for a wrong size."""
        size = len(payload) if payload is not None else 0
        records_bytes, info_bytes = self._count * self._record_bytes, self._count * self._info_bytes
        if payload is None or size != records_bytes + info_bytes:
            raise PeerError(
                f"{origin} sent a batch of {size} bytes, not {self._count} records of {self._record_bytes}"
                f" bytes and sample infos of {self._info_bytes} bytes; run replay server and learner with the same"
                " version of Shoal"
            )
        records = np.frombuffer(payload, "<f4", records_bytes // 4).reshape(self._count, -1)
        if not records.flags.aligned:
            records = records.copy()
        # The last column, the policy version, is an integer whose bits may look like a NaN. Checking all columns takes
        # half as long as checking all but the last, so the slow check runs only if the fast one fails.
        if not (np.isfinite(records).all() or np.isfinite(records[:, self._numbers]).all()):
            self.rejected += 1
            _log.error("dropped a batch from %s with non-finite numbers: check what the environment returns", origin)
            return None
        tensor = torch.from_numpy(records)
        complete = bool((records[:, self._acting] > 0.0).all())
        batch = SampledBatch(tensor.pin_memory() if self._pin else tensor, complete, origin=origin)
        return self._with_sample_info(batch, payload[records_bytes:]) if info_bytes else batch

    def _with_sample_info(self, batch: SampledBatch, payload: Buffer) -> SampledBatch:
        sample_info = np.frombuffer(payload, SAMPLE_INFO)
        # A frame may be unaligned; a copy of the column is aligned.
        probabilities = torch.from_numpy(sample_info["value"].copy())
        return batch._replace(
            probabilities=probabilities.pin_memory() if self._pin else probabilities, sample_info=sample_info
        )


class ReplaySession:
    """A learner's session with one replay server. All times are monotonic seconds.

    The actors' session, which sends chunks, is the class of the same name in actor_node/replay_session.py.
    """

    def __init__(
        self,
        client: Client,
        run: Run,
        learner: str,
        checker: BatchChecker,
        *,
        inserts: int,
        samples: int,
        fresh: bool = False,
    ) -> None:
        """Takes the transitions that this server inserted and sampled in the run, as far as the learner knows.

        fresh: whether the first Open discards another run that is not finished.
        """
        self.client = client
        self.opened: Opened | None = None
        self.status: Status | None = None
        self.requests: set[int] = set()
        """Identifiers of the requests that are not answered yet."""
        self.wait_reason = ""
        """What the requested batch waits for, as a noun phrase after "waiting for"; empty if it does not wait."""
        self.size = 0
        """Transitions in the server's ring."""
        self.virtual_time = 0.0
        """Virtual time of the next request, in the fair queue over servers."""
        self.inserts, self._samples = inserts, samples
        self._refusals = Refusals(client.endpoint, "learner")
        self._run, self._learner, self._checker = run.without_spaces, learner, checker
        self._open_sent_at, self._fresh = -OPEN_PERIOD_S, fresh
        self.not_ready = ""
        """What the server waits for before it opens the run, as a noun phrase; empty if unknown."""
        self._heard_at = 0.0

    @property
    def address(self) -> str:
        """The server's address, followed by the error of the connection if there is one."""
        error = self.client.connection_error(_log)
        return f"{self.client.endpoint} ({error})" if error else self.client.endpoint

    @property
    def confirms_finished(self) -> bool:
        """Whether the server's newest status says that the run is finished."""
        status = self.status
        return status is not None and status.learner is not None and status.learner.finished

    def check_timeouts(self, now: float) -> None:
        """Opens the session, and opens it again if a request has no answer after SILENCE_S."""
        if self.requests and now - self._heard_at > SILENCE_S:
            _log.warning("no answer from %s for %.0f s; opening the session again", self.client.endpoint, SILENCE_S)
            self._reset()
        if self.opened is None and now - self._open_sent_at >= OPEN_PERIOD_S:
            opening = Open(self._learner, self._run, self.inserts, self._samples, self._fresh)
            self._open_sent_at = now if self.client.send(opening) else self._open_sent_at
            self.client.connection_error(_log)

    def request(self, message: SampleRequest, now: float) -> bool:
        """Requests a batch; returns whether the request was sent."""
        if not self.client.send(message):
            return False
        if not self.requests:
            self._heard_at = now
        self.requests.add(message.request)
        return True

    def handle(self, message: ToPeer, payload: Buffer | None, now: float) -> SampledBatch | None:
        """Handles a message; returns its batch if it has one. PeerError after several refusals in succession."""
        self._heard_at = now
        self.not_ready = message.reason if isinstance(message, NotReady) else ""
        match message:
            case Batch():
                return self._handle_batch(message, payload)
            case Held():
                self.wait_reason, self.inserts = message.reason, message.inserts
            case Opened():
                self.opened, self.size = message, message.size
                # A later Open must not discard a run that has replaced this one meanwhile.
                self._fresh = False
                self.inserts, self._samples = message.inserts, message.samples
                _log.info("%s has %d transitions of this run", self.client.endpoint, message.size)
            case Status():
                self.status = message
                if self.opened:
                    self.inserts = max(self.inserts, message.inserts)
            case Unknown():
                self._reset()
            case NotReady():
                pass  # check_timeouts sends Open again
            case Refused():
                self._refusals.add(message.reason)
                self._reset()
            case _:
                _log.debug("ignored %s", message)
        return None

    def _handle_batch(self, batch: Batch, payload: Buffer | None) -> SampledBatch | None:
        self.requests.discard(batch.request)
        self._refusals.reset()
        self.wait_reason, self.size, self.inserts = "", batch.size, batch.inserts
        self._samples += batch.count
        return self._checker.open(payload, self.client.endpoint)

    def _reset(self) -> None:
        self.opened, self.wait_reason = None, ""
        self.requests.clear()
