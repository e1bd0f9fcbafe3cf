"""The commands start whatever packages a user's project has, and a clash that cannot be resolved is one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from common.process.children.python_command import module_command
from tests.conftest import PATIENCE_S
from tests.shoal.test_import import ROOT

OWN = ("actor_node", "common", "deploy", "learner_node", "replay_server", "shoal")
MEET = '''
"""An environment of the user's own, which uses a package of his own."""
import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv
from {package} import SIZE


class Meet(ParallelEnv):
    metadata = {{"name": "meet"}}
    possible_agents = ["a", "b"]

    def observation_space(self, agent):
        return Box(-1.0, 1.0, (SIZE,), np.float32)

    def action_space(self, agent):
        return Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, seed=None, options=None):
        self.agents, self.steps = list(self.possible_agents), 0
        return self.seen(), {{agent: {{}} for agent in self.agents}}

    def step(self, actions):
        self.steps += 1
        over = self.steps >= 5
        agents = self.agents
        result = [dict.fromkeys(agents, x) for x in (0.0, False, over)]
        if over:
            self.agents = []
        return {{agent: np.zeros(SIZE, np.float32) for agent in agents}}, *result, {{agent: {{}} for agent in agents}}

    def seen(self):
        return {{agent: np.zeros(SIZE, np.float32) for agent in self.agents}}


def parallel_env():
    return Meet()
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project with packages of Shoal's names, and an environment of his own."""
    for name in OWN[:-1]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('this is the user\\'s own')\n", "utf-8")
    (tmp_path / "common" / "maps.py").write_text("SIZE = 3\n", "utf-8")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("SIZE = 3\n", "utf-8")
    (tmp_path / "meet.py").write_text(MEET.format(package="mine"), "utf-8")
    (tmp_path / "hidden.py").write_text(MEET.format(package="common.maps"), "utf-8")
    return tmp_path


@pytest.fixture(params=["editable", "plain"])
def bin_directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands as an install makes them, in an environment that sees this one's packages."""
    home = tmp_path_factory.mktemp("venv")
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(home)], check=True, capture_output=True
    )
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    # First Shoal, then everything else that this interpreter has installed; its own install of Shoal comes last.
    if request.param == "plain":
        for name in OWN:
            (packages / name).symlink_to(ROOT / name, target_is_directory=True)
    others = sysconfig.get_path("purelib")
    lines = [str(ROOT), others] if request.param == "editable" else [others]
    (packages / "others.pth").write_text("\n".join(lines) + "\n", "utf-8")
    for name in ("shoal", "replay", "learner", "actor"):
        script = home / "bin" / name
        body = f"import sys\nfrom shoal.entry import {name}\nif __name__ == '__main__':\n    sys.exit({name}())\n"
        text = f"#!{home}/bin/python\n{body}"
        script.write_text(text, "utf-8")
        script.chmod(0o755)
    return home / "bin"


def run(line: list[str | Path], cwd: Path, *, python_path: Path | str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(python_path)}
    return subprocess.run(list(map(str, line)), cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_command_starts_in_a_project_with_packages_of_these_names(bin_directory: Path, project: Path) -> None:
    for name in ("replay", "learner", "actor"):
        done = run([bin_directory / name, "--help"], project, python_path=project)
        assert (done.returncode, done.stderr) == (0, ""), name
        assert f"Usage: {name}" in done.stdout
    done = run([bin_directory / "shoal", "scenarios"], project, python_path=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert "simple_spread" in done.stdout


TRAIN = (
    "--steps",
    "600",
    "--actors",
    "1",
    "--copies",
    "4",
    "--episodes",
    "2",
    "--no-film",
    "--set",
    "replay.min_size=300",
)


@pytest.mark.system
def test_a_run_trains_on_the_users_own_environment_in_such_a_project(bin_directory: Path, project: Path) -> None:
    done = run(
        [bin_directory / "shoal", "train", "pettingzoo:meet", "--run", "run", *TRAIN], project, python_path=project
    )
    assert done.returncode == 0, done.stderr
    assert (project / "run" / "evaluation.json").exists()


@pytest.mark.slow
def test_an_environment_that_imports_a_hidden_package_reads_why(bin_directory: Path, project: Path) -> None:
    done = run([bin_directory / "shoal", "train", "pettingzoo:hidden", "--run", "run"], project, python_path=project)
    assert done.returncode == 2
    assert f"'common' is a package of Shoal and hides {project / 'common'}. Rename that package" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shoal", "replay", "learner", "actor"])
def test_another_package_that_was_imported_before_is_one_line(tmp_path: Path, name: str) -> None:
    """As a `.pth` file or sitecustomize may do it."""
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").touch()
    (tmp_path / "sitecustomize.py").write_text("import common\n", "utf-8")
    code = f"from shoal.entry import {name}; {name}()"
    done = run([sys.executable, "-c", code], tmp_path, python_path=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2
    assert done.stderr == (
        f"{name}: the package 'common' of {tmp_path / 'common'} was imported before Shoal's package of that name. "
        "Import shoal first, or rename the other package.\n"
    )


NOTEBOOK = """
import {first}
import shoal
try:
    shoal.make_world("simple", seed=0)
except ImportError as e:
    print(e)
else:
    print("made")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("first", "said"), [("sys", "made"), ("common", "was imported before Shoal's package")])
def test_a_notebook_in_such_a_directory(tmp_path: Path, first: str, said: str) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").touch()
    done = run(
        [sys.executable, "-c", NOTEBOOK.format(first=first)], tmp_path, python_path=f"{tmp_path}{os.pathsep}{ROOT}"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_a_module_of_shoal_runs_beside_a_directory_called_shoal(tmp_path: Path) -> None:
    """A clone of the repository is such a directory."""
    (tmp_path / "shoal").mkdir()
    done = run(module_command("actor_node", "--help"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage: actor" in done.stdout


@pytest.mark.slow
def test_ctrl_c_while_the_command_is_imported_is_quiet(tmp_path: Path) -> None:
    """The import of a module that the command needs waits, as on a slow disk, until Ctrl-C has come."""
    (tmp_path / "msgspec.py").write_text("print('importing', flush=True)\nimport signal\nsignal.pause()\n", "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-c", "from shoal.entry import shoal; shoal()"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (130, "", "")
