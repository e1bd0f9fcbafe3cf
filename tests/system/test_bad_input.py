"""What a user can get wrong: one line that names the value and the way out, and the documented exit code."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from .conftest import Commands

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the GPUs of a machine that has some."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.parametrize(
    ("command", "arguments", "code", "words"),
    [
        ("shoal", ["train", "simple_sprd"], 2, ["simple_sprd", "simple_spread"]),
        ("shoal", ["train"], 2, ["shoal scenarios"]),
        ("shoal", ["train", "simple_spread", "--actorss", "2"], 2, ["--actorss", "--actors"]),
        ("shoal", ["train", "simple_spread", "--actors", "0"], 2, ["--actors", "0", ">= 1"]),
        ("shoal", ["train", "simple_spread", "--actors", "two"], 2, ["two", "--actors"]),
        ("shoal", ["train", "simple_spread", "--time", "5 parsecs"], 2, ["5 parsecs", "5m"]),
        ("shoal", ["train", "simple_spread", "--set", "world.N=x"], 2, ["N", "x"]),
        ("shoal", ["train", "simple_spread", "--set", "world.M=3"], 2, ["M", "local_ratio"]),
        ("shoal", ["train", "simple_spread", "--set", "replay.capcity=3"], 2, ["capcity", "capacity"]),
        ("shoal", ["train", "simple_spread", "--set", "replay.capacity"], 2, ["replay.capacity", "section.key=value"]),
        ("shoal", ["train", "simple_spread", "--set", "replay.batch=many"], 2, ["replay.batch", "many"]),
        ("shoal", ["train", "simple_spread", "--algorithm", "ppo"], 2, ["ppo", "maddpg"]),
        ("shoal", ["train", "simple_spread", "--preset", "slow"], 2, ["slow", "fast"]),
        ("shoal", ["train", "--resume"], 2, ["--run"]),
        ("shoal", ["train", "--resume", "--run", "nowhere"], 2, ["nowhere", "run.toml"]),
        ("shoal", ["train", "simple_spread", "--gpu", "--time", "1s"], 2, ["CUDA", "--gpu"]),
        ("shoal", ["evaluate", "nowhere"], 2, ["nowhere", "run.toml"]),
        ("shoal", ["status", "--replay", "tcp://127.0.0.1:1"], 3, ["tcp://127.0.0.1:1"]),
        ("shoal", ["status", "--replay", "nonsense"], 2, ["nonsense", "tcp://"]),
        (
            "replay",
            ["--redis", "redis://127.0.0.1:1", "--redis-wait", "1", "--metrics-port", "0", "--bind", "ipc://r"],
            3,
            ["127.0.0.1:1"],
        ),
        (
            "replay",
            ["--redis", "none", "--bind", "tcp://0.0.0.0:0", "--metrics-port", "0"],
            2,
            ["0.0.0.0", "--insecure"],
        ),
        ("replay", ["--redis", "none", "--durability", "fsync", "--metrics-port", "0"], 2, ["fsync", "--redis"]),
        ("learner", [], 2, ["scenario"]),
        ("learner", ["--scenario", "simple_spread", "--gpu", "--metrics-port", "0"], 2, ["CUDA", "--gpu"]),
        ("actor", ["--n", "0"], 2, ["--n", "0"]),
        ("actor", ["--replay", "ipc://nobody", "--peer-timeout", "1s", "--metrics-port", "0"], 3, ["ipc://nobody"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_one_line_and_the_exit_code(
    commands: Commands, command: str, arguments: list[str], code: int, words: list[str]
) -> None:
    found, out, err = commands.run(command, *arguments)

    assert found == code, err
    assert "Traceback" not in err
    last = [line for line in err.splitlines() if line.strip()][-1]
    assert last.startswith(f"{command}: ")
    for word in words:
        assert word in last
    assert out == ""


def test_unknown_toml_key(commands: Commands, tmp_path: Path) -> None:
    file = tmp_path / "shoal.toml"
    file.write_text("actor = 3\n")
    code, _, err = commands.run("shoal", "train", "simple_spread", "--config", file)
    assert (code, "actors" in err, str(file) in err) == (2, True, True)


def test_unknown_toml_setting(commands: Commands, tmp_path: Path) -> None:
    file = tmp_path / "shoal.toml"
    file.write_text("[replay]\ncapcity = 3\n")
    code, _, err = commands.run("shoal", "train", "simple_spread", "--config", file)
    assert (code, "replay.capcity" in err, "capacity" in err) == (2, True, True)


def test_a_directory_that_holds_another_run(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    code, _, err = commands.run("shoal", "train", "simple_spread", "--run", "run")
    assert (code, "run" in err, "not empty" in err) == (2, True, True)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("command", ["replay", "actor"])
def test_a_port_in_use(commands: Commands, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        redis = ["--redis", "none"] if command == "replay" else []
        code, _, err = commands.run(command, "--metrics-port", port, *redis)
        assert (code, port in err, "0 for any" in err) == (2, True, True)
        if command == "replay":
            code, _, err = commands.run(command, "--bind", f"tcp://127.0.0.1:{port}", "--metrics-port", "0", *redis)
            assert (code, port in err, "in use" in err) == (2, True, True)
