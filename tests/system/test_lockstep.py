"""`shoal train --lockstep` as a user has it: one process, the same bits after Ctrl-C and after kill -9."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from common.run_directory import RunDirectory

from .conftest import Commands, family, kill, log_of, metrics_of, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SETTINGS = ("--lockstep", "--steps", 32_000, "--seed", 7, "--episodes", 20, "--json")


def start(commands: Commands, run: Path, *more: object) -> subprocess.Popen[bytes]:
    return commands.start("shoal", "train", *more, "--run", run, *SETTINGS)


def result(train: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert train.wait(240) == 0, log_of(train)
    line = next(line for line in log_of(train).splitlines() if line.startswith("{"))
    found: dict[str, Any] = json.loads(line[: line.rindex("}") + 1])
    return found


def lines(run: Path) -> int:
    return len(metrics_of(run)) if (run / "metrics.jsonl").exists() else 0


def test_one_process_gives_the_same_bits_however_often_it_is_ended(commands: Commands, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    first = start(commands, whole, "simple_spread")
    until(lambda: lines(whole) > 0, 60, "figures")
    assert family(first) == []
    code, _, err = commands.run("shoal", "status", whole)
    assert (code, "in lockstep" in err) == (2, True), err

    train = start(commands, parts, "simple_spread")
    until(lambda: lines(parts) > 0, 60, "figures")
    began = time.monotonic()
    train.send_signal(signal.SIGINT)
    assert train.wait(20) == 130, log_of(train)
    assert time.monotonic() - began < 10
    assert "--resume --lockstep --actors 2 --copies 32" in log_of(train)
    written = lines(parts)

    train = start(commands, parts, "--resume")
    until(lambda: lines(parts) > written, 60, "figures")
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
    assert metrics_of(parts)[-1]["env_steps"] == 32_000
