"""Settings of `shoal bench`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from common.process.durations import Seconds


class BenchConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to measure beyond the default, and for how long."""

    full: Annotated[
        bool, Meta(description="replay: also the long sweeps, 1 to 512 actors and rings of 1e5 to 1e7 transitions.")
    ] = False
    time: Annotated[Seconds, Meta(description="end-to-end, peers: training time of each run.")] = 60.0
    episodes: Annotated[int, Meta(ge=1, description="peers: episodes each trained team is evaluated on.")] = 200
    cache: Annotated[
        str,
        Meta(
            description="peers: where the peers are installed.  [default: shoal/peers in the user's cache directory]",
            extra={"metavar": "DIR"},
        ),
    ] = ""
    pip: Annotated[
        tuple[str, ...],
        Meta(description="peers: one more argument for pip, as in --pip=--pre; repeat it.", extra={"metavar": "ARG"}),
    ] = ()
    json: Annotated[bool, Meta(description="Print JSON.")] = False
