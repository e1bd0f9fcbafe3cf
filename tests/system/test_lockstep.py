"""`shoal train --lockstep` as a user has it: one process, the same bits after Ctrl-C and after kill -9."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.run.directory import RunDirectory
from tests.conftest import PATIENCE_S, wait_until

from .conftest import Commands, family, kill, log_of, metrics_of

pytestmark = pytest.mark.system

STEPS, APART = 20_000, 4_000
"""The test ends a run by what it has done, which it sees from its milestones: however fast it is, most is left."""

MILESTONES = f"budget.milestone_steps={APART}"
SETTINGS = ("--lockstep", "--steps", STEPS, "--seed", 7, "--episodes", 20, "--json", "--set", MILESTONES)
SETTINGS += ("--set", "replay.min_size=2000", "--set", "exploration.random_steps=1000")


HELPERS = {"actor_node.evaluation.evaluator_process", "multiprocessing.resource_tracker"}
"""Evaluations in training; from Python 3.14 on also what multiprocessing starts for tensorboardX's queue."""


def start(commands: Commands, run: Path, *more: object) -> subprocess.Popen[bytes]:
    return commands.start("shoal", "train", *more, "--run", run, *SETTINGS)


def commands_beside(train: subprocess.Popen[bytes]) -> set[str]:
    """Returns the descendants of a process: helpers by their names, all others by their command lines."""
    found = set()
    for process in family(train):
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(process.cmdline())
            found.add(next((helper for helper in HELPERS if helper in line), line))
    return found - {""}  # of a process that has ended


def result(train: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert train.wait(2 * PATIENCE_S) == 0, log_of(train)
    line = next(line for line in log_of(train).splitlines() if line.startswith("{"))
    found: dict[str, Any] = json.loads(line[: line.rindex("}") + 1])
    # Their dates differ, and so do which of them fit into their share of the time, and the name of the directory.
    return {name: value for name, value in found.items() if name not in ("evaluations", "next_steps")}


def until_done(run: Path, steps: int) -> None:
    wait_until((run / "milestones" / f"{steps:010}" / "run.toml").exists, f"{steps:,} environment steps")


def test_a_signal_while_the_networks_are_made_ends_the_run_at_once(commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for number, code, what in ((signal.SIGTERM, 0, "simple_spread"), (signal.SIGINT, 130, "--resume")):
        train = start(commands, run, what)
        wait_until(lambda train=train: "starting in one process" in log_of(train), "the first line of the start")
        began = time.monotonic()
        train.send_signal(number)
        assert train.wait(PATIENCE_S) == code, log_of(train)
        assert time.monotonic() - began < 5
        assert f"shoal train --resume --lockstep --actors 2 --copies 32 --threads 1 --run {run}" in log_of(train)
        assert "[0:00]" not in log_of(train)


def test_one_process_gives_the_same_bits_however_often_it_is_ended(commands: Commands, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    first = start(commands, whole, "simple_spread")
    until_done(whole, APART)
    assert commands_beside(first) <= HELPERS
    code, _, err = commands.run("shoal", "status", whole)
    assert (code, "in lockstep" in err) == (2, True), err

    train = start(commands, parts, "simple_spread")
    until_done(parts, APART)
    began = time.monotonic()
    train.send_signal(signal.SIGINT)
    assert train.wait(PATIENCE_S) == 130, log_of(train)
    assert time.monotonic() - began < 10
    assert "--resume --lockstep --actors 2 --copies 32" in log_of(train)

    train = start(commands, parts, "--resume")
    until_done(parts, 3 * APART)
    kill(train.pid)
    train.wait()

    expected, found = result(first), result(start(commands, parts, "--resume"))
    assert found == expected
    assert len(found["weights_hash"]) == 32
    directory = RunDirectory(parts)
    assert directory.finished_file.exists()
    assert json.loads(directory.evaluation_file.read_text()) == found
    assert not (parts / "lockstep").exists()
    assert "finished after" in (parts / "logs" / "lockstep.log").read_text()
    assert metrics_of(parts)[-1]["env_steps"] == STEPS
