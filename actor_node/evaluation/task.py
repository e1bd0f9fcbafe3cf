"""What is played, and where: a run's scenario in the real mpe2, or in the batched world that is equal to it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from common.errors import ConfigError
from common.run.players import with_sides
from common.run.run import RunSpec
from common.spec import AgentsSpec, difference
from common.worlds import FOREIGN, REAL_MPE2, World, changed_options, make_world

Dynamics = Literal["mpe2", "legacy"]


class EvalGame(NamedTuple):
    """What is played: a scenario with its options, by these agents."""

    spec: RunSpec
    joint: AgentsSpec


class EvalTask(NamedTuple):
    """Where episodes are played."""

    dynamics: Dynamics = "mpe2"
    """legacy: the original environment, in which the published tables were made; batched only."""
    fast: bool = False
    """The batched world instead of mpe2 itself: equal, and many times as fast."""
    check: int = 0
    """How many of the first episodes in the batched world are also played in mpe2, where they must give the same."""

    @property
    def batched(self) -> bool:
        """Whether our own world is stepped."""
        return self.fast or self.dynamics == "legacy"


def make_eval_world(game: EvalGame, copies: int, seed: int, ground: EvalTask, whose: str) -> World:
    """Makes the world to play a team in; ConfigError where it is not there, or not the one the team knows.

    whose: names the team in errors.
    """
    spec = game.spec
    name = short_name(spec.scenario) if ground.batched else reference_world(spec.scenario)
    if ground.batched and spec.scenario.startswith(FOREIGN):
        wish = "--fast" if ground.fast else "--dynamics legacy"
        raise ConfigError(f"{wish}: {spec.scenario} is not among Shoal's own worlds; leave {wish} out")
    world = make_world(name, copies, seed=seed, options=_options(spec, ground))
    return _as_trained(world, game, whose, "" if ground.batched else "installed ")


def one_copy(game: EvalGame, whose: str, seed: int) -> World:
    """Makes one copy of an environment that is not batched, which waits for its reset when an episode is over.

    whose: names the team in errors; ConfigError where the world is not the one the team knows.
    """
    spec = game.spec
    world = make_world(spec.scenario, 1, seed=seed, options=spec.world, restart_ended=False)
    return _as_trained(world, game, whose, "installed ")


def _as_trained(world: World, game: EvalGame, whose: str, installed: str) -> World:
    if with_sides(world.spec, game.spec.network.sides) != game.joint:
        world.close()
        how = difference(game.joint, world.spec)
        raise ConfigError(f"{whose}: the {installed}{world.name} is not the world this team was trained in: {how}")
    return world


def is_foreign(spec: RunSpec) -> bool:
    """Whether the environment is the user's or a package's own: not batched, and nothing known of what it costs."""
    return spec.scenario.startswith(FOREIGN)


def short_name(scenario: str) -> str:
    """Returns a scenario's name without the prefix that says whose world is stepped."""
    return scenario.removeprefix(REAL_MPE2)


def reference_world(scenario: str) -> str:
    """Returns the name of the environment a scenario is published on: mpe2's own of that name.

    A world that is not batched here (`pettingzoo:`, `mpe2:`) is its own reference.
    """
    return scenario if scenario.startswith((FOREIGN, REAL_MPE2)) else f"{REAL_MPE2}{scenario}"


def changed_world_options(spec: RunSpec) -> dict[str, Any]:
    """Returns the world's options that are not at their defaults; dynamics and benchmark data are who plays' choice."""
    world = {name: value for name, value in spec.world.items() if name not in ("dynamics", "benchmark_data")}
    return changed_options(spec.scenario, world)


def _options(spec: RunSpec, ground: EvalTask) -> dict[str, Any]:
    """Returns the options of the world to play in: with benchmark data, and mpe2 knows no dynamics."""
    if spec.scenario.startswith(FOREIGN):
        return dict(spec.world)
    kept = {name: value for name, value in spec.world.items() if name != "dynamics"}
    return {**kept, "benchmark_data": True} | ({"dynamics": "legacy"} if ground.dynamics == "legacy" else {})
