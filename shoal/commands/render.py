"""The command `shoal render`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
from msgspec import Meta
from rich.console import Console
from rich.progress import Progress

from common.errors import ConfigError
from common.process import command
from shoal.number_format import file_size
from shoal.run_paths import run_directory

_screen = Console(markup=False, emoji=False, stderr=True)


class RenderConfig(msgspec.Struct, frozen=True):
    """Settings of `shoal render`."""

    episodes: Annotated[int, Meta(ge=1, le=1_000, description="Length of the film [episodes].")] = 3
    seed: Annotated[int, Meta(ge=0, lt=2**31, description="Seed of the first episode; episode e has SEED + e.")] = (
        1_000_000
    )
    fps: Annotated[
        int, Meta(ge=0, le=50, description="Frame rate [frames/s]; 0 is the frame rate of the environment.")
    ] = 0
    width: Annotated[int, Meta(ge=120, le=2_000, description="Width of the picture of a run [pixels].")] = 480
    steps: Annotated[int, Meta(ge=1, le=10_000, description="Longest part of an episode to film [steps].")] = 500
    beside: Annotated[str, Meta(description="Directory of a second run to film beside RUN, with the same seeds.")] = ""
    json: Annotated[bool, Meta(description="Print the path, size and frames of the film as JSON.")] = False


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    envvar="SHOAL_OUTPUT",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="Film file to write; its name ends in .gif or .mp4.",
)
@command.options(RenderConfig)
def render(run: Path, output: Path, **values: Any) -> None:
    """Film episodes of RUN's team as GIF or MP4.

    Films the first episodes of `shoal evaluate`, without exploration. The environment's renderer draws the pictures;
    the caption shows the scenario, episode, step, return so far, and the agents' messages. No display is needed.

    \b
    Examples:
      shoal render runs/spread -o play.gif
      shoal render runs/spread -o both.mp4 --beside runs/older --episodes 5
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(RenderConfig, values)
    try:
        from actor_node.rendering import film as rendering  # noqa: PLC0415  (Pillow is an optional dependency)
    except ImportError as e:
        raise ConfigError(f"shoal render needs more packages ({e}). Install them: pip install 'shoal[film]'") from e

    directories = [run_directory(path) for path in (run, *([Path(config.beside)] if config.beside else []))]
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
        size = f"{film.frames} frames of {film.width} x {film.height} at {film.fps} frames per second"
        command.result(f"{film.path} ({size}, {file_size(film.bytes)})")
