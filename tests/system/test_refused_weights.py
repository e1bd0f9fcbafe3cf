"""Weights that every actor refuses end the run: exit code 1 and the reason, within half a minute."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S, wait_until

from .conftest import Commands, log_of, status_at

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
OTHER_BUILD = """
import actor_node.replay_session as link
count = link.weight_count
link.weight_count = lambda players, network: count(players, network) + 1
"""
REASON = "591 numbers do not fit policies of 592"
"""Of three policies of 18 numbers seen, 8 units and 5 numbers to act: 3 * ((18 + 1) * 8 + (8 + 1) * 5)."""
SMALL = ("--set", "replay.min_size=500", "--set", "network.policy_hidden=[8]")


def other_build(directory: Path) -> dict[str, str]:
    """Returns the environment of processes whose actors come from a build with other policies."""
    (directory / "sitecustomize.py").write_text(OTHER_BUILD)
    return {"PYTHONPATH": f"{directory}:{ROOT}"}


def test_shoal_train_ends_with_the_reason(commands: Commands, tmp_path: Path) -> None:
    (patched := tmp_path / "patched").mkdir()
    arguments = ("--time", "5m", "--run", tmp_path / "run", "--actors", 2, "--redis", "none", *SMALL)
    train = commands.start("shoal", "train", "simple_spread", *arguments, env=other_build(patched))
    wait_until(lambda: refused(f"ipc://{tmp_path}/run/sockets/replay"), "an actor says that it refuses")
    refused_at = time.monotonic()
    assert train.wait(PATIENCE_S) == 1, log_of(train)
    assert time.monotonic() - refused_at < 30.0
    assert REASON in log_of(train)
    assert "every connected actor" in log_of(train)
    assert "Traceback" not in log_of(train)


def test_a_learner_by_hand_ends_with_the_reason_and_not_while_one_actor_acts(
    commands: Commands, tmp_path: Path
) -> None:
    (patched := tmp_path / "patched").mkdir()
    replay, weights = f"ipc://{tmp_path}/replay", f"ipc://{tmp_path}/weights"
    commands.start("replay", "--bind", replay, "--redis", "none", "--metrics-port", 0)
    options = ("--scenario", "simple_spread", "--time", "5m", "--run", tmp_path / "run", *SMALL)
    learner = commands.start("learner", "--bind", weights, "--replay", replay, "--metrics-port", 0, *options)
    addresses = ("--replay", replay, "--weights", weights, "--n", 1, "--copies", 4, "--metrics-port", 0)
    right = commands.start("actor", *addresses, "--name", "right")
    wait_until(lambda: acting(replay), "the right actor acts")
    wrong = commands.start("actor", *addresses, "--name", "wrong", env=other_build(patched))

    wait_until(lambda: refused(replay), "the actor of another build says that it refuses")
    assert learner.poll() is None
    right.terminate()
    assert right.wait(PATIENCE_S) == 0
    assert learner.wait(PATIENCE_S) == 1, log_of(learner)
    assert REASON in log_of(learner)
    assert "Traceback" not in log_of(learner)
    assert wrong.poll() is None


def acting(replay: str) -> bool:
    status = status_at(replay)
    return status is not None and status.inserts > 0


def refused(replay: str) -> bool:
    status = status_at(replay)
    return status is not None and any(actor.weights_refused for actor in status.actors)
