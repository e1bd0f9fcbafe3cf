"""One worker of a lockstep run: it collects transitions in the learner's process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from actor_node.collection.collector import FinishedEpisodes
from actor_node.collection.rollout_worker import RolloutWorker
from common.policy.network import Policy
from common.run.run import Run
from common.state import State
from common.wire.messages import ActorReport
from common.wire.weights import WeightsHeader
from deploy.lockstep.snapshots import ActorSnapshot


class LockstepActor:
    """Collects the chunks of one worker, and stores the worker's side of its session with the replay."""

    def __init__(self, run: Run, index: int, actors: int, *, copies: int, chunk_steps: int, since: int = 0) -> None:
        """Starts the episodes of `copies` world copies.

        since: environment steps of the run so far. They are part of the seed, so that episodes that start again are
        not the ones played before.
        """
        self.name, self.peer = f"lockstep-{index}", f"actor-{index}".encode()
        self.incarnation = self.seq = self.credit = 0
        self._chunk_steps = chunk_steps
        self._rollouts = RolloutWorker(self.name, index=index, workers=actors, copies=copies)
        self._rollouts.start(run, seed=since)

    @property
    def has_credit(self) -> bool:
        """Whether the credit covers the next chunk."""
        return self.seq < self.credit

    def collect(
        self, policy: Policy, header: WeightsHeader, steps_left: float
    ) -> tuple[npt.NDArray[np.void], FinishedEpisodes]:
        """Returns the records of the next chunk and the finished episodes. A small `steps_left` shortens it."""
        steps = max(1, math.ceil(min(steps_left / self._rollouts.copies, self._chunk_steps)))
        self.seq += 1
        return self._rollouts.collect(policy, header, steps)

    def report(self, weights_version: int) -> ActorReport:
        """Returns the report that an actor process sends once a second."""
        return self._rollouts.report(self.incarnation, weights_version)

    def snapshot(self, *, grant_order: int, chunk_rows: int, measured: bool) -> ActorSnapshot:
        """Returns the worker's counters and both sides of its session; the arguments are the replay's side."""
        return ActorSnapshot(
            incarnation=self.incarnation,
            seq=self.seq,
            credit=self.credit,
            grant_order=grant_order,
            chunk_rows=chunk_rows,
            measured=measured,
            env_steps=self._rollouts.env_steps,
            episodes=self._rollouts.episodes,
            return_sums=self._rollouts.return_sums,
        )

    def state(self) -> State:
        """Returns the state of the episodes."""
        return self._rollouts.state()

    def restore(self, snapshot: ActorSnapshot, state: Mapping[str, npt.NDArray[Any]]) -> bool:
        """Continues from a snapshot; returns whether the episodes continue, or start again.

        KeyError or ValueError if the state is of another run.
        """
        self.incarnation, self.seq, self.credit = snapshot.incarnation, snapshot.seq, snapshot.credit
        if self._rollouts.restore(snapshot.env_steps, snapshot.episodes, snapshot.return_sums, state):
            return True
        # The new episodes do not follow the stored ones; a new incarnation prevents n-step spans across the two.
        self.incarnation, self.seq, self.credit = self.incarnation + 1, 0, self.credit - self.seq
        return False

    def close(self) -> None:
        """Closes the world copies."""
        self._rollouts.close()
