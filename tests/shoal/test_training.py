"""`shoal.train`, `shoal.evaluate` and `Run`: what the commands do, as a library does it."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

import shoal
from common.errors import FinishedError
from common.policy.file import load_policy
from common.process import command
from common.run.open_run import RunOptions
from deploy.local.config import TrainConfig
from shoal.cli import shoal as shoal_command
from shoal.training import ResumeOptions, _settings_by_section
from tests.conftest import PATIENCE_S
from tests.shoal.test_import import ROOT, run
from tests.system.conftest import status_at

__all__ = ["run"]

SMALL: dict[str, Any] = {
    "network": {"policy_hidden": (8,), "critic_hidden": (8,)},
    "replay.batch": 32,
    "replay.min_size": 300,
    "replay": {"capacity": 700},
}
LOCKSTEP: dict[str, Any] = {
    "lockstep": True,
    "actors": 1,
    "copies": 10,
    "episodes": 0,
    "film": False,
    "progress": False,
}


# ---- in lockstep, in this process -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_in_lockstep_gives_the_bits_of_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handlers, root = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)], list(logging.getLogger().handlers)
    before = dict(os.environ)
    ours = shoal.train("simple_spread", run=tmp_path / "api", steps=1_000, settings=SMALL, seed=3, **LOCKSTEP)
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == before
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert logging.getLogger().handlers == root
    assert (ours.finished, ours.directory, ours.scenario) == (True, tmp_path / "api", "simple_spread")
    assert (ours.settings.replay.batch, ours.settings.replay.capacity) == (32, 700)
    assert ours.evaluation is None
    assert ours.metrics[-1]["env_steps"] >= 1_000
    log = (tmp_path / "api" / "logs" / "lockstep.log").read_text("utf-8")
    assert "finished after" in log

    sets = ("network.policy_hidden=[8]", "network.critic_hidden=[8]", "replay.batch=32", "replay.min_size=300")
    options = [part for one in (*sets, "replay.capacity=700") for part in ("--set", one)]
    line = ["train", "simple_spread", "--run", str(tmp_path / "line"), "--steps", "1000", "--seed", "3", "--lockstep"]
    size = ["--actors", "1", "--copies", "10", "--episodes", "0", "--no-film"]
    done = subprocess.run(
        [sys.executable, "-m", "shoal", *line, *size, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert load_policy(tmp_path / "line" / "policy.safetensors").digest == ours.team.weights_hash


@pytest.mark.slow
def test_a_run_is_resumed_evaluated_and_reported(tmp_path: Path) -> None:
    trained = shoal.train("simple_spread", run=str(tmp_path / "run"), steps=600, settings=SMALL, **LOCKSTEP)
    first = trained.team.updates
    assert trained.resume(steps=2_000) is trained
    assert trained.team.updates > first
    with pytest.raises(FinishedError, match="has used its budget"):
        trained.resume(steps=2_000)
    # Another handle knows from machine.json how the run was started.
    again = shoal.Run(tmp_path / "run").resume(steps=2_500, episodes=0, film=False, progress=False)
    assert (again.finished, again.settings.budget.steps) == (True, 2_500)
    result = again.evaluate(episodes=20, progress=False)
    assert (result.episodes, result.checked_in_mpe2) == (20, 20)
    assert again.evaluation == result == shoal.evaluate(again, 20, progress=False)
    assert again.report() == tmp_path / "run" / "report.html"
    assert again.report(tmp_path / "other.html").exists()
    assert "finished" in repr(again)


@pytest.mark.slow
def test_a_thread_that_is_not_the_main_one_trains(tmp_path: Path) -> None:
    found: list[shoal.Run] = []

    def work() -> None:
        found.append(shoal.train("simple", run=tmp_path / "run", steps=600, settings=SMALL, **LOCKSTEP))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(100)
    assert found[0].finished


def test_parameters_are_the_commands_options() -> None:
    parameters = set(inspect.signature(shoal.train).parameters)
    options = {*TrainConfig.__struct_fields__, *RunOptions.__struct_fields__}
    assert parameters - options == {"scenario", "settings", "film", "progress"}
    assert options - parameters == {"set", "no_film", "json"}
    of_resume = set(ResumeOptions.__annotations__)
    about_the_run = {"scenario", "run", "resume", "time", "steps", "seed", "algorithm", "preset", "max_episode_steps"}
    about_the_run.add("start_from")
    assert parameters - of_resume == about_the_run


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "options", "words"),
    [
        ("simple_spraed", {}, "there is no scenario 'simple_spraed'; did you mean simple_spread"),
        ("simple", {"time": "5 minutes"}, "time = '5 minutes' is not a duration. Write 300, 90s, 5m or 1h30m."),
        ("simple", {"actors": 0}, "actors = 0: expected `int` >= 1"),
        ("simple", {"settings": {"replay.bacth": 3}}, "replay.bacth is not a setting; did you mean replay.batch?"),
        ("simple", {"settings": {"seed": 1, "seed.x": 2}}, "seed.x = 2, but seed also has a value"),
        ("simple", {"preset": "slow"}, "preset = 'slow': not one of 'auto', 'particle', 'control', 'fast'"),
        ("simple", {"lockstep": True, "audit": True}, "--lockstep does not support --audit"),
        ("", {}, "No scenario is given"),
        ("", {"resume": True}, "--resume needs the run's directory"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    scenario: str, options: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(shoal.ConfigError) as error:
        shoal.train(scenario, **options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_parameter_of_resume_is_named(run: Path) -> None:
    with pytest.raises(shoal.ConfigError, match="actor is not a parameter of resume; did you mean actors"):
        shoal.Run(run).resume(actor=3)  # type: ignore[call-arg]


def test_what_is_not_a_run_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(shoal.ConfigError, match=r"is a file\. Pass the directory of its run"):
        shoal.evaluate(run / "policy.safetensors")
    with pytest.raises(shoal.ConfigError, match=r"no run\.toml"):
        shoal.Run(tmp_path / "none")
    with pytest.raises(shoal.ConfigError, match="--real excludes --fast"):
        shoal.evaluate(run, real=True, fast=True)
    assert not shoal.Run(str(run)).finished
    assert shoal.Run(run).metrics == []


@pytest.mark.slow
def test_gpu_without_cuda_is_refused_before_there_is_a_directory(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(shoal.ConfigError, match="has no CUDA device"):
        shoal.train("simple", run=tmp_path / "run", gpu=True)
    line = ["train", "simple", "--gpu", "--run", str(tmp_path / "run")]
    assert command.run(shoal_command, "shoal", line) == 2
    assert not (tmp_path / "run").exists()


def test_a_wrong_duration_is_named_by_its_parameter(run: Path) -> None:
    with pytest.raises(shoal.ConfigError, match=r"^seconds = '5x' is not a duration"):
        shoal.check("simple", seconds="5x")
    with pytest.raises(shoal.ConfigError, match=r"^within = '5x' is not a duration"):
        shoal.evaluate(run, within="5x")


def test_settings_with_dots_and_without_are_one(tmp_path: Path) -> None:
    mixed = {"world": {"N": 5}, "world.max_cycles": 7, "replay.batch": 64, "replay": {"capacity": 100}, "seed": 2}
    assert _settings_by_section(mixed) == {
        "world": {"N": 5, "max_cycles": 7},
        "replay": {"batch": 64, "capacity": 100},
        "seed": 2,
    }


# ---- processes ------------------------------------------------------------------------------------------------------

SCRIPT = """
import signal, sys, threading
import shoal

