"""Options shared by the commands that play episodes, and the processes and copies that follow from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from actor_node.evaluation.evaluate import FIRST_SEED
from actor_node.evaluation.rollouts.rollout import FOREIGN_COPIES, PlayOptions
from common.process.durations import Seconds
from common.run.run import RunSpec
from common.worlds import is_batched, is_foreign

CopiesOption = Annotated[
    int,
    Meta(
        ge=0,
        le=65_536,
        description="Maximum number of world copies in one process [copies]; 0 takes the number in training.",
    ),
]


class EpisodeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `shoal evaluate` and `shoal tournament`: which episodes to play, and in how many processes."""

    episodes: Annotated[int, Meta(ge=1)] | None = None
    within: Seconds = 60.0
    processes: Annotated[
        int,
        Meta(
            ge=0,
            le=4096,
            description="Processes that play, in a world that is not batched; 0 takes the number of actors in training,"
            " at most one per core.",
        ),
    ] = 0
    copies: CopiesOption = 0
    max_episode_steps: Annotated[
        int,
        Meta(ge=0, description="Truncate an episode after this length [steps]; 0 takes the limit in training."),
    ] = 0
    seed: Annotated[int, Meta(ge=0, lt=2**31, description="Seed of the first episode; episode e has SEED + e.")] = (
        FIRST_SEED
    )


def play_options(spec: RunSpec, config: EpisodeOptions, launch: Mapping[str, Any]) -> PlayOptions:
    """Returns the processes and copies to play with: as configured, by default no more than in training.

    launch: the launch settings that `shoal train` recorded; empty for a run that was started otherwise.
    """
    copies, processes = config.copies, config.processes
    if is_foreign(spec.scenario) and not is_batched(spec.scenario):
        copies = copies or min(_count(launch, "copies", FOREIGN_COPIES), FOREIGN_COPIES)
        # A run trained on a cluster may have had more actors than this machine has cores.
        processes = processes or min(_count(launch, "actors", 1), os.cpu_count() or 1)
    return PlayOptions(processes=processes, copies=copies, max_steps=config.max_episode_steps)


def _count(launch: Mapping[str, Any], name: str, default: int) -> int:
    value = launch.get(name)
    return value if isinstance(value, int) and value > 0 else default
