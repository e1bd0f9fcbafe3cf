"""No room under the run's directory: an error that names the path and the way out; what was there stays whole."""

from __future__ import annotations

import itertools
import json
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from common.errors import ShoalError
from common.run.directory import RunDirectory
from learner_node.persistence.checkpoints import Checkpoints
from learner_node.persistence.state import Counters, TrainingState
from learner_node.reporting.metrics_log import MetricsLog
from learner_node.update.update_stats import Losses
from tests.common.examples import make_run

ROOM_BYTES = 20_000
FIGURES = Losses([0.5], [1.0], [3.0], [4.0], [5.0])


@contextmanager
def little_room() -> Iterator[None]:
    """Lets no file of this process grow beyond ROOM_BYTES: the system then refuses writes as on a full disk.

    Not for a whole test: what pytest itself prints may go to a file that is longer already.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def state_of(numbers: int, updates: int) -> TrainingState:
    return TrainingState({"weights": torch.full((numbers,), float(updates))}, Counters(updates=updates))


def test_a_checkpoint_for_which_there_is_no_room_leaves_those_before_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(state_of(3, 1), best=False)
    refused = rf"{tmp_path}/\S+ cannot be written: File too large. Free disk space.*--resume"
    with pytest.raises(ShoalError, match=refused), little_room():
        checkpoints.save(state_of(ROOM_BYTES, 2), best=True)
    state = checkpoints.load()
    assert state
    assert state.counters.updates == 1
    assert [path.name for path in tmp_path.iterdir()] == ["updates-0000000001.safetensors"]


def write_until_refused(path: str) -> None:
    """Says what the refusal was, and whether closing was refused too."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, ROOM_BYTES))
    logbook = MetricsLog(RunDirectory(Path(path)), make_run())
    try:
        # Until it is noticed: how many lines TensorBoard's threads are behind, the machine decides.
        for updates in itertools.count():
            logbook.write(updates, {"env_steps": updates}, FIGURES, None)
    except ShoalError as e:
        print(e)
    try:
        logbook.close()
    except ShoalError as e:
        print("closing:", e)


def said_when_refused(path: Path) -> str:
    """Lets another process write into `path`: TensorBoard's threads die there of what is refused, at their own time."""
    call = f"from {__name__} import write_until_refused; write_until_refused({str(path)!r})"
    process = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True)
    return process.stdout


@pytest.mark.slow
def test_figures_for_which_there_is_no_room_leave_whole_lines(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.metrics_file.write_text("{}\n" * (ROOM_BYTES // 3 - 100))
    assert "metrics.jsonl cannot be written" in said_when_refused(tmp_path)
    *lines, rest = directory.metrics_file.read_text().split("\n")
    assert rest == ""
    assert json.loads(lines[-1])["updates"] >= 0


@pytest.mark.slow
def test_a_tensorboard_that_has_no_room_is_noticed_and_does_not_hold_the_learner(tmp_path: Path) -> None:
    RunDirectory(tmp_path).metrics_file.symlink_to("/dev/null")
    writing, *closing = said_when_refused(tmp_path).splitlines()
    assert "tensorboard" in writing
    # A thread that ended may have left nothing to be written at the end.
    assert all(re.match("closing: .*cannot be written", said) for said in closing)
