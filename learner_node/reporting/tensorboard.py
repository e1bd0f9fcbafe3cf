"""A run's curves for TensorBoard: event files in one directory, one file for each start of a learner.

`logging.tensorboard` chooses the curves:

named       critic_loss/agent_0, return_means/agent_0, run/policy_lag: as in metrics.jsonl, over environment steps
numbered    agent0/losses, agent0/mean_episode_rewards, run/policy_lag: of the preset `seed`, over updates
            (docs/seed.md). tensorboardX writes each curve of losses into a separate directory.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX import SummaryWriter

from common.run.directory import RunDirectory
from common.run.run import Run
from learner_node.reporting.line_numbers import finite_numbers, step_of

MAX_EVENTS = 10_000
"""Largest number of events that wait for one of TensorBoard's writer threads."""
ROOM_POLL_S = 0.01
_RUN_PREFIX = "run/"
"""First part of the names of numbers that belong to no agent."""


class TensorBoardLog:
    """Appends to the event files of a run."""

    def __init__(self, directory: RunDirectory, run: Run) -> None:
        self._run = run
        self._writer = SummaryWriter(str(directory.tensorboard), max_queue=MAX_EVENTS)

    def write(self, line: Mapping[str, Any]) -> None:
        """Writes the numbers of a line of metrics.jsonl; OSError if the disk is full."""
        step = step_of(self._run, line)
        if self._run.spec.logging.tensorboard == "numbered":
            self._write_numbered(line, step)
        else:
            for name, value in finite_numbers(line, self._run).items():
                self._add(name if "/" in name else _RUN_PREFIX + name, value, step)

    def write_values(self, step: int, values: Mapping[str, float]) -> None:
        """Writes finite numbers under their names at one step; OSError if the disk is full."""
        for name, value in values.items():
            self._add(name, value, step)

    def close(self) -> None:
        """Writes buffered events and closes the files; OSError if the disk is full."""
        queues = [writer.event_writer._event_queue for writer in (self._writer.all_writers or {}).values()]
        try:
            self._writer.close()
        finally:
            # Without this, events that an ended writer thread left in its queue would keep this process alive.
            for queue in queues:
                queue.cancel_join_thread()

    def _wait_for_room(self) -> None:
        """Waits until every writer's queue has room for an event.

        Raises OSError for a writer thread that has ended, as it does without an error when the disk is full; adding an
        event to its full queue would block forever.
        """
        for writer in (self._writer.all_writers or {}).values():
            events = writer.event_writer
            while events._worker.is_alive() and events._event_queue.full():
                time.sleep(ROOM_POLL_S)
            if not events._worker.is_alive():
                raise OSError(errno.ENOSPC, "TensorBoard's writer has ended", writer.get_logdir())

    def _write_numbered(self, line: Mapping[str, Any], step: int) -> None:
        for i, (critic, policy) in enumerate(zip(line["critic_loss"], line["policy_loss"], strict=True)):
            self._wait_for_room()
            self._writer.add_scalars(f"agent{i}/losses", {"critic loss": critic, "actor_loss": policy}, step)
        for i, value in enumerate(line.get("return_means", ())):
            if math.isfinite(value):
                self._add(f"agent{i}/mean_episode_rewards", value, step)
        for name, value in finite_numbers(line, self._run).items():
            if "/" not in name:
                self._add(_RUN_PREFIX + name, value, step)

    def _add(self, name: str, value: float, step: int) -> None:
        if name not in (f"{_RUN_PREFIX}time", f"{_RUN_PREFIX}updates"):
            self._wait_for_room()
            self._writer.add_scalar(name, value, step)


def write_figures(directory: RunDirectory, step: int, values: Mapping[str, float]) -> None:
    """Writes figures at one step into a separate event file of the run; OSError if the disk is full.

    values: finite numbers by name, such as `evaluation/return`.
    """
    # Files are named by the second in which they are opened: without the suffix, this one would replace a short run's.
    with SummaryWriter(str(directory.tensorboard), filename_suffix=".evaluation") as writer:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
