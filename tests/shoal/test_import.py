"""`import shoal` is cheap, and the parts of it that play a team need no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shoal
from common.policy.file import PolicyFile, load_policy, save_policy
from common.policy.network import Policy
from common.run.directory import create
from common.run.run import make_run_spec
from common.worlds import make_world, world_spec
from tests.common.examples import random_weights

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's directory with random policies."""
    directory, made = create(
        tmp_path / "run", make_run_spec({"scenario": "simple_spread"}), world_spec("simple_spread")
    )
    save_policy(directory.policy_file, PolicyFile(made, 3, 300, random_weights(made)))
    return directory.path


def test_every_public_name_is_there_and_has_words() -> None:
    for name in shoal.__all__:
        assert getattr(shoal, name).__doc__, name
    assert set(shoal.__all__) <= set(dir(shoal))
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = shoal.trian  # type: ignore[attr-defined]


def test_the_import_alone_brings_nothing_with_it() -> None:
    code = "import sys; before = set(sys.modules); import shoal; print(sorted(set(sys.modules) - before))"
    done = python(code)
    brought = {name.partition(".")[0] for name in eval(done.stdout)}  # noqa: S307  (it is our own list)
    assert brought <= {"shoal", *sys.stdlib_module_names}
    assert "shoal.training" not in done.stdout


ACT = """
import sys, time
began = time.process_time()
import shoal
team = shoal.load(sys.argv[1])
team.act({name: [0.0] * 18 for name in team.agents})
took = time.process_time() - began
unwanted = {"torch", "gymnasium", "pettingzoo", "zmq", "redis", "click", "rich"} & set(sys.modules)
print(took, *sorted(unwanted))
"""


@pytest.mark.slow
def test_a_team_is_loaded_and_acts_without_torch_in_half_a_second(run: Path) -> None:
    """In seconds of the processor: other processes of the machine take time, too."""
    found = [python(ACT, str(run)).stdout.split() for _ in range(3)]
    assert all(len(words) == 1 for words in found), found
    assert min(float(words[0]) for words in found) < 0.5


@pytest.mark.slow
def test_a_users_own_threads_and_environment_stay_as_they_are(run: Path) -> None:
    code = (
        "import os, sys\n"
        "before = dict(os.environ)\n"
        "import shoal\n"
        "shoal.load(sys.argv[1])\n"
        "shoal.evaluate(sys.argv[1], episodes=25, progress=False)\n"
        "assert dict(os.environ) == before, set(os.environ) ^ set(before)\n"
    )
    done = python(code, str(run), **dict.fromkeys(("PYGAME_HIDE_SUPPORT_PROMPT",), ""))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_former_imports_keep_working(run: Path) -> None:
    from common.policy import Policy as FormerPolicy
    from common.policy_file import load_policy as former_load

    assert FormerPolicy is Policy
    stored = former_load(run / "policy.safetensors")
    world = make_world("simple_spread", 2, seed=0)
    former: Any = FormerPolicy(stored.run.players, stored.run.spec.network, stored.flat)
    obs = world.reset()
    assert (former.act(obs) == shoal.load(run).act(obs)).all()
    assert load_policy(str(run / "policy.safetensors")).digest == stored.digest
