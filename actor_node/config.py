"""Settings of an actor node."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from common.process.durations import Seconds
from common.wire.keys import KeysOption


class ActorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One actor node: its workers, the world copies of each, and the addresses of their peers."""

    n: Annotated[int, Meta(ge=1, le=4096, description="Number of worker processes on this node.")] = 1
    copies: Annotated[int, Meta(ge=1, le=65_536, description="World copies that each worker steps in one batch.")] = 32
    chunk_rows: Annotated[
        int,
        Meta(ge=1, le=65_536, description="Approximate transitions per chunk; rounded to whole steps of all copies."),
    ] = 256
    replay: Annotated[
        tuple[str, ...],
        Meta(min_length=1, description="Address of the replay server; repeat to spread the workers over several."),
    ] = ("tcp://127.0.0.1:5555",)
    weights: Annotated[str, Meta(description="Address of the learner's weights broadcast.")] = "tcp://127.0.0.1:5556"
    keys: KeysOption = ""
    name: Annotated[
        str,
        Meta(
            max_length=100,
            description="Name of this node, unique among all nodes. Default: the host name with a random suffix.",
        ),
    ] = ""
    drain: Annotated[Seconds, Meta(description="Longest wait for acknowledgements at the end [s].")] = 5.0
    peer_timeout: Annotated[
        Seconds,
        Meta(description="Exit with code 3 if the replay announces no run within this time [s]; 0 waits forever."),
    ] = 0.0
    audit: Annotated[
        str,
        Meta(
            description="Directory in which to record sent and acknowledged chunks, for `shoal audit`.",
            extra={"metavar": "DIR"},
        ),
    ] = ""
    metrics_host: Annotated[str, Meta(description="Address of the HTTP port.")] = "127.0.0.1"
    metrics_port: Annotated[
        int, Meta(ge=0, le=65_535, description="Port of /metrics, /healthz and /readyz; 0 chooses a free one.")
    ] = 9103
    parent: Annotated[int, Meta(ge=0, description="End when this process ends.", extra={"hidden": True})] = 0

    @property
    def chunk_steps(self) -> int:
        """Number of steps of all copies in one chunk."""
        return max(1, round(self.chunk_rows / self.copies))
