"""The publisher of weights: gives them versions and a header, and refuses weights that are not finite."""

from __future__ import annotations

import math

from common.errors import ShoalError
from common.run.run import Run
from common.wire.weights import WeightsHeader
from learner_node.engine import Engine
from learner_node.persistence.state import Counters, copy_state
from learner_node.publishing.broadcast import WeightsSender
from learner_node.replay.replay_client import ReplayClient
from learner_node.reporting.metrics import Metrics
from learner_node.timing import schedule


class WeightsPublisher:
    """Publishes one run's weights under increasing versions. All times are monotonic seconds."""

    def __init__(
        self, run: Run, counters: Counters, broadcast: WeightsSender, replay: ReplayClient, metrics: Metrics
    ) -> None:
        self._run, self._counters = run, counters
        self._broadcast, self._replay, self._metrics = broadcast, replay, metrics
        self.started = False
        """Whether a replay server accepted this learner. No weights are published before."""

    def start(self, checkpoint_period_s: float) -> int:
        """Returns the version of the first weights to publish, which no other weights of the run have.

        Call it once, after a replay server accepted this learner. checkpoint_period_s: time between two checkpoints.
        """
        self.started = True
        newest_stored = self._replay.weights_version
        version = self._broadcast.first_version(self._counters.weights_version, newest_stored, checkpoint_period_s)
        self._counters.weights_version = version - 1
        return version

    def is_due(self, now: float) -> bool:
        """Returns whether it is time to publish weights."""
        return self._broadcast.is_due(self._counters.updates, now)

    def publish(self, engine: Engine, now: float) -> None:
        """Publishes the current weights; ShoalError if they are not finite."""
        counters = self._counters
        counters.weights_version += 1
        try:
            self._broadcast.send(self._header(), engine.policy_weights(), self._replay, now)
        except ValueError as e:
            copy_state(engine, counters).check()
            raise ShoalError(f"weights version {counters.weights_version} cannot be published: {e}") from e
        self._metrics.weights_published.inc()
        self._metrics.weights_version.set(counters.weights_version)

    def publish_last(self, engine: Engine, now: float) -> None:
        """Publishes the final weights, unless they are published already."""
        if self.is_due(math.inf):
            self.publish(engine, now)

    def _header(self) -> WeightsHeader:
        counters, exploration = self._counters, self._run.spec.exploration
        progress = counters.progress(self._run.spec.budget)
        return WeightsHeader(
            run=self._run.id,
            data_hash=self._run.data_hash,
            version=counters.weights_version,
            updates=counters.updates,
            exploration_scale=schedule.exploration_scale(exploration, progress, counters.env_steps),
            random_share=schedule.random_fraction(exploration, counters.env_steps),
        )
