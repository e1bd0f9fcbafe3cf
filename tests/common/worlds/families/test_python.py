"""Functions and classes as worlds: named, imported by name in other processes, or refused with the way out."""

import functools
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import shoal
from common.errors import ConfigError
from common.worlds import make_world, world_name, world_spec
from tests.common.worlds.adapters.test_conversion import Rowing
from tests.common.worlds.adapters.test_pettingzoo_world import Falling

ROOT = Path(__file__).parents[4]
HERE = "tests.common.worlds.families.test_python"
SCRIPT = """
import gymnasium
from gymnasium import spaces
import shoal


class Hold(gymnasium.Env):
    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,))

    def __init__(self, length=5):
        self.length = length

    def reset(self, seed=None, options=None):
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.time += 1
        return self.observation_space.sample(), -float(action[0] ** 2), False, self.time >= self.length, {}


def make_env(length=5):
    return Hold(length)

"""


def make_rowing(reward=1.0):
    return Rowing(reward=reward)


class Teams:
    @staticmethod
    def make():
        return Falling()

    def method(self):
        return Falling()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (make_rowing, f"python:{HERE}:make_rowing"),
        (Falling, "python:tests.common.worlds.adapters.test_pettingzoo_world:Falling"),
        (Teams.make, f"python:{HERE}:Teams.make"),
    ],
)
def test_a_function_or_class_is_a_world_by_its_name(make, name):
    assert world_name(make) == name
    world = make_world(make, copies=2, seed=0)
    assert (world.name, world.spec) == (name, world_spec(name))
    world.close()


def test_options_are_those_of_the_function():
    assert make_world(make_rowing, reward=3.0).spec.agents
    with pytest.raises(ConfigError, match=r"make_rowing has no option 'wage'; known: reward$"):
        make_world(make_rowing, wage=1)


def shadowed():
    return Falling()


hidden, shadowed = shadowed, None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Falling(), "is a lambda, which has no name. .*from my_env import make_env$"),  # noqa: PLW0108
        (
            functools.partial(make_rowing, reward=1.0),
            "not a partial. Pass the function itself, and its options as settings",
        ),
        (3, "not a int"),
        (Falling(), "not a Falling"),
        (Teams().method, "is not the function that was passed"),
        (hidden, "is not the function that was passed: its name means another"),
    ],
)
def test_what_has_no_name_is_refused_with_the_way_out(make, said):
    with pytest.raises(ConfigError, match=said):
        shoal.train(make)
    with pytest.raises(ConfigError, match=said):
        make_world(make)


def test_a_nested_function_is_refused():
    def make():
        return Falling()

    with pytest.raises(ConfigError, match=r"^make is defined inside a function\. Worlds are made in other processes"):
        shoal.make_world(make)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("make_env", "write python:my_module:make_env"),
        ("my module:make_env", "write python:my_module:make_env"),
        ("no_such_module:make", "cannot import no_such_module"),
        (f"{HERE}:nothing", f"{HERE} has no nothing"),
        (f"{HERE}:HERE", "is str. Name a function or class"),
    ],
)
def test_names_that_mean_nothing(path, said):
    with pytest.raises(ConfigError, match=said):
        make_world(f"python:{path}")


def run(directory: Path, body: str, *how: str) -> "subprocess.CompletedProcess[str]":
    (directory / "my_script.py").write_text(SCRIPT + textwrap.dedent(body))
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(directory)}
    command = [sys.executable, *(how or ("my_script.py",))]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


LOCKSTEP = """
    run="run", steps=300, lockstep=True, actors=1, copies=2, film=False, progress=False,
    settings={"network": {"policy_hidden": [8], "critic_hidden": [8]}, "replay": {"batch": 32, "min_size": 100}},
"""


@pytest.mark.system
@pytest.mark.parametrize(("how", "episodes"), [(("my_script.py",), 4), (("-m", "my_script"), 0)])
def test_a_function_of_a_script_is_imported_by_the_name_of_its_file(tmp_path, how, episodes):
    body = f'if __name__ == "__main__":\n    print(shoal.train(make_env, episodes={episodes}, {LOCKSTEP}).scenario)\n'
    done = run(tmp_path, body, *how)
    assert done.stdout == "python:my_script:make_env\n", done.stderr
    if episodes:
        assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["episodes"] == episodes
    assert 'scenario = "python:my_script:make_env"' in (tmp_path / "run" / "run.toml").read_text()


@pytest.mark.system
def test_a_script_that_trains_when_it_is_imported_is_told_what_to_write(tmp_path):
    done = run(tmp_path, f"shoal.train(make_env, {LOCKSTEP})\n")
    assert done.returncode == 1
    assert (
        'my_script calls shoal.train while Shoal imports it to make a world. Put the call under: if __name__ == "__'
        in (done.stderr)
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_a_notebook_defines_is_refused(tmp_path):
    code = SCRIPT + "shoal.make_world(make_env)"
    done = run(tmp_path, "", "-c", code)
    assert "make_env is defined in a notebook or an interactive session" in done.stderr
