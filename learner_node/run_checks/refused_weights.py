"""The check that ends a run whose weights no actor accepts. Without it, all processes would wait forever. No I/O.

An actor refuses weights that are damaged, belong to another run, or do not fit its policies. One actor that refuses
may have an old build and be replaced soon. But if every connected actor refuses and none has weights, no step can be
made.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import LastingError
from common.wire.messages import Status

REFUSAL_TIMEOUT_S = 10.0
"""Time during which all connected actors must refuse [s]: long enough for them to accept a newer broadcast."""


class RefusedWeights:
    """Watches the number of actors without weights in the replay servers' statuses."""

    def __init__(self) -> None:
        self._since: float | None = None

    def check(self, statuses: Sequence[Status], now: float) -> None:
        """Raises LastingError if every connected actor has refused all weights of this run for REFUSAL_TIMEOUT_S."""
        connected = sum(status.actor_count for status in statuses)
        refusing = sum(status.actors_without_weights for status in statuses)
        if not connected or refusing < connected:
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since >= REFUSAL_TIMEOUT_S:
            raise LastingError(
                f"every connected actor ({connected}) refuses this run's weights: {_reason(statuses)}. Run actors and"
                " learner from the same version of Shoal, and pass the address of this learner as --weights."
            )


def _reason(statuses: Sequence[Status]) -> str:
    reasons = (actor.weights_refused for status in statuses for actor in status.actors)
    return next((reason for reason in reasons if reason), "unknown")
