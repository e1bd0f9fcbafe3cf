"""Opening a run: the options by which a user defines a run, shared by `learner` and `shoal train`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from common.errors import ConfigError, FinishedError
from common.policy.heads import check_head
from common.process.durations import Seconds
from common.run import preset_choice
from common.run.directory import RunDirectory, create, default_path, reopen
from common.run.normalisation import resolve_normalisation
from common.run.players import players, with_sides
from common.run.preset_choice import AUTO, CONTROL, PARTICLE, PresetChoice, is_particle_world
from common.run.presets import PRESETS
from common.run.run import UNLIMITED_ROWS, BudgetSpec, Run, RunSpec, make_run_spec, parse_assignments
from common.run.spaces import AgentSpaces
from common.run.validation_errors import shorten
from common.run.world_facts import WorldFacts
from common.spec import AgentsSpec

Check = Callable[[RunSpec, AgentsSpec], None]
"""Raises ConfigError for settings, and the agents of their world, that cannot work."""
DEFAULT_SECONDS = 300.0
"""Time of a run without --steps and --time [s]."""
OnChosen = Callable[[PresetChoice, RunSpec], object]
"""Receives the preset of a new run, and the settings of the run."""
MaxCapacity = Callable[[RunSpec, AgentsSpec], int]
"""Returns how many transitions of a run fit into memory."""


class RunOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options that define a run. Later layers override earlier ones: preset, file sections, these options, --set."""

    preset: Annotated[
        Literal["auto", "particle", "control", "fast", "paper", "seed"],
        Meta(
            description="Preset to start from: `auto` chooses by the world, `particle` (or `fast`) suits short episodes"
            " of many agents, `control` long ones, `paper` has openai/maddpg's values, `seed` those of docs/seed.md."
        ),
    ] = "auto"
    algorithm: Annotated[
        str,
        Meta(
            description="Algorithm of all agents: maddpg, matd3, iddpg, joint, masac, isac, hatd3, hasac, facmac or"
            " m3ddpg; one a side, as in adversary=maddpg,agent=iddpg; or a class of your own, as in"
            " my_module:MyMaddpg. Default: that of the preset."
        ),
    ] = ""
    seed: Annotated[
        Annotated[int, Meta(ge=0, lt=2**32)] | None,
        Meta(description="Seed of networks, sampling and worlds.  [default: 0]"),
    ] = None
    start_from: Annotated[
        str,
        Meta(
            description="Start with the policies and critics of the run in this directory, whose world may have another"
            " number of agents.",
            extra={"metavar": "DIR"},
        ),
    ] = ""
    steps: Annotated[
        int,
        Meta(
            ge=0,
            description="End the run after this number of environment steps over all copies [environment steps];"
            " 0 = no limit.",
        ),
    ] = 0
    time: Annotated[
        Seconds,
        Meta(
            description="End the run this long after the first transition [s], as in 300, 90s, 5m or 1h30m; 0 = no"
            " limit. Default without --steps: 5m."
        ),
    ] = 0.0
    max_episode_steps: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="Truncate episodes after this number of steps, in training and evaluation [environment steps];"
            " 0 = no limit.  [default: 0]"
        ),
    ] = None
    set: Annotated[
        tuple[str, ...],
        Meta(
            description="Set any setting of the run, as in replay.batch=512 or world.N=5. Repeat the option for more.",
            extra={"metavar": "KEY=VALUE"},
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
    notify: Callable[[str], object] = lambda _text: None,
    poll: Callable[[], object] = lambda: None,
    on_chosen: OnChosen = lambda _choice, _spec: None,
    max_capacity: MaxCapacity = lambda _spec, _agents: UNLIMITED_ROWS,
    reproducible: bool = False,
) -> tuple[RunDirectory, Run]:
    """Creates the directory of a new run, or opens the directory of the run to resume.

    path: the directory; empty chooses a new one. sections: settings of the configuration file, by section. role: the
    role that this process locks in the directory until it exits. resume: resume the run; if a scenario is given and
    there is no run yet, create it, so that a service can always be started with the same options. check: raises
    ConfigError for settings that cannot work, before anything is written. notify: called with progress texts while a
    copy of an environment is made. poll: called ten times a second meanwhile; an exception that it raises ends the
    making. on_chosen: called with the preset of a new run. max_capacity: bounds the replay of a preset that adapts to
    the world. reproducible: whether the settings must not depend on this machine's speed and memory.
    Raises ConfigError for options that cannot be used, and FinishedError for a run that has used its budget.
    """
    if not resume or (scenario and path and not RunDirectory(Path(path)).run_file.exists()):
        if not scenario:
            raise ConfigError("No scenario is given. Pass one of `shoal scenarios`.")
        first_spec = _first_spec(scenario, options, sections)
        world = _read_world(first_spec, notify, poll, measure=_depends_on_measurements(options.preset, first_spec))
        facts = world.facts and (world.facts.on_any_machine if reproducible else world.facts)
        preset = preset_choice.choose(
            options.preset, first_spec.scenario, world.agents, facts, first_spec.episode.max_steps
        )
        on_sides = with_sides(world.agents, first_spec.network.sides)
        capacity = UNLIMITED_ROWS if reproducible else max_capacity(first_spec, on_sides)
        layer = preset_choice.layer(preset, world.agents, facts, capacity)
        spec = _with_budget(make_run_spec({"scenario": scenario}, layer, sections, *_layers(options)))
        spec = _with_whole_path(resolve_normalisation(spec))
        agents = _check_world(world.agents, spec, check)
        directory, run = create(Path(path) if path else default_path(spec), spec, agents, world.spaces)
        directory.lock(role)
        on_chosen(preset, spec)
        return directory, run
    if not path:
        raise ConfigError("--resume needs the run's directory. Pass --run DIR.")
    directory = RunDirectory(Path(path))
    stored = directory.run.spec
    if scenario and scenario != stored.scenario:
        raise ConfigError(
            f"--run {path} contains a run of {stored.scenario}, not of {shorten(scenario)}. Omit the scenario or pass"
            " another directory."
        )
    # A service passes the same options at each start.
    if options.start_from and str(Path(options.start_from).resolve()) != stored.start_from:
        raise ConfigError(
            f"--start-from is for new runs: --run {path} continues with its own networks. Omit the option."
        )
    directory.lock(role)
    spec = msgspec.structs.replace(_changed_spec(stored, options, sections), start_from=stored.start_from)
    _refuse_other_networks(path, spec, stored)
    if directory.finished_file.exists() and not _extends(spec.budget, stored.budget):
        raise FinishedError(f"--run {path} has used its budget. Pass a larger total with --time or --steps.")
    world = _read_world(spec, notify, poll)
    # A run that has been started needs the run that it started from no more.
    agents = _check_world(world.agents, msgspec.structs.replace(spec, start_from=""), check)
    run = reopen(directory.path, spec, agents, world.spaces)[1]
    directory.finished_file.unlink(missing_ok=True)
    return directory, run


class _World(NamedTuple):
    agents: AgentsSpec
    spaces: tuple[AgentSpaces, ...]
    facts: WorldFacts | None = None


def _read_world(
    spec: RunSpec, notify: Callable[[str], object], poll: Callable[[], object], *, measure: bool = False
) -> _World:
    """Returns the agents of the world and the spaces of each agent; ConfigError if the world does not exist.

    measure: whether an environment is stepped for a second, to return its facts.
    """
    from common.worlds import is_foreign, refuse_state, world_spec  # noqa: PLC0415  (many scenarios)

    wants_state = spec.algorithm.critic_sees != "observations"
    if not is_foreign(spec.scenario):
        if wants_state:
            refuse_state(spec.scenario)
        return _World(world_spec(spec.scenario, spec.world), ())
    from common.worlds.adapters.first_copy import FirstCopy, Watch  # noqa: PLC0415  (for these alone)

    watch = Watch(notify, poll)
    found = FirstCopy(spec.scenario, spec.world, watch, measure=measure, wants_state=wants_state).read()
    return _World(found.agents, found.spaces, found.facts)


def _check_world(agents: AgentsSpec, spec: RunSpec, check: Check) -> AgentsSpec:
    """Returns the agents of a world on the sides of network.sides.

    Raises ConfigError if they do not fit the algorithm or the head, or fail `check`.
    """
    agents = with_sides(agents, spec.network.sides)
    players(agents, spec.algorithm.variants)
    check_head(agents, spec.network)
    check(spec, agents)
    return agents


def _first_spec(scenario: str, options: RunOptions, sections: Mapping[str, Any]) -> RunSpec:
    """Returns the settings of a new run before its world is known: of the preset that its name suggests."""
    suggested = PARTICLE if is_particle_world(scenario) else CONTROL
    preset = PRESETS[suggested if options.preset == AUTO else options.preset]
    return make_run_spec({"scenario": scenario}, preset, sections, *_layers(options))


def _depends_on_measurements(preset: str, spec: RunSpec) -> bool:
    return preset in (AUTO, PARTICLE, CONTROL) and not is_particle_world(spec.scenario)


def _changed_spec(stored: RunSpec, options: RunOptions, sections: Mapping[str, Any]) -> RunSpec:
    """Returns the settings of a resumed run: the stored ones, overridden by those given now."""
    preset = {} if options.preset == AUTO else preset_choice.without_adapted(options.preset)
    spec = make_run_spec(msgspec.to_builtins(stored), preset, sections, *_layers(options))
    return msgspec.structs.replace(spec, world=stored.world) if _is_same_world(spec, stored) else spec


def _refuse_other_networks(path: str, spec: RunSpec, stored: RunSpec) -> None:
    """Raises ConfigError for another activation or class of critics: parameters fit the networks that learnt them."""
    for key in ("activation", "critic"):
        new, old = getattr(spec.network, key), getattr(stored.network, key)
        if new != old:
            raise ConfigError(
                f"network.{key} = {new!r}: the networks of --run {path} learnt with {old!r}. Resume with"
                f" --set network.{key}={old}, or start a new --run."
            )


def _is_same_world(spec: RunSpec, stored: RunSpec) -> bool:
    """Returns whether the worlds are the same; an option that is set to its default makes no difference."""
    from common.worlds import changed_options  # noqa: PLC0415  (many scenarios)

    if spec.scenario != stored.scenario:
        return False
    return changed_options(spec.scenario, spec.world) == changed_options(stored.scenario, stored.world)


def _extends(budget: BudgetSpec, used: BudgetSpec) -> bool:
    limits = (budget.steps, used.steps), (budget.seconds, used.seconds)
    return any(old and (new > old or not new) for new, old in limits)


def _layers(options: RunOptions) -> list[dict[str, Any]]:
    given: dict[str, Any] = {}
    if options.algorithm:
        given["algorithm"] = {"name": options.algorithm}
    if options.start_from:
        given["start_from"] = options.start_from
    if options.seed is not None:
        given["seed"] = options.seed
    if options.steps or options.time:
        given["budget"] = {"steps": options.steps, "seconds": options.time}
    if options.max_episode_steps is not None:
        given["episode"] = {"max_steps": options.max_episode_steps}
    return [given, parse_assignments(options.set)]


def _with_whole_path(spec: RunSpec) -> RunSpec:
    """Returns the settings with the absolute path of `start_from`; ConfigError if that directory contains no run."""
    if not spec.start_from:
        return spec
    directory = RunDirectory(Path(spec.start_from).resolve())
    _ = directory.run
    return msgspec.structs.replace(spec, start_from=str(directory.path))


def _with_budget(spec: RunSpec) -> RunSpec:
    if spec.budget.steps or spec.budget.seconds:
        return spec
    return msgspec.structs.replace(spec, budget=msgspec.structs.replace(spec.budget, seconds=DEFAULT_SECONDS))
