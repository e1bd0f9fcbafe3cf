"""The command `shoal bench`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.status import Status

from common.errors import ConfigError, ShoalError
from common.process import command
from common.process.children.python_command import module_command
from common.process.exit import BAD_USAGE
from common.run.validation_errors import suggest
from common.worlds import scenarios, world_spec
from shoal.commands.bench import BENCHMARKS, BY_NAME_ONLY, BenchConfig, BenchFailure, BenchProgress, BenchRow
from shoal.commands.bench.measurements import as_text

END_TIMEOUT_S = 30.0
_screen = Console(markup=False, emoji=False, stderr=True)
_LINE: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


@click.command()
@click.argument("what", nargs=-1, metavar="[NAME]...")
@command.options(BenchConfig)
def bench(what: tuple[str, ...], **values: Any) -> None:
    """Measure Shoal's speed on this machine against baselines.

    NAME is worlds, policy, actor, learner, replay, weights, memory, end-to-end, peers, or world and the names of worlds
    of yours: their steps a second by copies and processes. Each figure comes with a baseline from the same run. Without
    a NAME, all benchmarks run one after the other, except `peers`, which installs other programs (several gigabytes) to
    compare them with Shoal, and `world`. Use an otherwise idle machine.

    \b
    Examples:
      shoal bench replay
      shoal bench learner --gpu
      shoal bench peers --time 5m
      shoal bench world pettingzoo:my_env --set world.size=5
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(BenchConfig, values)
    worlds = _worlds(what)
    found = []
    for name in [name for name in what if name in BENCHMARKS] or [n for n in BENCHMARKS if n not in BY_NAME_ONLY]:
        for figure in measure(name, config, worlds if name == "world" else ()):
            found.append(figure)
            if not config.json:
                command.result(as_text(figure))
    if config.json:
        command.result(msgspec.json.encode(found))
    if failed := [row.name for row in found if isinstance(row, BenchFailure)]:
        raise ShoalError(f"{len(failed)} of {len(found)} rows have no figures: {', '.join(failed)}.")


def _worlds(what: Sequence[str]) -> list[str]:
    """Returns the names of worlds among the arguments; raises ConfigError for a name that is unknown or misplaced."""
    names = [name for name in what if name not in BENCHMARKS]
    is_named = [":" in name or name in {row.name for row in scenarios()} for name in names]
    if "world" not in what and not all(is_named):
        unknown = names[is_named.index(False)]
        raise ConfigError(f"{unknown!r} is not a benchmark; {suggest(unknown, sorted(BENCHMARKS))}.")
    if bool(names) != ("world" in what):
        raise ConfigError(f"Write: shoal bench world {' '.join(names) or 'NAME'}. `shoal scenarios` lists worlds.")
    for name, known in zip(names, is_named, strict=True):
        if not known:
            world_spec(name)  # raises the error that tells which worlds there are
    return names


def measure(name: str, config: BenchConfig, worlds: Sequence[str] = ()) -> Iterator[BenchRow | BenchFailure]:
    """Yields the rows of one benchmark, run in a separate process; raises ShoalError if it fails.

    worlds: the names of the worlds to measure, for the benchmark `world`.

    The process uses one thread: numpy's libraries read the limit from the environment when they are loaded.
    """
    line = module_command("shoal.commands.bench", name, msgspec.json.encode(config).decode(), str(os.getpid()), *worlds)
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}
    # In a separate session, so that Ctrl-C reaches this process only, which then stops the benchmark.
    process = subprocess.Popen(  # noqa: S603  (our own argument list, no shell)
        line, stdout=subprocess.PIPE, env={**os.environ, **threads}, start_new_session=True
    )
    try:
        yield from _read(process)
        if process.wait():
            error = ConfigError if process.returncode == BAD_USAGE else ShoalError
            raise error(f"The benchmark {name} failed with exit code {process.returncode}; its output is above.")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(END_TIMEOUT_S)


def _read(process: subprocess.Popen[bytes]) -> Iterator[BenchRow | BenchFailure]:
    if process.stdout is None:
        return
    status = _screen.status("starting")
    try:
        for text in process.stdout:
            line = _LINE.decode(text)
            if "doing" in line:
                _show(status, msgspec.convert(line, BenchProgress).doing)
            else:
                # A running rich status would redirect results from stdout to the screen.
                status.stop()
                yield msgspec.convert(line, BenchFailure) if "failed" in line else msgspec.convert(line, BenchRow)
    finally:
        status.stop()


def _show(status: Status, text: str) -> None:
    if _screen.is_terminal:
        status.update(text)
        status.start()
    else:
        _screen.print(f"... {text}", soft_wrap=True)
