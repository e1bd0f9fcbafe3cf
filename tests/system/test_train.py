"""`shoal train`, whole: what a newcomer does first, and what happens when its processes die."""

from __future__ import annotations

import contextlib
import json
import math
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from common.run.directory import RunDirectory
from common.wire.messages import Status
from deploy.local.embedded_redis import find_server
from tests.conftest import PATIENCE_S, wait_until
from tests.learner_node.event_files import scalars

from .conftest import Commands, alive, family, kill, log_of, metrics_of, one, status_at

pytestmark = pytest.mark.system

SMALL = ("--actors", 2, "--copies", 16, "--set", "replay.min_size=1000", "--set", "exploration.random_steps=500")


def start_train(commands: Commands, run: Path, seconds: int, *more: object) -> subprocess.Popen[bytes]:
    budget = ("--time", f"{seconds}s", "--run", run, "--episodes", 20)
    return commands.start("shoal", "train", "simple_spread", *budget, *SMALL, *more)


def train_status(run: Path) -> Status | None:
    return status_at(f"ipc://{run.resolve() / 'sockets' / 'replay'}")


def learning(run: Path, env_steps: int = 2_000) -> Status:
    """Waits until updates flow and returns the status."""

    def look() -> Status | None:
        status = train_status(run)
        busy = status is not None and status.learner is not None and status.learner.updates > 20
        return status if busy and status is not None and status.inserts >= env_steps else None

    return wait_until(look, "updates")


def more_updates(run: Path, count: int) -> None:
    """Waits until the learner has done `count` updates more than it reports now."""

    def updates() -> int | None:
        status = train_status(run)
        return status.learner.updates if status and status.learner else None

    before = wait_until(updates, "a report of the learner")
    wait_until(lambda: (updates() or 0) >= before + count, "more updates")


def end(train: subprocess.Popen[bytes]) -> None:
    """Asks a run to end that would go on for long, and sees that it does so cleanly."""
    train.send_signal(signal.SIGTERM)
    assert train.wait(PATIENCE_S) == 0, log_of(train)
    assert family(train) == []


