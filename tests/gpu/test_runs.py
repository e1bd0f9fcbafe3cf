"""Runs of real processes on a GPU, and runs that change the device when they are resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from common.policy.file import load_policy
from learner_node.persistence.checkpoints import read_newest
from tests.system.conftest import Commands, log_of, metrics_of

pytestmark = pytest.mark.timeout(200)
SMALL = ("--actors", 1, "--copies", 16, "--set", "replay.min_size=1000", "--set", "exploration.random_steps=500")
GPU_STATE, CPU_STATE = 16, len(torch.Generator().get_state())


@pytest.fixture(name="commands")
def commands_fixture(tmp_path: Path) -> Any:
    started = Commands(tmp_path)
    yield started
    started.kill_all()


def train(commands: Commands, *options: object) -> int:
    """Trains and returns the number of updates."""
    code, out, err = commands.run(
        "shoal", "train", *options, "--episodes", 20, "--no-film", "--redis", "none", "--json", timeout_s=120
    )
    assert code == 0, err
    return int(json.loads(out)["updates"])


def newest(run: Path) -> tuple[int, int]:
    """Returns the updates of the newest checkpoint, and the size of its random numbers' state."""
    state = read_newest(run / "checkpoints").state
    assert state is not None
    state.check()
    return state.counters.updates, len(state.tensors["random_state"])


def test_a_run_trains_on_a_gpu_continues_on_the_cpu_and_returns(commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = train(commands, "simple_spread", "--gpu", "--time", "8s", "--run", run, *SMALL)
    assert first > 20
    assert newest(run) == (first, GPU_STATE)
    assert float(metrics_of(run)[-1]["updates"]) > 0  # type: ignore[arg-type]
    second = train(commands, "--resume", "--run", run, "--time", "13s")
    assert second > first
    assert newest(run) == (second, CPU_STATE)
    third = train(commands, "--resume", "--gpu", "--run", run, "--time", "18s")
    assert third > second
    assert newest(run) == (third, GPU_STATE)
    assert load_policy(run / "policy.safetensors").updates == third


@pytest.mark.parametrize(("engine", "algorithm"), [("stacked", "joint"), ("autograd", "masac")])
def test_a_learner_trains_on_a_gpu(commands: Commands, tmp_path: Path, engine: str, algorithm: str) -> None:
    private = ("--metrics-port", 0)
    commands.start("replay", "--bind", "ipc://replay", "--redis", "none", *private)
    commands.start("actor", "--replay", "ipc://replay", "--weights", "ipc://weights", "--copies", 16, *private)
    settings = (f"algorithm.engine={engine}", f"algorithm.name={algorithm}", "replay.priority_exponent=0.6")
    learner = commands.start(
        "learner", "--gpu", "--scenario", "simple_spread", "--time", "6s", "--run", "run",
        "--replay", "ipc://replay", "--bind", "ipc://weights", *private,
        *(part for setting in (*settings, "algorithm.normalise_observations=true", "replay.min_size=1000")
          for part in ("--set", setting)),
    )  # fmt: skip
    assert learner.wait(120) == 0, log_of(learner)
    assert "cannot be captured" not in log_of(learner)
    assert newest(tmp_path / "run")[0] > 20
