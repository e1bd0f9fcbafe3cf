"""`shoal bench world NAME`: environment steps per second of any world, by its copies and processes.

Each process steps one batch of copies with random actions, as an actor worker does, on one thread. All of them start
together, after their worlds are made. The baseline of each rate is one copy in one process.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from common.errors import ConfigError, ShoalError, WorldError
from common.run.run import parse_assignments
from common.worlds import make_world
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.measurements import BenchProgress, BenchRow, row
from shoal.commands.bench.single_process.worlds import stepping

COPIES = (1, 2, 4, 8, 16, 32)
SECONDS = 1.0
_END_S = 10.0


class _Task(NamedTuple):
    """What one process steps, and for how long [s]."""

    name: str
    options: dict[str, Any]
    copies: int
    seconds: float


def rows(_config: BenchConfig) -> Iterator[BenchRow]:
    """Raises ConfigError, because a world must be named."""
    raise ConfigError("Name the world: shoal bench world NAME, for example shoal bench world simple_spread.")


def rows_of(worlds: Sequence[str], config: BenchConfig) -> Iterator[BenchRow | BenchProgress]:
    """Yields the rows world/NAME/COPIES/PROCESSES of each world.

    Raises ConfigError for a world or an option that does not exist, WorldError for one that fails.
    """
    options = parse_assignments(config.set)
    if unknown := [section for section in options if section != "world"]:
        raise ConfigError(f"--set {unknown[0]}: name an option of the world, as in --set world.max_steps=50.")
    for name in worlds:
        alone = 0.0
        for processes in process_counts(os.cpu_count() or 1):
            for copies in COPIES:
                where = f"{_counted(copies, 'copy', 'copies')} in {_counted(processes, 'process', 'processes')}"
                yield BenchProgress(f"{name}: {where}")
                value = measure_rate(name, options.get("world", {}), copies, processes)
                alone = alone or value
                yield row(f"world/{name}/{copies}/{processes}", "env steps/s", value, ("1 copy, 1 process", alone))


def process_counts(cores: int) -> list[int]:
    """Returns the numbers of processes to measure: 1, 2, 4, ... and the number of cores."""
    return sorted({2**i for i in range(cores.bit_length())} | {cores})


def measure_rate(name: str, options: dict[str, Any], copies: int, processes: int, seconds: float = SECONDS) -> float:
    """Returns the steps a second of all copies in all processes; errors are those of `make_world` and of the world."""
    task = _Task(name, options, copies, seconds)
    spawn = multiprocessing.get_context("spawn")
    pipes, children = [], []
    try:
        for index in range(processes):
            ours, theirs = spawn.Pipe()
            child = spawn.Process(target=_step, args=(task, index, theirs), daemon=True)
            child.start()
            theirs.close()
            pipes.append(ours)
            children.append(child)
        for pipe in pipes:
            _receive(name, pipe)
        for pipe in pipes:
            pipe.send("start")
        rates = [_receive(name, pipe) for pipe in pipes]
        for child in children:
            child.join(_END_S)
        return sum(rates)
    finally:
        for child in children:
            child.kill()


def _step(task: _Task, seed: int, parent: Connection) -> None:
    """Makes the copies in a child process, waits for the start, and sends the rate, or an error as (type, text)."""
    try:
        world = make_world(task.name, task.copies, seed=seed, options=task.options)
        step = stepping(world)
        step()
        parent.send(0.0)
        parent.recv()
        done, started_at = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started_at) < task.seconds or not done:
            done += step()
        parent.send(done / elapsed)
        world.close()
    except ShoalError as e:
        parent.send((isinstance(e, ConfigError), str(e)))


def _receive(name: str, pipe: Connection) -> float:
    try:
        answer = pipe.recv()
    except EOFError:
        raise WorldError(f"{name}: a process of the world ended without a result") from None
    if isinstance(answer, tuple):
        is_usage, text = answer
        raise ConfigError(text) if is_usage else WorldError(text)
    return float(answer)


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
