"""Settings of an actor node."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from common.process.durations import Seconds
from common.wire.keys import KeysOption


class ActorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node of actors: how many workers, how many copies of the world each, and where their peers are."""

    n: Annotated[int, Meta(ge=1, le=4096, description="Worker processes on this node.")] = 1
    copies: Annotated[int, Meta(ge=1, le=65_536, description="Copies of the world each worker steps in one batch.")] = (
        32
    )
    chunk_rows: Annotated[
        int,
        Meta(ge=1, le=65_536, description="Transitions in a chunk, about: rounded to whole steps of all copies."),
    ] = 256
    replay: Annotated[
        tuple[str, ...],
        Meta(min_length=1, description="Replay server; repeat it to spread the workers over several."),
    ] = ("tcp://127.0.0.1:5555",)
    weights: Annotated[str, Meta(description="Where the learner broadcasts its weights.")] = "tcp://127.0.0.1:5556"
    keys: KeysOption = ""
    name: Annotated[
        str,
        Meta(
            max_length=100,
            description="Name of this node; must be its own among all nodes. Default: the host's, made unique.",
        ),
    ] = ""
    drain: Annotated[Seconds, Meta(description="Longest wait for acknowledgements at the end.")] = 5.0
    peer_timeout: Annotated[
        Seconds, Meta(description="Give up (exit code 3) when no run was had from the replay for so long; 0 = wait on.")
    ] = 0.0
    audit: Annotated[
        str,
        Meta(
            description="Directory to note in what was sent and acknowledged, for `shoal audit`.",
            extra={"metavar": "DIR"},
        ),
    ] = ""
    metrics_host: Annotated[str, Meta(description="Address of the HTTP port.")] = "127.0.0.1"
    metrics_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port of /metrics, /healthz and /readyz; 0 = any free one.")
    ] = 9103
    parent: Annotated[int, Meta(ge=0, description="End when this process ends.", extra={"hidden": True})] = 0

    @property
    def chunk_steps(self) -> int:
        """Steps of all copies in one chunk."""
        return max(1, round(self.chunk_rows / self.copies))
