"""Checks of `shoal train`: enough memory and a GPU before the run, and whether it made an update after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from common.policy.file import load_policy
from common.process.monitoring.resources import available_memory_bytes
from common.run.directory import RunDirectory
from common.run.open_run import Check, MaxCapacity
from common.run.run import UNIFORM, RunSpec
from common.spec import AgentsSpec
from deploy.local.config import TrainConfig
from deploy.local.embedded_redis import MEMORY_FACTOR
from learner_node.engine_choice import user_classes
from learner_node.run_checks.sizes import BASE_BYTES, Sizes, fitting_capacity, refuse_large_run, sizes_of
from learner_node.run_checks.warm_up import ended_too_early
from replay_server.table.imported_sampler import check_sampler
from replay_server.table.ring import USABLE_FRACTION


def local_check(config: TrainConfig, notify: Callable[[str], object]) -> Check:
    """Returns a check that refuses a run that cannot work here.

    Replay, learner and actors must fit into this machine's free memory, a user's own classes must pass their trials,
    and the networks of a run to start from must fit. notify: called with warnings about them.
    """

    def check(spec: RunSpec, agents: AgentsSpec) -> None:
        if user_classes(spec.network, spec.algorithm):
            from learner_node.run_checks.user_classes import check_user_classes  # noqa: PLC0415  (importing torch takes seconds)

            for warning in check_user_classes(spec, agents):
                notify(f"warning: {warning}")
        if spec.replay.sampler != UNIFORM:
            check_sampler(spec.replay.sampler, spec.replay.capacity)
        if spec.start_from:
            from learner_node.persistence.start import check_start  # noqa: PLC0415  (importing torch takes seconds)

            check_start(spec, agents)
        sizes = sizes_of(spec, agents)
        refuse_large_run(sizes, agents, _usable_bytes(), **_processes(sizes, config))

    return check


def max_capacity(config: TrainConfig) -> MaxCapacity:
    """Returns what bounds a replay that adapts to this machine: it takes at most half of the memory that is free."""

    def capacity(spec: RunSpec, agents: AgentsSpec) -> int:
        sizes = sizes_of(spec, agents)
        fitting = fitting_capacity(sizes, _usable_bytes(), **_processes(sizes, config)) // 2
        # Two digits are enough, and the same machine gives the same number again.
        unit = int(10 ** max(len(str(fitting)) - 2, 0))
        return fitting // unit * unit

    return capacity


class _Processes(TypedDict):
    learner_bytes: int
    workers: int
    copies: float


def _processes(sizes: Sizes, config: TrainConfig) -> _Processes:
    """Returns the arguments of `refuse_large_run` that describe the processes on this machine.

    copies: how often the transitions are stored here: in the ring, and again in an embedded Redis.
    """
    return {
        "learner_bytes": BASE_BYTES if config.gpu else sizes.learner_bytes,
        "workers": 0 if config.lockstep else config.actors,
        "copies": 1.0 + MEMORY_FACTOR if config.redis == "embedded" and not config.lockstep else 1.0,
    }


def _usable_bytes() -> int:
    return int(available_memory_bytes() * USABLE_FRACTION)


def refuse_without_cuda() -> None:
    """Raises ConfigError if this machine has no CUDA device that torch can use. Imports torch, which takes seconds."""
    from learner_node.devices import choose_device  # noqa: PLC0415

    choose_device(gpu=True)


def untrained_text(directory: RunDirectory) -> str:
    """Returns why a run made no update before its budget was used; empty for a trained run."""
    if not directory.policy_file.exists() or load_policy(directory.policy_file).updates:
        return ""
    return ended_too_early(directory.run.spec)
