"""What a user can get wrong: one line that names the value and the way out, and the documented exit code."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from common.process import command as command_line
from shoal.cli import shoal

from .conftest import Commands


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the GPUs of a machine that has some."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def assert_one_line(command: str, out: str, err: str, words: list[str]) -> None:
    assert "Traceback" not in err
    last = [line for line in err.splitlines() if line.strip()][-1]
    assert last.startswith(f"{command}: ")
    for word in words:
        assert word in last
    assert out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "simple_sprd"], ["simple_sprd", "simple_spread"]),
        (["train"], ["shoal scenarios"]),
        (["train", "simple_spread", "--actorss", "2"], ["--actorss", "--actors"]),
        (["train", "simple_spread", "--actors", "0"], ["--actors", "0", ">= 1"]),
        (["train", "simple_spread", "--actors", "two"], ["two", "--actors"]),
        (["train", "simple_spread", "--time", "5 parsecs"], ["5 parsecs", "5m"]),
        (["train", "simple_spread", "--set", "world.N=x"], ["N", "x"]),
        (["train", "simple_spread", "--set", "world.M=3"], ["M", "local_ratio"]),
        (["train", "simple_spread", "--set", "replay.capcity=3"], ["capcity", "capacity"]),
        (["train", "simple_spread", "--set", "replay.capacity"], ["replay.capacity", "section.key=value"]),
        (["train", "simple_spread", "--set", "replay.batch=many"], ["replay.batch", "many"]),
        (["train", "simple_spread", "--algorithm", "ppo"], ["ppo", "maddpg"]),
        (["train", "simple_spread", "--preset", "slow"], ["slow", "fast"]),
        (["train", "--resume"], ["--run"]),
        (["train", "--resume", "--run", "nowhere"], ["nowhere", "run.toml"]),
        (["status", "--replay", "nonsense"], ["nonsense", "tcp://"]),
    ],
    ids=" ".join,
)
def test_one_line_of_the_command_in_this_process(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line.run(shoal, "shoal", arguments) == 2
    assert_one_line("shoal", *capsys.readouterr(), words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.system
@pytest.mark.parametrize(
    ("command", "arguments", "code", "words"),
    [
        ("shoal", ["train", "simple_spread", "--gpu", "--time", "1s"], 2, ["CUDA", "--gpu"]),
        ("shoal", ["evaluate", "nowhere"], 2, ["nowhere", "run.toml"]),
        ("shoal", ["status", "--replay", "tcp://127.0.0.1:1"], 3, ["tcp://127.0.0.1:1"]),
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
    assert_one_line(command, out, err, words)


@pytest.mark.system
def test_unknown_toml_key(commands: Commands, tmp_path: Path) -> None:
    file = tmp_path / "shoal.toml"
    file.write_text("actor = 3\n")
    code, _, err = commands.run("shoal", "train", "simple_spread", "--config", file)
    assert (code, "actors" in err, str(file) in err) == (2, True, True)


@pytest.mark.system
def test_unknown_toml_setting(commands: Commands, tmp_path: Path) -> None:
    file = tmp_path / "shoal.toml"
    file.write_text("[replay]\ncapcity = 3\n")
    code, _, err = commands.run("shoal", "train", "simple_spread", "--config", file)
    assert (code, "replay.capcity" in err, "capacity" in err) == (2, True, True)


@pytest.mark.system
def test_a_directory_that_holds_another_run(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    code, _, err = commands.run("shoal", "train", "simple_spread", "--run", "run")
    assert (code, "run" in err, "not empty" in err) == (2, True, True)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


@pytest.mark.system
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
