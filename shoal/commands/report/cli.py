"""The commands `shoal report` and `shoal render`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
from msgspec import Meta
from rich.console import Console
from rich.progress import Progress

from common.errors import ConfigError
from common.process import command
from common.run.directory import RunDirectory
from shoal.commands.report import REPORT_FILE, write_report
from shoal.number_format import file_size

_screen = Console(markup=False, emoji=False, stderr=True)


class ReportConfig(msgspec.Struct, frozen=True):
    """Settings of `shoal report`."""

    open: Annotated[bool, Meta(description="Show it in a browser.")] = False
    json: Annotated[bool, Meta(description="Print JSON.")] = False


class RenderConfig(msgspec.Struct, frozen=True):
    """Settings of `shoal render`."""

    episodes: Annotated[int, Meta(ge=1, le=1_000, description="Episodes to film.")] = 3
    seed: Annotated[int, Meta(ge=0, lt=2**31, description="Seed of the first episode; episode e has SEED + e.")] = (
        1_000_000
    )
    fps: Annotated[int, Meta(ge=0, le=50, description="Frames a second.  [default: the world's own]")] = 0
    width: Annotated[int, Meta(ge=120, le=2_000, description="Width of a run's picture in pixels.")] = 480
    steps: Annotated[int, Meta(ge=1, le=10_000, description="Steps of an episode to film, at most.")] = 500
    beside: Annotated[str, Meta(description="A second run, filmed beside RUN from the same seeds.")] = ""
    json: Annotated[bool, Meta(description="Print JSON.")] = False


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    envvar="SHOAL_OUTPUT",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"The HTML file.  [default: RUN/{REPORT_FILE}; of several runs {REPORT_FILE}]",
)
@command.options(ReportConfig)
def report(runs: tuple[Path, ...], output: Path | None, **values: Any) -> None:
    """Write what became of RUN, or of several, as one HTML page that needs nothing else.

    Result, film, learning curves, rates, settings and machine. Runs that differ in their seed only become one curve
    with its 95 % band; others are set beside them.

    \b
    Examples:
      shoal report runs/spread --open
      shoal report runs/seed-* -o seeds.html
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(ReportConfig, values)
    written = write_report(runs, output or (runs[0] / REPORT_FILE if len(runs) == 1 else Path(REPORT_FILE)))
    if config.json:
        command.result(msgspec.json.encode(written))
    else:
        command.result(f"{written.path} ({file_size(written.bytes)})")
    if config.open and not webbrowser.open(Path(written.path).resolve().as_uri()):
        raise ConfigError(f"--open: there is no browser here; open {written.path} where there is one")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    envvar="SHOAL_OUTPUT",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The film: a name that ends in .gif or .mp4.",
)
@command.options(RenderConfig)
def render(run: Path, output: Path, **values: Any) -> None:
    """Film episodes of RUN's team in the real world, without exploration, as GIF or MP4.

    The pictures are the world's own renderer's; below them stand scenario, episode, step, the return so far, and what
    agents say. Needs no screen. Filmed are the first episodes of `shoal evaluate`.

    \b
    Examples:
      shoal render runs/spread -o play.gif
      shoal render runs/spread -o both.mp4 --beside runs/older --episodes 5
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(RenderConfig, values)
    try:
        from actor_node.rendering import film as rendering  # noqa: PLC0415  (only this command needs Pillow)
    except ImportError as e:
        raise ConfigError(f"films cannot be made: {e}; install what makes them: pip install 'shoal[film]'") from e

    directories = [RunDirectory(path) for path in (run, *([Path(config.beside)] if config.beside else []))]
    with Progress(console=_screen, transient=True, disable=not _screen.is_terminal) as progress:
        task = progress.add_task(f"filming {config.episodes} episodes", total=config.episodes)
        film = rendering.render(
            directories,
            output,
            episodes=config.episodes,
            seed=config.seed,
            fps=config.fps,
            width=config.width,
            steps=config.steps,
            progress=lambda done: progress.update(task, completed=done),
        )
    if config.json:
        command.result(msgspec.json.encode(film))
    else:
        size = f"{film.frames} frames of {film.width} x {film.height} at {film.fps} a second"
        command.result(f"{film.path} ({size}, {file_size(film.bytes)})")
