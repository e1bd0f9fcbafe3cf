"""Settings of `shoal bench`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from common.process.durations import Seconds


class BenchConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of `shoal bench`: what to measure beyond the default, and for how long."""

    full: Annotated[
        bool,
        Meta(description="replay: Also measure 1 to 512 actors and rings of 1e5 to 1e7 transitions, which takes long."),
    ] = False
    gpu: Annotated[bool, Meta(description="learner: Measure both engines on a GPU (CUDA), and not on the CPU.")] = False
    peers: Annotated[
        bool,
        Meta(
            description="replay: Measure beside dm-reverb and TorchRL, which are installed, and measure nothing else."
        ),
    ] = False
    time: Annotated[Seconds, Meta(description="end-to-end, peers: Training time of each run [s].")] = 60.0
    episodes: Annotated[
        int, Meta(ge=1, description="peers: Length of the evaluation of each trained team [episodes].")
    ] = 200
    seeds: Annotated[int, Meta(ge=1, description="peers: Training runs of each program, one a seed [runs].")] = 1
    peer: Annotated[
        tuple[str, ...],
        Meta(
            description="peers: Program to compare with: agilerl, xuance, benchmarl or torchrl; can be repeated."
            "  [default: all]",
            extra={"metavar": "NAME"},
        ),
    ] = ()
    peer_world: Annotated[
        tuple[str, ...],
        Meta(
            description="peers: World to train on: simple_spread or mamujoco:HalfCheetah-2x3; can be repeated."
            "  [default: simple_spread]",
            extra={"metavar": "WORLD"},
        ),
    ] = ()
    curves: Annotated[
        str,
        Meta(
            description="peers: JSON file for the return of each run over training time.",
            extra={"metavar": "FILE"},
        ),
    ] = ""
    cache: Annotated[
        str,
        Meta(
            description="peers, replay: Directory for the peers' installations.  [default: shoal/peers in the user's"
            " cache]",
            extra={"metavar": "DIR"},
        ),
    ] = ""
    pip: Annotated[
        tuple[str, ...],
        Meta(
            description="peers, replay: Extra argument for pip, as in --pip=--pre; can be repeated.",
            extra={"metavar": "ARG"},
        ),
    ] = ()
    set: Annotated[
        tuple[str, ...],
        Meta(
            description="world: Option of the world, as in --set world.max_steps=50; can be repeated.",
            extra={"metavar": "world.NAME=VALUE"},
        ),
    ] = ()
    json: Annotated[bool, Meta(description="Print the rows as JSON.")] = False
