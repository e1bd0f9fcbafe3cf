"""Python in the pages runs, in the order of the page, beside a run of the name that the page uses."""

from __future__ import annotations

import ast
import inspect
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal
from actor_node.evaluation.evaluate import evaluate
from actor_node.rendering.film import render
from common.policy.file import PolicyFile, save_policy
from common.run.directory import RunDirectory, create
from common.run.run import make_run_spec
from common.worlds import make_world, world_spec
from tests.common.examples import random_weights
from tests.docs.pages import NAMES, blocks

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Changes to an empty directory from which modules are imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def untrained(path: str, scenario: str = "simple_spread") -> RunDirectory:
    """Makes the directory of a run with untrained policies."""
    spec = make_run_spec({"scenario": scenario})
    Path(path).parent.mkdir(exist_ok=True)
    directory, run = create(Path(path), spec, world_spec(scenario))
    save_policy(directory.policy_file, PolicyFile(run, 3, 300, random_weights(run)))
    return directory


def python(page: str) -> list[str]:
    """Returns a page's blocks of Python."""
    return [block.text for block in blocks(page) if block.language == "python"]


OUR_PACKAGES = ("shoal", "deploy", "actor_node", "learner_node", "replay_server", "common")


def test_imports_from_shoal_are_right() -> None:
    """Imports what the blocks of all pages import from Shoal, also those of blocks that no test executes."""
    found = [
        (node.module, name.name)
        for page in NAMES
        if not page.startswith("docs/reference/")  # signatures, which are made from the code
        for text in python(page)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OUR_PACKAGES
        for name in node.names
    ]
    assert ("learner_node.algorithms.maddpg", "Maddpg") in found
    for module, name in dict.fromkeys(found):
        assert hasattr(import_module(module), name), f"from {module} import {name}"


RUNS = {"docs/commands-by-example.md": "runs/spread", "docs/python.md": "runs/spread", "docs/tutorial.md": "runs/first"}


@pytest.mark.parametrize(("page", "run"), RUNS.items())
def test_a_page_runs(page: str, run: str) -> None:
    untrained(run)
    names: dict[str, Any] = {}
    assert python(page)
    for text in python(page):
        exec(text, names)  # noqa: S102  (it is the page's)


def test_the_readme_calls_the_api_by_its_names() -> None:
    """Checks the calls of the README's training block without training for five minutes."""
    calls = [node for node in ast.walk(ast.parse(python("README.md")[0])) if isinstance(node, ast.Call)]
    of_shoal = [call for call in calls if ast.unparse(call.func).startswith("shoal.")]
    assert of_shoal
    for call in of_shoal:
        function = getattr(shoal, ast.unparse(call.func).removeprefix("shoal."))
        inspect.signature(function).bind(*call.args, **{str(given.arg): given for given in call.keywords})


def test_the_readme_plays_a_team() -> None:
    untrained("runs/python")
    names: dict[str, Any] = {}
    exec(python("README.md")[1], names)  # noqa: S102
    assert names["step"].reward.shape == (64, 3)


@pytest.fixture
def meet(here: Path) -> str:
    """Writes the environment of docs/own-environment.md as a module and returns its name for Shoal."""
    sys.modules.pop("meet", None)
    (here / "meet.py").write_text(python("docs/own-environment.md")[0], "utf-8")
    return "pettingzoo:meet"


def test_the_environment_passes_its_check(meet: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Compares what the check prints with what the page shows."""
    exec(python("docs/own-environment.md")[1], {})  # noqa: S102
    shown = [block.text for block in blocks("docs/own-environment.md") if block.text.startswith("walker_0 2")]
    assert shown == [capsys.readouterr().out]


def test_the_environment_ends_truly_where_walkers_met_and_by_time_elsewhere(meet: str) -> None:
    world = make_world(meet, copies=64, seed=0)
    obs = world.reset()
    met = 0
    for i in range(1, 31):
        towards = 5.0 * obs.reshape(64, 2, 2)[:, :, 1]  # half of the way in one step
        step = world.step(towards.clip(-1, 1))
        met += int((step.discount == 0).all(axis=1).sum())
        if i < 30:
            assert step.episode_over[(step.discount == 0).any(axis=1)].all()
        obs = step.obs
    assert met >= 64
    world.reset()
    for _ in range(30):
        step = world.step(step.reward * 0)
    assert step.episode_over.mean() > 0.9
    assert (step.discount == 1).mean() > 0.9


def test_the_vectorised_environment_passes_its_check_and_equals_the_other(
    meet: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sys.modules.pop("meet_batched", None)
    module, check = python("docs/vectorised-worlds.md")
    (here / "meet_batched.py").write_text(module, "utf-8")
    exec(check, {})  # noqa: S102
    assert "agents=('walker_0', 'walker_1')" in capsys.readouterr().out
    batched, single = (make_world(name, copies=8, restart_ended=False) for name in ("batched:meet_batched", meet))
    assert batched.spec == single.spec
    np.testing.assert_allclose(batched.reset(range(8)), single.reset(range(8)), atol=1e-6)
    for actions in np.random.default_rng(0).uniform(-1, 1, (30, 8, 2)).astype(np.float32):
        ours, theirs = batched.step(actions), single.step(actions)
        for field in ("reward", "present", "episode_over"):
            np.testing.assert_allclose(getattr(ours, field), getattr(theirs, field), atol=1e-5)


def test_the_environment_is_evaluated_and_filmed(meet: str) -> None:
    directory = untrained("runs/meet", meet)
    assert evaluate(directory, 5, 0).episodes == 5
    film = render([directory], Path("meet.gif"), episodes=1, seed=0, fps=0, width=320, steps=500)
    assert film.fps == 10
