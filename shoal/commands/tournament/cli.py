"""The command `shoal tournament`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
from msgspec import Meta
from rich.console import Console

from actor_node.evaluation.task import Dynamics, EvalTask
from actor_node.evaluation.teams import BASELINES, load_teams
from actor_node.evaluation.tournament import Tournament, check_side, run_tournament
from common.errors import ConfigError
from common.files import write_atomically
from common.process import command
from common.process.durations import Seconds
from common.run.directory import RunDirectory
from common.worlds import is_foreign
from shoal.commands.evaluate.episode_options import EpisodeOptions, play_options
from shoal.commands.evaluate.progress import ProgressWatcher
from shoal.commands.tournament.matrices import matrices
from shoal.commands.tournament.text import matrix_table, standings_table
from shoal.machine_info import read_machine
from shoal.run_paths import run_directory
from shoal.tables import print_tables

_screen = Console(markup=False, emoji=False, stderr=True)
_EPISODES = 500


class TournamentConfig(EpisodeOptions, frozen=True, forbid_unknown_fields=True):
    """Settings of `shoal tournament`."""

    opponents: Annotated[
        tuple[str, ...],
        Meta(
            description="Opponent of all runs in the standings: frozen, scripted, untrained, random or a run; can be"
            " repeated.",
            extra={"metavar": "NAME"},
        ),
    ] = ()
    episodes: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="Length of each pairing [episodes].  [default: 500 in MPE worlds; elsewhere as many as fit "
            "into its part of --within, at least 20]"
        ),
    ] = None
    within: Annotated[
        Seconds,
        Meta(description="Without --episodes: approximate time of all pairings in a world that is not batched [s]."),
    ] = 60.0
    side: Annotated[str, Meta(description="Side that the rows play.  [default: the first side of the world]")] = ""
    fast: Annotated[bool, Meta(description="Play in the batched world, which equals mpe2.")] = False
    dynamics: Annotated[
        Dynamics, Meta(description="Physics and rewards; `legacy` is the original environment (batched only).")
    ] = "mpe2"
    svg: Annotated[str, Meta(description="File to write a heat map of the matrices to.")] = ""
    json: Annotated[bool, Meta(description="Print the tournament as JSON.")] = False


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@command.options(TournamentConfig)
def tournament(runs: tuple[str, ...], **values: Any) -> None:
    """Let the teams of several RUNs play against each other.

    In each pairing, one team plays one side and the other team all other sides. RUN is a run's directory, or `frozen`
    (the team shipped with Shoal for the scenario), `scripted` (a controller, for some scenarios), `untrained` or
    `random`. All pairings play the same episodes without exploration. A cell shows the mean over episodes with its 95 %
    interval.

    \b
    Examples:
      shoal tournament runs/a runs/b random
      shoal tournament runs/a runs/b --opponents frozen --fast --svg cross-play.svg
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(TournamentConfig, values)
    for name in runs:
        if name not in BASELINES:
            run_directory(Path(name))
    names = [*runs, *(name for name in config.opponents if name not in runs)]
    run, teams = load_teams(names, config.seed)
    side = check_side(run, config.side)
    task = EvalTask(config.dynamics, config.fast)
    if config.svg and not Path(config.svg).parent.is_dir():
        raise ConfigError(f"--svg {config.svg}: the directory does not exist. Name a file in an existing directory.")
    launch = read_machine(RunDirectory(Path(next(name for name in names if name not in BASELINES)))).get("launch", {})
    options = play_options(run.spec, config, launch)._replace(within_s=config.within)
    episodes = config.episodes or (0 if is_foreign(run.spec.scenario) else _EPISODES)
    count = f"{episodes:,} episodes" if episodes else f"as many episodes as fit into {config.within:.0f} s"
    with ProgressWatcher(_screen, f"playing {len(teams) ** 2} pairings of {count}") as watcher:
        result = run_tournament(
            run,
            teams,
            episodes,
            config.seed,
            task,
            side=side,
            opponents=config.opponents,
            options=options,
            watcher=watcher,
        )
    if result.failed_episodes:
        _screen.print(
            f"warning: {result.failed_episodes:,} episodes failed and are not counted: {result.first_failure}",
            soft_wrap=True,
            markup=False,
        )
    if config.json:
        command.result(msgspec.json.encode(result))
    else:
        _print(result)
    if config.svg:
        _write_heat_map(result, Path(config.svg))


def _print(result: Tournament) -> None:
    count = f"{result.episodes} episodes per pairing, seeds from {result.seed}, in {result.world}"
    command.result(f"{result.scenario}: rows play {result.side}; {count}")
    print_tables(*(matrix_table(matrix, result.side) for matrix in matrices(result)), standings_table(result))


def _write_heat_map(result: Tournament, path: Path) -> None:
    from shoal.commands.tournament.heat_map import draw_heat_map  # noqa: PLC0415  (slow to import: Jinja)

    try:
        write_atomically(path, draw_heat_map(matrices(result), result.side).encode())
    except OSError as e:
        raise ConfigError(f"--svg {path} cannot be written: {e.strerror}.") from e
    _screen.print(f"wrote the heat map to {path}", soft_wrap=True)
