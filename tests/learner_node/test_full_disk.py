"""No room under the run's directory: an error that names the path and the way out; what was there stays whole."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from common.errors import ShoalError
from common.run_directory import RunDirectory
from learner_node.algorithms.measured import Figures
from learner_node.checkpoints import Checkpoints
from learner_node.logbook import Logbook
from learner_node.state import Counters, TrainingState

ROOM_BYTES = 20_000
FIGURES = Figures([0.5], [1.0], [3.0], [4.0], [5.0])


@pytest.fixture
def little_room() -> Iterator[None]:
    """Lets no file of this process grow beyond ROOM_BYTES: the system then refuses writes as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def state_of(numbers: int, updates: int) -> TrainingState:
    return TrainingState({"weights": torch.full((numbers,), float(updates))}, Counters(updates=updates))


@pytest.mark.usefixtures("little_room")
def test_a_checkpoint_for_which_there_is_no_room_leaves_those_before_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(state_of(3, 1), best=False)
    with pytest.raises(ShoalError, match=rf"{tmp_path}/\S+ cannot be written: File too large; make room.*--resume"):
        checkpoints.save(state_of(ROOM_BYTES, 2), best=True)
    state = checkpoints.load()
    assert state
    assert state.counters.updates == 1
    assert [path.name for path in tmp_path.iterdir()] == ["updates-0000000001.safetensors"]


def write_until_refused(logbook: Logbook) -> str:
    try:
        for updates in range(10_000):
            logbook.write(updates, {"env_steps": updates}, FIGURES, None)
    except ShoalError as e:
        return str(e)
    pytest.fail("everything was written")


@pytest.mark.usefixtures("little_room")
def test_figures_for_which_there_is_no_room_leave_whole_lines(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.metrics_file.write_text("{}\n" * (ROOM_BYTES // 3 - 100))
    logbook = Logbook(directory)
    assert "metrics.jsonl cannot be written" in write_until_refused(logbook)
    logbook.close()
    *lines, rest = directory.metrics_file.read_text().split("\n")
    assert rest == ""
    assert json.loads(lines[-1])["updates"] >= 0


@pytest.mark.usefixtures("little_room")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_tensorboard_that_has_no_room_is_noticed_and_does_not_hold_the_learner(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.metrics_file.symlink_to("/dev/null")
    logbook = Logbook(directory)
    assert "tensorboard" in write_until_refused(logbook)
    with pytest.raises(ShoalError, match="cannot be written"):
        logbook.close()
