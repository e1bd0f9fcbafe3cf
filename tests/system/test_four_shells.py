"""The same run started by hand, one command a shell, in any order."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from common.run_directory import RunDirectory
from deploy.embedded_redis import find_server

from .conftest import Commands, log_of, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

ORDERS = [("redis", "replay", "learner", "actor"), ("actor", "learner", "replay", "redis")]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_in_any_order(commands: Commands, tmp_path: Path, order: tuple[str, ...]) -> None:
    run = tmp_path / "run"
    replay, weights = (f"ipc://{tmp_path / name}" for name in ("replay", "weights"))
    port = ("--metrics-port", 0)
    arguments: dict[str, tuple[object, ...]] = {
        "redis": (
            "--port",
            0,
            "--unixsocket",
            tmp_path / "redis.sock",
            "--dir",
            tmp_path,
            "--save",
            "",
            "--appendonly",
            "yes",
        ),
        "replay": ("--bind", replay, "--redis", f"unix://{tmp_path / 'redis.sock'}", *port),
        "learner": (
            "--scenario",
            "simple_spread",
            "--steps",
            12_000,
            "--run",
            run,
            "--replay",
            replay,
            "--bind",
            weights,
            *port,
            "--set",
            "replay.min_size=1000",
        ),
        "actor": ("--n", 2, "--copies", 16, "--replay", replay, "--weights", weights, *port),
    }
    names = {"redis": find_server()}
    started = {name: commands.start(names.get(name, name), *arguments[name]) for name in order}

    assert started["learner"].wait(120) == 0, log_of(started["learner"])

    assert RunDirectory(run).policy_file.exists()
    code, out, err = commands.run("shoal", "evaluate", run, "--episodes", 10)
    assert code == 0, err
    assert "return S" in out
    until(
        lambda: "finished" in log_of(started["actor"]) or "learner" in log_of(started["actor"]), 30, "a word on the end"
    )
    for name in ("actor", "replay"):
        assert started[name].poll() is None, log_of(started[name])
        started[name].send_signal(signal.SIGTERM)
        assert started[name].wait(15) == 0, log_of(started[name])
