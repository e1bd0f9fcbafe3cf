"""`shoal.train(start_from=)`: a run starts from the networks of another one, in a world of more agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal
from common.errors import ConfigError
from common.policy.file import load_policy
from common.run.directory import RunDirectory
from tests.shoal.test_training import LOCKSTEP, SMALL

WORLD = "batched:tests.common.worlds.batched.crowd_world"
FIXED = {"algorithm.policy_learning_rate": 1e-12, "algorithm.critic_learning_rate": 1e-12}
"""Learning rates that change no float32 number."""


def train(
    path: Path, *, walkers: int, start_from: Path | None = None, lockstep: bool = True, **settings: Any
) -> shoal.Run:
    some = {
        **SMALL,
        "network.critic": "set",
        "algorithm.normalise_observations": False,
        "world.walkers": walkers,
        **settings,
    }
    return shoal.train(
        WORLD,
        preset="fast",
        run=path,
        steps=600,
        start_from=start_from,
        settings=some,
        **LOCKSTEP | {"lockstep": lockstep},
    )


@pytest.mark.slow
def test_a_run_of_more_agents_starts_where_the_other_one_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "few", walkers=2)
    monkeypatch.chdir(tmp_path)
    for name in ("many", "again"):
        train(tmp_path / name, walkers=5, start_from=Path("few"), **FIXED)
    few, many, again = (load_policy(RunDirectory(tmp_path / name).policy_file) for name in ("few", "many", "again"))
    assert many.updates == again.updates > 5
    assert (many.flat == again.flat).all()
    # One policy, which the file contains for each walker.
    np.testing.assert_allclose(many.flat.reshape(5, -1), [few.flat[:33]] * 5, rtol=1e-6, atol=1e-9)
    assert RunDirectory(tmp_path / "many").run.spec.start_from == str(tmp_path / "few")


@pytest.mark.system
def test_processes_start_from_the_networks_of_another_run(tmp_path: Path) -> None:
    train(tmp_path / "few", walkers=2, lockstep=False)
    train(tmp_path / "many", walkers=5, start_from=tmp_path / "few", lockstep=False, **FIXED)
    few, many = (load_policy(RunDirectory(tmp_path / name).policy_file) for name in ("few", "many"))
    assert many.updates > 5
    np.testing.assert_allclose(many.flat.reshape(5, -1), [few.flat[:33]] * 5, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_a_started_run_resumes_without_the_other_one(tmp_path: Path) -> None:
    train(tmp_path / "few", walkers=2)
    run = train(tmp_path / "many", walkers=3, start_from=tmp_path / "few")
    (tmp_path / "few").rename(tmp_path / "gone")
    assert run.resume(steps=900).finished
    first = run.directory, tmp_path / "few"
    assert shoal.train(run=first[0], resume=True, start_from=first[1], steps=1_000, **LOCKSTEP).finished
    with pytest.raises(ConfigError, match=r"--start-from is for new runs"):
        shoal.train(run=run.directory, resume=True, start_from=tmp_path / "gone", **LOCKSTEP)


def test_mistakes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none does not contain a run \(no run\.toml\)"):
        train(tmp_path / "run", walkers=3, start_from=tmp_path / "none")
    assert not (tmp_path / "run").exists()