def train(**more):
    return shoal.train("simple", run=sys.argv[1], actors=1, copies=8, film=False,
                       settings={"replay.min_size": 300, "replay.batch": 32}, **more)
"""
IN_A_THREAD = """
found = []
thread = threading.Thread(target=lambda: found.append(train(steps=1500, episodes=5)))
thread.start()
thread.join()
assert found[0].finished and found[0].evaluation.episodes == 5
"""


@pytest.mark.system
def test_a_script_without_a_guarded_main_part_trains_in_a_thread_that_ends(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + IN_A_THREAD, "utf-8")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "run")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "report:" in done.stderr


INTERRUPTED = """
def mine(*_):
    print("mine", flush=True)
signal.signal(signal.SIGTERM, mine)
try:
    train(steps=10**9)
except KeyboardInterrupt:
    print("interrupted", signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)
print(shoal.Run(sys.argv[1]).finished, flush=True)
"""


def learns(run: Path) -> bool:
    """Whether the learner of a run has reported an update."""
    status = status_at(f"ipc://{run.resolve()}/sockets/replay")
    return status is not None and status.learner is not None and status.learner.updates > 0


@pytest.mark.system
@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, "interrupted True\nFalse\n"), (signal.SIGTERM, "mine\nFalse\n")]
)
def test_a_signal_ends_a_run_in_seconds_and_is_the_callers(
    tmp_path: Path, number: int, said: str, eventually: Any
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + INTERRUPTED, "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-u", str(script), str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        eventually(lambda: learns(tmp_path / "run"), "updates")
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert out == said, err
    assert "stopped; resume with: shoal train --resume" in err
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert list((tmp_path / "run" / "checkpoints").iterdir())
