"""The environments: every MPE scenario as batched arrays, and environments from outside Shoal through an adapter.

    world = make_world("simple_spread", copies=64, seed=0)
    obs = world.reset()
    step = world.step(actions)

A scenario is one file and one row of the table in `particle/scenarios/`. `mpe2:simple_spread` is the same scenario,
spec and options in the installed mpe2 itself. A name with another prefix, for example `pettingzoo:sisl/pursuit-v5`,
belongs to a family of environments (`families/`); its options are those of the environment's constructor.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from msgspec import Struct, structs

from common.errors import ConfigError
from common.history import OPTION as HISTORY
from common.history import stacked_spaces, take_history
from common.run.spaces import AgentSpaces
from common.spec import AgentsSpec
from common.worlds.families import FAMILIES, Family, family_of
from common.worlds.history_world import HistoryWorld, with_history, without_history
from common.worlds.options import OptionRow, option_rows, parse_options
from common.worlds.particle.mpe import MpeWorld
from common.worlds.particle.scenario import Scenario
from common.worlds.particle.scenarios import SCENARIOS
from common.worlds.world import EpisodeRules, FindsStateDim, HasGlobalState, Step, World, global_state

if TYPE_CHECKING:
    from common.worlds.adapters.pettingzoo_world import PettingZooWorld
    from common.worlds.batched.checked_world import CheckedWorld

__all__ = [
    "HasGlobalState",
    "ScenarioRow",
    "Step",
    "World",
    "changed_options",
    "find_state_dim",
    "global_state",
    "is_batched",
    "is_foreign",
    "make_world",
    "messages",
    "scenarios",
    "world_name",
    "world_spec",
]

REAL_MPE2 = "mpe2:"
"""Prefix of the name of a scenario that is played in the installed mpe2 itself."""


class ScenarioRow(Struct, frozen=True):
    """One scenario of the table, with its default options' agents."""

    name: str
    doc: str
    agents: tuple[str, ...]
    teams: tuple[str, ...]
    reward: str
    options: tuple[OptionRow, ...]


def is_foreign(name: str) -> bool:
    """Returns whether a world comes from a family of environments: not a particle scenario, and of unknown cost."""
    return family_of(name) is not None


def is_batched(name: str) -> bool:
    """Returns whether a family's world steps all its copies in one call, as the particle scenarios do."""
    family = family_of(name)
    return family is not None and family.is_batched


def world_name(world: str | Callable[..., Any]) -> str:
    """Returns the name of a world that is given as a name, or as a function or class that makes the environment.

    Raises ConfigError for a function that other processes cannot import by its name, such as a lambda.
    """
    if isinstance(world, str):
        return world
    from common.worlds.families.python import name_of  # noqa: PLC0415  (for functions only)

    return name_of(world)


def make_world(
    name: str | Callable[..., Any],
    copies: int = 1,
    *,
    seed: int | None = None,
    options: Mapping[str, Any] | None = None,
    max_episode_steps: int = 0,
    restart_ended: bool = True,
    first_episode_steps: Sequence[int] = (),
    info_metrics: bool = False,
    state_dim: int = 0,
    on_made: Callable[[int], object] | None = None,
    on_fault: Callable[[BaseException], object] | None = None,
    **more_options: Any,
) -> World:
    """Makes `copies` of a world that step together.

    name: of the world, or a function or class at the top level of a module that returns an environment.
    seed: of the world's own generator, which draws the starts that are given no seed; None takes fresh entropy.
    options: of the scenario (`scenarios()` lists them), or of the environment's constructor; and `history` of every
    world: the number of last observations and actions that each agent observes too.
    max_episode_steps: an episode that is still running after this number of steps is truncated; 0 sets no limit.
    restart_ended: whether `step()` resets a copy whose episode ended; otherwise that copy stays absent until `reset()`.
    first_episode_steps: length at which the first episode of each copy is truncated, 0 for none, so that the episodes
    of separate environments do not end together; batched worlds ignore it.
    info_metrics: whether the metrics of steps contain the numbers that the environment returns in its infos.
    state_dim: length of the environment's global state, which steps then contain for critics; 0 = without.
    on_made: called with the index of each copy after the copy was made.
    on_fault: called with what making raised, before the copies made so far are closed.
    more_options: more of `options`, as keywords; an option called like a parameter above needs `options`.
    Raises ConfigError for an unknown name or option and for a value that is not allowed, and WorldError for an
    exception raised by the environment.
    """
    name = world_name(name)
    if isinstance(copies, bool) or not isinstance(copies, int) or copies < 1:
        raise ConfigError(f"{name}: copies={copies!r} is not a number of copies. Pass 1 or more.")
    history, given = take_history(name, {**(options or {}), **more_options})
    made, fault = on_made or _ignore, on_fault or _ignore
    episodes = EpisodeRules(max_episode_steps, restart_ended=restart_ended, first_steps=first_episode_steps)
    if (family := family_of(name)) is not None:
        foreign = _adapter(family).of_constructor(
            name,
            family.find_constructor(name),
            copies,
            seed=seed,
            options=given,
            episodes=episodes,
            on_made=made,
            on_fault=fault,
        )
        if info_metrics:
            foreign.add_metrics()
        if state_dim:
            foreign.add_global_state(state_dim)
        return with_history(foreign, history)
    if state_dim:
        refuse_state(name)
    scenario = _scenario(name.removeprefix(REAL_MPE2), given)
    if name.startswith(REAL_MPE2):
        from common.worlds.particle.real_mpe2 import real_mpe2  # noqa: PLC0415  (actors do not need it installed)

        spec = MpeWorld(name, scenario, 1, 0).spec
        real = real_mpe2(name, scenario, spec, copies, seed=seed, episodes=episodes, on_made=made, on_fault=fault)
        return with_history(real, history)
    world = MpeWorld(name, scenario, copies, seed, episodes)
    for copy in range(copies):
        made(copy)
    return with_history(world, history)


