"""A learner under a service manager: started with the same options every time, whatever it finds."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from common.run.open_run import RunOptions, open_run
from tests.conftest import PATIENCE_S, wait_until

from .conftest import Commands, log_of

pytestmark = pytest.mark.system


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The directory of a run that has used its budget of a minute."""
    options = RunOptions(time=60.0)
    directory, _ = open_run(str(tmp_path / "run"), "simple_spread", options, {}, resume=False, role="test")
    directory.finished_file.touch()
    return directory.path


def options_of_a_service(run: Path) -> tuple[object, ...]:
    """Returns what a service manager starts a learner with."""
    addresses = ("--replay", f"ipc://{run.parent / 'replay'}", "--bind", f"ipc://{run.parent / 'weights'}")
    return ("--resume", "--scenario", "simple_spread", "--time", "60s", "--run", run, *addresses, "--metrics-port", 0)


def test_it_has_not_failed_when_its_run_is_done(commands: Commands, finished: Path) -> None:
    code, _, err = commands.run("learner", *options_of_a_service(finished))
    assert code == 0
    assert "has used its budget. Pass a larger total" in err


def test_told_to_stay_it_waits_for_its_end(commands: Commands, finished: Path) -> None:
    learner = commands.start("learner", *options_of_a_service(finished), "--stay")
    wait_until(lambda: "the run is done" in log_of(learner), "the learner to say so")
    learner.send_signal(signal.SIGTERM)
    assert learner.wait(PATIENCE_S) == 0


def test_it_begins_a_run_that_is_not_there_yet(commands: Commands, tmp_path: Path) -> None:
    for run_again in range(2):
        learner = commands.start("learner", *options_of_a_service(tmp_path / "new"))
        wait_until(lambda process=learner: "of simple_spread in" in log_of(process), f"start {run_again}")
        learner.send_signal(signal.SIGTERM)
        assert learner.wait(PATIENCE_S) == 0, log_of(learner)
