"""`shoal train --preset seed` as a user has it: its films, checkpoints and curves, from one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from common.run.directory import RunDirectory
from tests.learner_node.event_files import scalars

from .conftest import Commands, metrics_of

pytestmark = pytest.mark.system

STEPS = 6_400


def test_one_command_leaves_all_that_the_document_has(commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = ("--steps", STEPS, "--set", "budget.milestone_steps=3200", "--episodes", 4, "--lockstep")
    code, _, err = commands.run("shoal", "train", "simple_adversary", "--preset", "seed", *settings, "--run", run)
    assert code == 0, err

    launch = json.loads((run / "machine.json").read_text())["launch"]
    assert (launch["actors"], launch["copies"]) == (1, 4)
    last = metrics_of(run)[-1]
    assert int(last["updates"]) == pytest.approx(8, abs=1)  # type: ignore[call-overload]

    kept = [path.name for path in sorted((run / "milestones").iterdir())]
    assert kept == ["0000000000", "0000003200", "0000006400"]
    for name in kept:
        directory = RunDirectory(run / "milestones" / name)
        assert directory.run.spec.budget.steps == STEPS
        assert len(list(directory.checkpoints.iterdir())) == 1
        with Image.open(directory.path / "film.gif") as film:
            # One picture of the start and one of each step; pictures that are alike are one in a GIF.
            assert 40 < film.n_frames <= 81  # type: ignore[attr-defined]

    curves = scalars(run / "tensorboard")
    for agent in range(3):
        for name in ("critic loss", "actor_loss"):
            assert curves[f"agent{agent}/losses/{name}", f"agent{agent}/losses"]
        rewards = curves[".", f"agent{agent}/mean_episode_rewards"]
        assert rewards[-1][0] == last["updates"]
        assert rewards[-1][1] == pytest.approx(last["return_means"][agent], rel=1e-5)  # type: ignore[index]

    # A milestone is a run: it is evaluated where it lies.
    code, out, err = commands.run("shoal", "evaluate", run / "milestones" / kept[1], "--episodes", 2, "--json")
    assert code == 0, err
    assert 0 < json.loads(out)["updates"] < int(last["updates"])  # type: ignore[call-overload]
