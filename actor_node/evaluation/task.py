"""The world in which a team is evaluated: mpe2 itself, the batched world that is equal to it, or the user's own."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from common.errors import ConfigError
from common.run.players import with_sides
from common.run.run import Run, RunSpec
from common.spec import difference
from common.worlds import REAL_MPE2, World, changed_options, is_foreign, make_world

Dynamics = Literal["mpe2", "legacy"]
FOREIGN_DYNAMICS = "own"
"""The dynamics that results of an environment name if it is not one of MPE."""


class EvalTask(NamedTuple):
    """The world in which episodes are played.

    Example: EvalTask(fast=True, check=10) plays in the batched world and repeats the first 10 episodes in mpe2.
    """

    dynamics: Dynamics = "mpe2"
    """legacy: the original environment, in which the published tables were made; batched only."""
    fast: bool = False
    """Whether to play in the batched world instead of mpe2 itself: equal, and many times as fast."""
    check: int = 0
    """Number of first episodes in the batched world that are also played in mpe2, to compare their rewards."""

    @property
    def batched(self) -> bool:
        """Whether Shoal's own batched world is stepped."""
        return self.fast or self.dynamics == "legacy"


def make_eval_world(run: Run, copies: int, seed: int, task: EvalTask, team: str) -> World:
    """Makes the world in which a team is evaluated; its copies step together.

    team: the team's name, for errors. Raises ConfigError if the world does not exist or differs from the world that
    the team was trained in.
    """
    spec = run.spec
    name = short_name(spec.scenario) if task.batched else reference_world(spec.scenario)
    if task.batched and is_foreign(spec.scenario):
        option = "--fast" if task.fast else "--dynamics legacy"
        raise ConfigError(f"{option}: {spec.scenario} is not one of Shoal's own worlds. Leave {option} out.")
    world = make_world(name, copies, seed=seed, options=_options(spec, task))
    return _check_agents(world, run, team, "" if task.batched else "installed ")


def make_eval_copy(run: Run, team: str, seed: int) -> World:
    """Makes one copy of an environment that is not batched; after an episode it waits for `reset()`.

    team: the team's name, for errors. Raises ConfigError if the world differs from the world that the team was
    trained in.
    """
    spec = run.spec
    world = make_world(spec.scenario, 1, seed=seed, options=spec.world, restart_ended=False, info_metrics=True)
    return _check_agents(world, run, team, "installed ")


def _check_agents(world: World, run: Run, team: str, installed: str) -> World:
    if with_sides(world.spec, run.spec.network.sides) != run.joint.without_state:
        world.close()
        how = difference(run.joint.without_state, world.spec)
        raise ConfigError(f"{team}: the {installed}{world.name} is not the world this team was trained in: {how}")
    return world


def short_name(scenario: str) -> str:
    """Returns a scenario's name without the prefix `mpe2:`."""
    return scenario.removeprefix(REAL_MPE2)


def reference_world(scenario: str) -> str:
    """Returns the name of the environment that a scenario's results are published on: mpe2's environment of that name.

    A world that is not batched (`pettingzoo:`, `mpe2:`) is its own reference.
    """
    return scenario if is_foreign(scenario) or scenario.startswith(REAL_MPE2) else f"{REAL_MPE2}{scenario}"


def changed_world_options(spec: RunSpec) -> dict[str, Any]:
    """Returns the world's options that differ from their defaults, without `dynamics` and `benchmark_data`.

    The evaluation chooses these two, not the run.
    """
    world = {name: value for name, value in spec.world.items() if name not in ("dynamics", "benchmark_data")}
    return changed_options(spec.scenario, world)


def _options(spec: RunSpec, task: EvalTask) -> dict[str, Any]:
    """Returns the options of the world: with benchmark data; `dynamics` only if legacy, since mpe2 lacks the option."""
    if is_foreign(spec.scenario):
        return dict(spec.world)
    options = {name: value for name, value in spec.world.items() if name != "dynamics"}
    return {**options, "benchmark_data": True} | ({"dynamics": "legacy"} if task.dynamics == "legacy" else {})
