"""The command `shoal check`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import click
import msgspec
from msgspec import Meta
from rich.console import Console

from common.errors import ConfigError
from common.process import command
from common.process.durations import Seconds
from common.process.exit import FAILED, INTERRUPTED
from common.run.run import RunSpec, make_run_spec, parse_assignments
from shoal.commands.check.check import DEFAULT_SECONDS, CheckWatcher, WorldCheck, check_world
from shoal.commands.check.text import print_check

MAX_SECONDS = 3_600.0
_SECTIONS = ("world", "episode", "network", "algorithm")


class CheckConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of `shoal check`."""

    set: Annotated[
        tuple[str, ...],
        Meta(
            description="Set an option of the world or a setting, as for `shoal train`: world.N=5. Repeat the option "
            "for more.",
            extra={"metavar": "KEY=VALUE"},
        ),
    ] = ()
    max_episode_steps: Annotated[
        int,
        Meta(
            ge=0, description="Maximum length of an episode before it is truncated [environment steps]; 0 = no limit."
        ),
    ] = 0
    seconds: Annotated[Seconds, Meta(le=MAX_SECONDS, description="Time for playing episodes [s].")] = DEFAULT_SECONDS
    seed: Annotated[int, Meta(ge=0, lt=2**31, description="Seed of the episodes and of the random actions.")] = 0
    json: Annotated[bool, Meta(description="Print JSON.")] = False


@click.command()
@click.argument("world")
@command.options(CheckConfig)
def check(world: str, **values: Any) -> None:
    """Check an environment before training on it: within a minute, what is wrong and what to expect.

    Plays random and constant actions in a separate process and measures contract, sizes, scales, returns, lengths of
    episodes, speed and memory. Prints what to fix, and the command to train with settings that suit the world.

    Exit code 1 if training would fail, with the reason.

    \b
    Examples:
      shoal check pettingzoo:my_env
      shoal check pettingzoo:my_env --set world.agents=5 --seconds 10
      shoal check simple_spread --json
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(CheckConfig, values)
    spec = check_spec(
        world, parse_assignments(config.set), max_episode_steps=config.max_episode_steps, seed=config.seed
    )
    screen = Console(markup=False, emoji=False, stderr=True)
    try:
        found = check_world(spec, seconds=config.seconds, watch=StageLines(screen))
    except KeyboardInterrupt:
        # On a terminal, Ctrl-C shows ^C at the start of the line.
        screen.print("\nstopped" if screen.is_terminal else "stopped")
        raise click.exceptions.Exit(INTERRUPTED) from None
    if config.json:
        command.result(msgspec.json.encode(found))
    else:
        print_check(found, spec, _results(), _options(config))
    if not found.ok:
        raise click.exceptions.Exit(FAILED)


def _options(config: CheckConfig) -> list[str]:
    """Returns the options with which `shoal train` makes the same world."""
    limit = ["--max-episode-steps", str(config.max_episode_steps)] if config.max_episode_steps else []
    return [*(word for setting in config.set for word in ("--set", setting)), *limit]


def check_spec(world: str, settings: Mapping[str, Any], *, max_episode_steps: int, seed: int) -> RunSpec:
    """Returns the settings that a check uses; ConfigError for a setting that is unknown or not used by a check."""
    for section in settings:
        if section in RunSpec.__struct_fields__ and section not in _SECTIONS:
            raise ConfigError(
                f"A check does not use settings of [{section}]. Pass world.*, episode.*, network.* or algorithm.*."
            )
    layers: list[Mapping[str, Any]] = [{"scenario": world, "seed": seed}, settings]
    if max_episode_steps:
        layers.append({"episode": {"max_steps": max_episode_steps}})
    return make_run_spec(*layers)


class StageLines(CheckWatcher):
    """Shows each stage as a line on the standard error."""

    def __init__(self, screen: Console) -> None:
        """screen: where the lines go."""
        self._screen = screen

    def stage(self, name: str, seconds: float) -> None:
        """Shows the stage; a stage that takes long is shown again."""
        lasts = f" ({seconds:.0f} s)" if seconds else ""
        self._screen.print(f"checking: {name}{lasts}", soft_wrap=True, highlight=False)


def check_from_python(
    world: str, settings: Mapping[str, Any], *, seconds: float, max_episode_steps: int, seed: int, progress: bool
) -> WorldCheck:
    """Does what the command does, for `shoal.check`."""
    spec = check_spec(world, settings, max_episode_steps=max_episode_steps, seed=seed)
    watch = StageLines(Console(markup=False, emoji=False, stderr=True)) if progress else CheckWatcher()
    return check_world(spec, seconds=seconds, watch=watch)


def _results() -> Console:
    screen = Console(file=command.results(), markup=False, emoji=False)
    if not screen.is_terminal:
        screen.width = 1_000
    return screen
