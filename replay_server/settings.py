"""What the server adds to a run's own replay settings."""

from __future__ import annotations

from typing import Literal

import msgspec

from common.run.run import ReplaySpec

Durability = Literal["ram", "redis", "fsync"]


class ReplaySettings(msgspec.Struct, frozen=True):
    """Settings of one server, whichever run it holds."""

    durability: Durability = "ram"
    """What has happened to a chunk before it is acknowledged: it is in RAM, Redis has it, Redis has it on disk."""
    capacity: int = 0
    """Transitions held; 0 = as the run says."""
    samples_per_insert: float = 0.0
    """0 = as the run says."""
    seed: int = 0
    """Of the sampler."""
    metrics_url: str = ""

    def applied_to(self, spec: ReplaySpec) -> ReplaySpec:
        """Returns a run's replay settings with the server's in their place."""
        return msgspec.structs.replace(
            spec,
            capacity=self.capacity or spec.capacity,
            samples_per_insert=self.samples_per_insert or spec.samples_per_insert,
        )
