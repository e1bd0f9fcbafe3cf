"""The evaluation at the end of `shoal train`: of episodes that never end, and interrupted."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S, wait_until

from .conftest import Commands, family, log_of

pytestmark = pytest.mark.system

WALK = "pettingzoo:tests.actor_node.play_worlds"
SMALL = ("--actors", 1, "--copies", 4, "--steps", 3000, "--redis", "none", "--no-film")
SOON = ("--set", "replay.min_size=500", "--set", "exploration.random_steps=200", "--set", 'world.kind="endless"')


def test_episodes_without_end_are_cut_off_in_the_final_evaluation(commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    limits = ("--max-episode-steps", 9, "--episodes", 6, "--json")
    code, out, err = commands.run("shoal", "train", WALK, *SMALL, *SOON, *limits, "--run", run)
    assert code == 0, err
    result = json.loads(out)
    assert (result["episodes"], result["truncated_episodes"], result["length_mean"]) == (6, 6, 9.0)


def test_an_interrupted_evaluation_leaves_the_report(commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    endless = ("--max-episode-steps", 1_000_000_000, "--episodes", 20)
    train = commands.start("shoal", "train", WALK, *SMALL, *SOON, *endless, "--run", run)
    wait_until(lambda: "evaluating" in log_of(train), "the evaluation")
    train.send_signal(signal.SIGINT)
    assert train.wait(PATIENCE_S) == 130, log_of(train)
    said = log_of(train)
    assert "evaluation stopped after 0 episodes" in said
    assert f"shoal evaluate {run}" in said.replace("\n", "")
    assert "Traceback" not in said
    assert (run / "report.html").exists()
    assert not (run / "evaluation.json").exists()
    assert family(train) == []