def world_spec(
    name: str | Callable[..., Any], options: Mapping[str, Any] | None = None, **more_options: Any
) -> AgentsSpec:
    """Returns the spec of a world's agents, by making one copy; options and errors are those of `make_world`."""
    world = make_world(name, copies=1, seed=0, options={**(options or {}), **more_options})
    try:
        return world.spec
    finally:
        world.close()


def find_state_dim(world: World) -> int:
    """Returns the length of a world's global state; may reset its first copy. Raises ConfigError if it has none."""
    inner = without_history(world)
    if not isinstance(inner, FindsStateDim):
        refuse_state(world.name)
    return inner.find_state_dim()


def refuse_state(name: str) -> NoReturn:
    """Raises ConfigError for a global state of a particle world, whose state is the joint observation."""
    raise ConfigError(
        f"algorithm.critic_sees: the global state of {name} is all observations side by side, which critics read "
        "already. Set algorithm.critic_sees=observations, or choose an environment whose state() says more."
    )


def world_spaces(world: World) -> tuple[AgentSpaces, ...]:
    """Returns the spaces of the agents of a family's world; empty for a particle world, whose spaces are flat."""
    if not is_foreign(world.name):
        return ()
    from common.worlds.adapters.pettingzoo_world import PettingZooWorld  # noqa: PLC0415  (actors do not need it installed)

    inner = without_history(world)
    spaces = inner.spaces if isinstance(inner, PettingZooWorld) else ()
    if not spaces or not isinstance(world, HistoryWorld):
        return spaces
    agents = inner.spec.agents
    return tuple(stacked_spaces(one, agent, world.history) for one, agent in zip(spaces, agents, strict=True))


def changed_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that differ from their defaults; for a family's world, without known defaults, all.

    Raises ConfigError for an unknown option and for a value that is not allowed.
    """
    history, changed = take_history(name, options)
    scenario = SCENARIOS.get(name.removeprefix(REAL_MPE2))
    if scenario is not None:
        defaults = structs.asdict(scenario.options_type())
        given = structs.asdict(parse_options(name, scenario.options_type, changed))
        changed = {option: value for option, value in given.items() if value != defaults[option]}
    return {**changed, HISTORY: history} if history else changed


def messages(name: str, options: Mapping[str, Any] | None = None) -> dict[str, slice]:
    """Returns speaker -> slice of the joint action with its message, for messages that another agent observes.

    Empty if no agent speaks, and for a family's world, whose messages are unknown.
    """
    if is_foreign(name):
        return {}
    _, given = take_history(name, options or {})
    return MpeWorld(name, _scenario(name.removeprefix(REAL_MPE2), given), 1, 0).messages()


def scenarios() -> Sequence[ScenarioRow]:
    """Returns the table of scenarios, in alphabetical order."""
    return [_row(name) for name in sorted(SCENARIOS)]


def _adapter(family: Family) -> type[PettingZooWorld | CheckedWorld]:
    """Returns the class that makes a World of what a family's constructors make."""
    if family.is_batched:
        from common.worlds.batched.checked_world import CheckedWorld  # noqa: PLC0415  (as below)

        return CheckedWorld
    from common.worlds.adapters.pettingzoo_world import PettingZooWorld  # noqa: PLC0415  (actors do not need it installed)

    return PettingZooWorld


def _ignore(_: object) -> None:
    """Ignores its argument."""


def _scenario(name: str, options: Mapping[str, Any]) -> Scenario[Any]:
    if name not in SCENARIOS:
        from difflib import get_close_matches  # noqa: PLC0415  (slow to import, needed only for this message)

        close = get_close_matches(name, SCENARIOS, n=3)
        if module := _module_here(name):
            close = [f"pettingzoo:{module}"]
        meant = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(sorted(SCENARIOS))}."
        others = ", ".join(f"{family.prefix}:NAME" for family in FAMILIES)
        raise ConfigError(
            f"there is no scenario {name!r}; {meant} Other environments are named {others}: `shoal scenarios` explains."
        )
    scenario = SCENARIOS[name]
    return scenario(parse_options(name, scenario.options_type, options))


def _module_here(name: str) -> str:
    """Returns the module of a file in the working directory that was named without a family; else an empty text."""
    module, colon, attribute = name.partition(":")
    file = module if module.endswith(".py") else f"{module.replace('.', '/')}.py"
    if not os.path.isfile(file):  # noqa: PTH113  (False for a name that is too long)
        return ""
    return f"{file.removesuffix('.py').removeprefix('./').replace('/', '.')}{colon}{attribute}"


def _row(name: str) -> ScenarioRow:
    scenario = SCENARIOS[name]
    spec = world_spec(name)
    return ScenarioRow(
        name=name,
        doc=(scenario.__doc__ or "").splitlines()[0],
        agents=tuple(agent.name for agent in spec.agents),
        teams=spec.sides,
        reward=scenario.reward_meaning,
        options=option_rows(scenario.options_type),
    )
