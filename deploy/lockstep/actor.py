"""One worker's worlds in the learner's process: what an actor process does, without the process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from actor_node.collector import Collector, FinishedEpisodes
from actor_node.exploration import scale_share
from common.policy.network import Policy
from common.run.run import Run
from common.state import State
from common.wire.codec import checksum
from common.wire.messages import ActorReport
from common.wire.weights import WeightsHeader
from common.worlds import make_world
from deploy.lockstep.snapshots import ActorSnapshot


class LockstepActor:
    """Collects chunks, and counts what it has done."""

    def __init__(self, run: Run, index: int, actors: int, *, copies: int, chunk_steps: int, since: int = 0) -> None:
        """Starts the episodes of `copies` worlds.

        since: environment steps of the run so far: part of the seed, so that what begins anew is not the same again.
        """
        self.name, self.peer = f"lockstep-{index}", f"actor-{index}".encode()
        self.incarnation = self.seq = self.credit = 0
        self._copies, self._chunk_steps = copies, chunk_steps
        self._env_steps = self._episodes = 0
        self._shared_reward = True
        self._return_sums: npt.NDArray[np.float64] = np.zeros(len(run.joint.agents))
        rng = np.random.default_rng([run.spec.seed, checksum(self.name.encode()), since])
        self._world = make_world(
            run.spec.scenario,
            copies,
            seed=int(rng.integers(2**32)),
            options=run.spec.world,
            max_episode_steps=run.spec.episode.max_steps,
        )
        share = scale_share(run.spec.exploration.ladder, index, actors)
        self._collector = Collector(run, self._world, rng, share)

    @property
    def may_collect(self) -> bool:
        """Whether the replay has room for its next chunk."""
        return self.seq < self.credit

    def collect(
        self, policy: Policy, header: WeightsHeader, steps_left: float
    ) -> tuple[npt.NDArray[np.void], FinishedEpisodes]:
        """Returns the next chunk and the episodes ended; a shorter one where less is left of the budget."""
        steps = max(1, math.ceil(min(steps_left / self._copies, self._chunk_steps)))
        records, episodes = self._collector.collect(policy, header, steps)
        self.seq += 1
        self._env_steps += len(records)
        self._episodes += episodes.ended
        self._shared_reward = episodes.shared_reward
        self._return_sums += episodes.return_sums
        return records, episodes

    def report(self, version: int) -> ActorReport:
        """Tells what it has done, as a worker does once a second."""
        return ActorReport(
            actor=self.name,
            incarnation=self.incarnation,
            env_steps=self._env_steps,
            episodes=self._episodes,
            return_sum=float(self._return_sums.sum()),
            return_sums=tuple(float(x) for x in self._return_sums),
            weights_version=version,
            weights_age_s=0.0,
            waiting_for="",
            waited_s=0.0,
            metrics_url="",
            shared_reward=self._shared_reward,
        )

    def session(self, *, turn: int, chunk_rows: int, measured: bool) -> ActorSnapshot:
        """Returns what it has done and how it stands with the replay, which adds what only it knows."""
        return ActorSnapshot(
            incarnation=self.incarnation,
            seq=self.seq,
            credit=self.credit,
            turn=turn,
            chunk_rows=chunk_rows,
            measured=measured,
            env_steps=self._env_steps,
            episodes=self._episodes,
            return_sums=tuple(float(x) for x in self._return_sums),
        )

    def state(self) -> State:
        """Returns where its episodes stand."""
        return self._collector.state()

    def restore(self, session: ActorSnapshot, state: Mapping[str, npt.NDArray[Any]]) -> bool:
        """Goes on where another stood; returns whether its episodes go on too. KeyError or ValueError if none can."""
        self.incarnation, self.seq, self.credit = session.incarnation, session.seq, session.credit
        self._env_steps, self._episodes = session.env_steps, session.episodes
        self._return_sums = np.array(session.return_sums)
        if self._collector.restore(state):
            return True
        # Its next step does not follow its last one: the replay knows that by a new incarnation.
        self.incarnation, self.seq, self.credit = self.incarnation + 1, 0, self.credit - self.seq
        return False

    def close(self) -> None:
        """Closes its worlds."""
        self._world.close()