def test_one_command_trains_and_evaluates(commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, out, err = commands.run(
        "shoal",
        "train",
        "simple_spread",
        "--steps",
        60_000,
        "--run",
        run,
        "--episodes",
        20,
        "--json",
        *SMALL,
    )

    assert code == 0, err
    result = json.loads(out)
    assert result["episodes"] == 20
    assert -200 < result["return_mean"] < 0
    low, high = result["return_ci95"]
    assert low <= result["return_mean"] <= high
    directory = RunDirectory(run)
    assert directory.run.spec.scenario == "simple_spread"
    assert directory.policy_file.exists()
    assert any(directory.checkpoints.iterdir())
    figures = scalars(directory.tensorboard)
    *_, (evaluated_at, evaluated) = figures[".", "evaluation/return"]
    assert evaluated == pytest.approx(result["return_mean"])
    assert figures[".", "return_means/agent_0"][-1][0] == evaluated_at, "both over environment steps"
    stored = json.loads(directory.evaluation_file.read_text())
    assert stored == {name: result[name] for name in stored}
    assert result["evaluations"][0]["updates"] == 0
    assert result["next_steps"]
    assert not (run / "sockets").exists()
    assert not (run / "redis").exists()
    lines = metrics_of(run)
    assert lines[-1]["updates"] > 100  # type: ignore[operator]
    realised = float(lines[-1]["samples_per_insert"])  # type: ignore[arg-type]
    assert math.isclose(realised, directory.run.spec.replay.samples_per_insert, rel_tol=0.1)

    # Its transitions are gone with the embedded Redis; its counters and networks are not.
    code, out, err = commands.run(
        "shoal", "train", "--resume", "--run", run, "--steps", 75_000, "--episodes", 20, "--json"
    )
    assert code == 0, err
    assert json.loads(out)["updates"] > result["updates"] + 100
    assert int(metrics_of(run)[-1]["env_steps"]) > int(lines[-1]["env_steps"])  # type: ignore[call-overload]


@pytest.mark.parametrize("redis", ["embedded", "none"])
def test_the_run_survives_kill_9_of_each_of_its_processes(commands: Commands, tmp_path: Path, redis: str) -> None:
    run = tmp_path / "run"
    train = start_train(commands, run, 300, "--redis", redis)
    learning(run)

    worker = one(train, "spawn_main")
    kill(worker.pid)
    wait_until(lambda: not alive(worker.pid), "the worker's end")
    wait_until(
        lambda: (s := train_status(run)) and len([a for a in s.actors if a.seconds_since_seen < 2]) == 2, "2 actors"
    )

    before = learning(run)
    kill(one(train, "replay_server").pid)
    after = wait_until(lambda: (s := train_status(run)) and s.run and s, "the replay server's return")
    if redis == "embedded":
        # What it holds was read back from Redis: at least all that had been acknowledged.
        assert after.size >= before.size - before.unacknowledged_chunks * 1_024

    more_updates(run, 20)

    learner = one(train, "learner_node")
    kill(learner.pid)
    wait_until(lambda: one(train, "learner_node").pid != learner.pid, "a new learner")
    more_updates(run, 20)

    end(train)


def test_the_run_waits_for_redis_says_so_and_goes_on(commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train = start_train(commands, run, 300)
    server = one(train, Path(find_server()).name)
    before = learning(run)

    server.suspend()
    said = wait_until(
        lambda: (s := train_status(run)) and any("Redis" in wait for wait in (*s.waiting, s.last_error)) and s,
        "the reason",
    )
    server.kill()

    wait_until(
        lambda: (s := train_status(run)) and s.inserts > max(before.inserts, said.inserts) + 2_000,
        "new transitions",
    )
    end(train)


def test_ctrl_c_ends_it_cleanly_and_resume_goes_on(commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train = start_train(commands, run, 300)
    stopped_at = learning(run, 4_000)
    code, _, err = commands.run("shoal", "train", "--resume", "--run", run)
    assert (code, f"process {train.pid}" in err) == (2, True), err
    members = family(train)

    began = time.monotonic()
    train.send_signal(signal.SIGINT)
    assert train.wait(PATIENCE_S) == 130, log_of(train)
    assert time.monotonic() - began < 10
    assert not any(alive(member.pid) for member in members)
    assert not (run / "sockets").exists()
    assert "--resume" in log_of(train)
    updates = int(metrics_of(run)[-1]["updates"])  # type: ignore[call-overload]

    again = commands.start("shoal", "train", "--resume", "--run", run)
    status = learning(run)
    assert status.inserts >= stopped_at.inserts
    more_updates(run, 20)
    end(again)
    assert int(metrics_of(run)[-1]["updates"]) > updates  # type: ignore[call-overload]
    updated = [int(line["updates"]) for line in metrics_of(run)]  # type: ignore[call-overload]
    assert updated == sorted(updated)


def test_nothing_is_left_when_the_launcher_is_killed(commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train = start_train(commands, run, 300)
    learning(run)
    members = [member.pid for member in family(train)]
    assert len(members) >= 5

    kill(train.pid)
    train.wait()

    wait_until(lambda: not any(alive(pid) for pid in members), "the end of all its processes")


def has_torch(process: psutil.Process) -> bool:
    """Whether torch is in the memory of a process; False if the process has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return any("torch" in mapped.path for mapped in process.memory_maps())
    return False


def test_no_actor_or_replay_process_has_torch(commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train = start_train(commands, run, 300)
    learning(run)
    with_torch = [" ".join(member.cmdline()) for member in family(train) if has_torch(member)]
    # A process that the learner is starting is the learner itself until it executes its own program.
    assert with_torch
    assert all("learner_node" in command for command in with_torch)


def test_metrics_of_every_process(commands: Commands, tmp_path: Path) -> None:
    import urllib.request

    run = tmp_path / "run"
    start_train(commands, run, 300)
    learning(run)

    def all_urls() -> set[str] | None:
        status = learning(run)
        assert status.learner is not None
        urls = {status.metrics_url, status.learner.metrics_url, *(actor.metrics_url for actor in status.actors)}
        return urls if "" not in urls else None

    urls = wait_until(all_urls, "a report of every actor")
    assert len(urls) == 3
    for url in urls:
        for path in ("/metrics", "/healthz", "/readyz"):
            with urllib.request.urlopen(url.replace("/metrics", path), timeout=30) as answer:
                assert answer.status == 200
                text = answer.read().decode()
        assert text == "ok\n"
    status = learning(run)
    with urllib.request.urlopen(status.metrics_url, timeout=30) as answer:
        assert re.search(r"^shoal_replay_samples_per_insert \d", answer.read().decode(), re.MULTILINE)
