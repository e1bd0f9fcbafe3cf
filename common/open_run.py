"""The options by which a user defines a run: shared by `learner` and `shoal train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from common.errors import ConfigError, FinishedError
from common.policy.heads import check_head
from common.process.durations import Seconds
from common.run.directory import RunDirectory, create, default_path, reopen
from common.run.players import players, with_sides
from common.run.presets import PRESETS
from common.run.run import BudgetSpec, Run, RunSpec, make_run_spec, parse_assignments
from common.run.spaces import AgentSpaces
from common.spec import AgentsSpec

Check = Callable[[RunSpec, AgentsSpec], None]
"""Raises ConfigError for a run, and the agents of its world, that cannot work."""
DEFAULT_SECONDS = 300.0
"""Time of a run for which neither steps nor time were given."""


class RunOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run is; later ones win over earlier ones: preset, the file's sections, these options, --set."""

    preset: Annotated[
        Literal["fast", "paper", "seed"],
        Meta(description="Settings to start from: `paper` has openai/maddpg's values, `seed` those of docs/seed.md."),
    ] = "fast"
    algorithm: Annotated[
        str,
        Meta(description="maddpg, matd3, iddpg or joint; or by side, as in adversary=maddpg,agent=iddpg."),
    ] = ""
    seed: Annotated[
        Annotated[int, Meta(ge=0, lt=2**32)] | None,
        Meta(description="Seed of networks, sampling and worlds.  [default: 0]"),
    ] = None
    steps: Annotated[int, Meta(ge=0, description="End after so many environment steps, over all copies.")] = 0
    time: Annotated[
        Seconds,
        Meta(
            description="End after this much time from the first transition on: 300, 90s, 5m, 1h30m. "
            "Default without --steps: 5m."
        ),
    ] = 0.0
    max_episode_steps: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="Cut an episode off as truncated after this number of steps, in training and evaluation; "
            "0 = as the world ends it.  [default: 0]"
        ),
    ] = None
    set: Annotated[
        tuple[str, ...],
        Meta(
            description="Any setting of the run, as in replay.batch=512 or world.N=5.", extra={"metavar": "KEY=VALUE"}
        ),
    ] = ()


def open_run(
    path: str,
    scenario: str,
    options: RunOptions,
    sections: Mapping[str, Any],
    *,
    resume: bool,
    role: str,
    check: Check = lambda _spec, _joint: None,
    say: Callable[[str], object] = lambda _text: None,
    tick: Callable[[], object] = lambda: None,
) -> tuple[RunDirectory, Run]:
    """Makes a new run's directory, or opens the one to go on with; ConfigError names what cannot be used.

    path: of the directory; empty = chosen anew. sections: of the configuration file. role: of this process, which no
    other may have in this directory until it ends. resume: go on with the run; with a scenario named, begin it where
    there is none, so that a service may be started with the same options every time. check: refuses, by ConfigError,
    what cannot work, before anything is written. say: shows what takes long while a copy of an environment is made.
    tick: called ten times a second meanwhile; what it raises ends that. FinishedError when the run is done.
    """
    if not resume or (scenario and path and not RunDirectory(Path(path)).run_file.exists()):
        if not scenario:
            raise ConfigError("no scenario named; `shoal scenarios` lists them")
        spec = _new_spec(scenario, options, sections)
        directory, run = create(Path(path) if path else default_path(spec), spec, *_world_of(spec, check, say, tick))
        directory.lock(role)
        return directory, run
    if not path:
        raise ConfigError("--resume needs the run's directory: --run DIR")
    directory = RunDirectory(Path(path))
    held = directory.run.spec
    if scenario and scenario != held.scenario:
        raise ConfigError(f"--run {path} holds a run of {held.scenario}, not of {scenario}")
    directory.lock(role)
    spec = _changed_spec(held, options, sections)
    if directory.finished_file.exists() and not _reaches_further(spec.budget, held.budget):
        raise FinishedError(f"--run {path} has used its budget; give a larger one, in all: --time or --steps")
    run = reopen(directory.path, spec, *_world_of(spec, check, say, tick))[1]
    directory.finished_file.unlink(missing_ok=True)
    return directory, run


def _world_of(
    spec: RunSpec, check: Check, say: Callable[[str], object], tick: Callable[[], object]
) -> tuple[AgentsSpec, tuple[AgentSpaces, ...]]:
    """Returns the agents of the world, on the sides that the run names, and the spaces of each.

    ConfigError when it is not a world, or not one for the algorithm and the head, or when `check` refuses it.
    """
    from common.worlds import FOREIGN, world_spec  # noqa: PLC0415  (many scenarios)

    if spec.scenario.startswith(FOREIGN):
        from common.worlds.first_copy import FirstCopy, Watch  # noqa: PLC0415  (for these alone)

        found = FirstCopy(spec.scenario, spec.world, Watch(say, tick)).read()
        agents, spaces = found.agents, found.spaces
    else:
        agents, spaces = world_spec(spec.scenario, spec.world), ()
    agents = with_sides(agents, spec.network.sides)
    players(agents, spec.algorithm.name)
    check_head(agents, spec.network)
    check(spec, agents)
    return agents, spaces


def _new_spec(scenario: str, options: RunOptions, sections: Mapping[str, Any]) -> RunSpec:
    return _with_budget(make_run_spec({"scenario": scenario}, PRESETS[options.preset], sections, *_layers(options)))


def _changed_spec(held: RunSpec, options: RunOptions, sections: Mapping[str, Any]) -> RunSpec:
    """Returns the spec of a resumed run: as held, with what was given now on top."""
    preset = PRESETS[options.preset] if options.preset != RunOptions().preset else {}
    spec = make_run_spec(msgspec.to_builtins(held), preset, sections, *_layers(options))
    return msgspec.structs.replace(spec, world=held.world) if _is_same_world(spec, held) else spec


def _is_same_world(spec: RunSpec, held: RunSpec) -> bool:
    """Whether the options say the same, one of them with a default written out."""
    from common.worlds import changed_options  # noqa: PLC0415  (many scenarios)

    if spec.scenario != held.scenario:
        return False
    return changed_options(spec.scenario, spec.world) == changed_options(held.scenario, held.world)


def _reaches_further(budget: BudgetSpec, used: BudgetSpec) -> bool:
    limits = (budget.steps, used.steps), (budget.seconds, used.seconds)
    return any(old and (new > old or not new) for new, old in limits)


def _layers(options: RunOptions) -> list[dict[str, Any]]:
    given: dict[str, Any] = {}
    if options.algorithm:
        given["algorithm"] = {"name": options.algorithm}
    if options.seed is not None:
        given["seed"] = options.seed
    if options.steps or options.time:
        given["budget"] = {"steps": options.steps, "seconds": options.time}
    if options.max_episode_steps is not None:
        given["episode"] = {"max_steps": options.max_episode_steps}
    return [given, parse_assignments(options.set)]


def _with_budget(spec: RunSpec) -> RunSpec:
    if spec.budget.steps or spec.budget.seconds:
        return spec
    return msgspec.structs.replace(spec, budget=msgspec.structs.replace(spec.budget, seconds=DEFAULT_SECONDS))
