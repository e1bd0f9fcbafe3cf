"""The same run started by hand, one command a shell, in any order."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from common.run.directory import RunDirectory
from deploy.local.embedded_redis import find_server
from tests.conftest import PATIENCE_S, wait_until

from .conftest import Commands, log_of, metrics_of, status_at

pytestmark = pytest.mark.system

ORDERS = [
    ("redis", "replay", "learner", "actor"),
    ("actor", "learner", "replay", "redis"),
    ("learner", "actor", "replay"),
]
"""Without a Redis the replay server keeps its transitions in RAM only."""


def commands_by_hand(directory: Path, *, redis: bool, budget: tuple[object, ...]) -> dict[str, list[object]]:
    """Returns each command's arguments, over sockets in a directory."""
    replay, weights, server = (f"{directory / name}" for name in ("replay", "weights", "redis"))
    data = ["--dir", directory, "--save", "", "--appendonly", "yes"]
    run = ["--scenario", "simple_spread", "--run", directory / "run", "--set", "replay.min_size=1000"]
    links = ["--replay", f"ipc://{replay}", "--metrics-port", 0]
    where = f"unix://{server}" if redis else "none"
    return {
        "redis": ["--port", 0, "--unixsocket", server, *data],
        "replay": ["--bind", f"ipc://{replay}", "--redis", where, "--metrics-port", 0],
        "learner": [*run, *budget, *links, "--bind", f"ipc://{weights}"],
        "actor": ["--n", 2, "--copies", 16, *links, "--weights", f"ipc://{weights}"],
    }


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_in_any_order(commands: Commands, tmp_path: Path, order: tuple[str, ...]) -> None:
    arguments = commands_by_hand(tmp_path, redis="redis" in order, budget=("--steps", 12_000))
    programs = {"redis": find_server()}
    started = {name: commands.start(programs.get(name, name), *arguments[name]) for name in order}

    assert started["learner"].wait(PATIENCE_S) == 0, log_of(started["learner"])

    assert RunDirectory(tmp_path / "run").policy_file.exists()
    code, out, err = commands.run("shoal", "evaluate", tmp_path / "run", "--episodes", 10)
    assert code == 0, err
    assert "return S" in out
    wait_until(lambda: "is finished" in log_of(started["actor"]), "the actors say why they wait")
    for name in ("actor", "replay"):
        assert started[name].poll() is None, log_of(started[name])
        started[name].send_signal(signal.SIGTERM)
        assert started[name].wait(PATIENCE_S) == 0, log_of(started[name])


def test_waiting_for_actors_is_no_training(commands: Commands, tmp_path: Path) -> None:
    small = ("--set", "network.policy_hidden=[8]", "--set", "network.critic_hidden=[8]", "--set", "replay.batch=64")
    arguments = commands_by_hand(tmp_path, redis=False, budget=("--time", "4s", *small))
    commands.start("replay", *arguments["replay"])
    learner = commands.start("learner", *arguments["learner"])
    endpoint = f"ipc://{tmp_path / 'replay'}"
    wait_until(
        lambda: (s := status_at(endpoint)) and s.learner and s.learner.waited_s + s.uptime_s > 6, "6 s of waiting"
    )
    assert learner.poll() is None

    commands.start("actor", *arguments["actor"])

    assert learner.wait(PATIENCE_S) == 0, log_of(learner)
    assert int(metrics_of(tmp_path / "run")[-1]["updates"]) > 100  # type: ignore[call-overload]
