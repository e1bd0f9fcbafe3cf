"""The command `shoal bench`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.status import Status

from common.errors import ShoalError
from common.process import command
from common.process.own_python import module_command
from shoal.commands.bench import BENCHMARKS, BY_NAME_ONLY, BenchConfig, BenchProgress, BenchRow
from shoal.commands.bench.rows import in_words

END_S = 30.0
_screen = Console(markup=False, emoji=False, stderr=True)
_LINE: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


@click.command()
@click.argument("what", nargs=-1, type=click.Choice(sorted(BENCHMARKS)))
@command.options(BenchConfig)
def bench(what: tuple[str, ...], **values: Any) -> None:
    """Measure Shoal's speed on this machine, each figure with its baseline from the same run.

    Without an argument everything is measured, one after the other, but `peers`, which installs other programs (some
    gigabytes) to measure them side by side with Shoal. Use an otherwise idle machine.

    \b
    Examples:
      shoal bench replay
      shoal bench peers --time 5m
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(BenchConfig, values)
    found = []
    for name in what or [name for name in BENCHMARKS if name not in BY_NAME_ONLY]:
        for figure in measure(name, config):
            found.append(figure)
            if not config.json:
                command.result(in_words(figure))
    if config.json:
        command.result(msgspec.json.encode(found))


def measure(name: str, config: BenchConfig) -> Iterator[BenchRow]:
    """Yields the rows of one benchmark, from a process of its own; ShoalError when it fails.

    One thread a process, which numpy's libraries are told by their environment, before they are loaded.
    """
    line = module_command("shoal.commands.bench", name, msgspec.json.encode(config).decode(), str(os.getpid()))
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OPENBLAS", "OMP", "MKL")}
    # A session of its own: Ctrl-C is for this process, which ends that one once.
    process = subprocess.Popen(  # noqa: S603  (our own argument list, no shell)
        line, stdout=subprocess.PIPE, env={**os.environ, **threads}, start_new_session=True
    )
    try:
        yield from _read(process)
        if process.wait():
            raise ShoalError(f"the benchmark {name} failed (exit code {process.returncode}); its words are above")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(END_S)


def _read(process: subprocess.Popen[bytes]) -> Iterator[BenchRow]:
    if process.stdout is None:
        return
    status = _screen.status("starting")
    try:
        for text in process.stdout:
            line = _LINE.decode(text)
            if "doing" in line:
                _show(status, msgspec.convert(line, BenchProgress).doing)
            else:
                # While it moves, rich sends to the screen what is printed to stdout.
                status.stop()
                yield msgspec.convert(line, BenchRow)
    finally:
        status.stop()


def _show(status: Status, doing: str) -> None:
    if _screen.is_terminal:
        status.update(doing)
        status.start()
    else:
        _screen.print(f"... {doing}", soft_wrap=True)
