"""The speed of a run's updates on a device: on a batch in memory, and on batches that a replay server sends.

All rates are of complete updates: the copy of the batch to the device, normalisation if the run asks for it, and the
policies as often as `algorithm.policy_every` says.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from common.errors import PeerError
from common.run.run import Run
from learner_node.devices import Device
from learner_node.inspection.update_speed import random_records
from learner_node.replay.replay_client import ReplayClient, ShardedReplayClient
from learner_node.replay.replay_session import SampledBatch
from learner_node.trainer import Trainer

WARMUP_UPDATES = 8
"""Updates of each kind before a measurement: three direct ones, the capture, and some that replay it."""
PREFETCH = 4
ANSWER_TIMEOUT_S = 60.0


def updates_per_second(trainer: Trainer, run: Run, device: Device, seconds: float) -> float | None:
    """Returns the updates a second on one batch in memory; None if they do not fit into the memory of a GPU."""
    records = random_records(run.joint, run.spec.batch_rows)
    batch = SampledBatch(device.pinned(records), complete=True)
    updater = _Updater(trainer, device)
    try:
        updater.warm_up(lambda: batch)
        started_at, updates = time.perf_counter(), 0
        while time.perf_counter() - started_at < seconds:
            updater.update(batch)
            updates += 1
        device.mark()()
        return updates / (time.perf_counter() - started_at)
    except torch.OutOfMemoryError:
        return None


class FedSpeed(NamedTuple):
    """The speed of a learner that a replay server feeds as fast as it can."""

    served: float
    """Batches a second that the learner receives if it does not update."""
    updates: float
    """Updates a second on the batches that it receives."""
    waiting: float
    """Fraction of the time of those updates in which the learner waits for a batch."""


def fed_speed(trainer: Trainer, run: Run, endpoint: str, device: Device, seconds: float) -> FedSpeed:
    """Measures a learner of a replay server that contains transitions of the run and has no rate limit.

    PeerError if the server sends no batch within a minute.
    """
    client = ShardedReplayClient(run, "bench", (endpoint,), PREFETCH, pin=device.is_gpu)
    try:
        _next_batch(client)
        started_at, served = time.perf_counter(), 0
        while time.perf_counter() - started_at < seconds:
            _next_batch(client)
            served += 1
        served_s = time.perf_counter() - started_at
        updater = _Updater(trainer, device)
        updater.warm_up(lambda: _next_batch(client))
        started_at, updates, waiting_s = time.perf_counter(), 0, 0.0
        while (asked_at := time.perf_counter()) - started_at < seconds:
            batch = _next_batch(client)
            waiting_s += time.perf_counter() - asked_at
            updater.update(batch)
            updates += 1
        device.mark()()
        updating_s = time.perf_counter() - started_at
        return FedSpeed(served / served_s, updates / updating_s, waiting_s / updating_s)
    finally:
        client.close()


class _Updater:
    """Updates of a trainer, counted."""

    def __init__(self, trainer: Trainer, device: Device) -> None:
        self._trainer, self._device, self._updates = trainer, device, 0

    def update(self, batch: SampledBatch) -> None:
        """Starts one update."""
        self._trainer.update(batch, self._updates, progress=0.0, now=0.0)
        self._updates += 1

    def warm_up(self, next_batch: Callable[[], SampledBatch]) -> None:
        """Updates until nothing is left to do once, and waits for the device."""
        for _ in range(WARMUP_UPDATES * self._trainer.engine.layout.policy_delay):
            self.update(next_batch())
        self._device.mark()()


def _next_batch(client: ReplayClient) -> SampledBatch:
    give_up_at = time.monotonic() + ANSWER_TIMEOUT_S
    while time.monotonic() < give_up_at:
        if batch := client.next(1.0):
            return batch
    raise PeerError(f"received no batch within {ANSWER_TIMEOUT_S:g} s; waiting for {client.waiting_for}")
