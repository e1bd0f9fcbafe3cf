"""Milestones: at which steps they are taken, that each is a run of its own, and that nothing of one is ever lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.errors import ShoalError
from common.policy.file import load_policy
from common.run.directory import RunDirectory
from common.run.run import Run
from learner_node.persistence.checkpoints import Checkpoints
from learner_node.persistence.milestones import Milestones
from learner_node.persistence.state import Counters, copy_state
from learner_node.stacked.update import StackedUpdate
from tests.learner_node.fake_replay import small_run

EVERY = 1_000


class Learner:
    """What takes milestones: its counters move by hand."""

    def __init__(self, path: Path, every: int = EVERY, done: Counters | None = None) -> None:
        self.run: Run = small_run(budget={"steps": 10_000, "milestone_steps": every})
        self.directory, self.done = RunDirectory(path), done or Counters()
        self.algorithm = StackedUpdate(self.run, torch.zeros(()))
        self.milestones = Milestones(self.run, self.directory, self.done)

    def reach(self, env_steps: int, updates: int) -> None:
        """Goes on to so many steps and updates, with other policies, and takes what is due."""
        self.done.env_steps, self.done.updates = env_steps, updates
        for parameters in (self.algorithm.policies.shared, self.algorithm.policies.expanded):
            parameters.fill_(float(updates))
        if self.milestones.is_due(env_steps):
            self.milestones.save(copy_state(self.algorithm, self.done), self.algorithm.policy_weights())

    def conclude(self) -> None:
        self.milestones.save_last(copy_state(self.algorithm, self.done), self.algorithm.policy_weights())

    def kept(self) -> dict[int, int]:
        """Returns environment steps -> updates of every milestone, as its two files say."""
        found = {}
        for path in sorted(self.directory.milestones.glob("*")):
            policies, state = load_policy(path / "policy.safetensors"), Checkpoints(path / "checkpoints", 1).load()
            assert state is not None
            assert policies.updates == state.counters.updates
            assert (policies.flat == policies.updates).all(), "the policies are of that moment"
            assert (state.tensors["policies/online"] == policies.updates).all(), "and so is the state"
            found[int(path.name)] = policies.updates
        return found


def test_one_is_taken_at_the_start_each_so_many_steps_and_at_the_end(tmp_path: Path) -> None:
    learner = Learner(tmp_path)
    for env_steps, updates in ((0, 0), (400, 0), (999, 7), (1_040, 9), (1_900, 20), (2_010, 22), (2_700, 30)):
        learner.reach(env_steps, updates)
    learner.conclude()
    assert learner.kept() == {0: 0, 1_000: 9, 2_000: 22, 2_700: 30}


def test_an_end_that_is_a_milestone_is_kept_once(tmp_path: Path) -> None:
    learner = Learner(tmp_path)
    for env_steps, updates in ((0, 0), (1_040, 9)):
        learner.reach(env_steps, updates)
    learner.conclude()
    assert learner.kept() == {0: 0, 1_000: 9}


def test_of_several_that_are_passed_at_once_the_last_is_kept(tmp_path: Path) -> None:
    learner = Learner(tmp_path)
    for env_steps, updates in ((0, 0), (3_500, 9), (3_900, 10)):
        learner.reach(env_steps, updates)
    assert learner.kept() == {0: 0, 3_000: 9}


def test_none_is_taken_unless_asked_for(tmp_path: Path) -> None:
    learner = Learner(tmp_path, every=0)
    learner.reach(5_000, 10)
    learner.conclude()
    assert not learner.directory.milestones.exists()


def test_a_resumed_run_takes_those_that_are_to_come(tmp_path: Path) -> None:
    first = Learner(tmp_path)
    for env_steps, updates in ((0, 0), (1_040, 9)):
        first.reach(env_steps, updates)
    second = Learner(tmp_path, done=Counters(env_steps=1_040, updates=9))
    second.reach(1_300, 12)
    second.reach(2_100, 20)
    assert second.kept() == {0: 0, 1_000: 9, 2_000: 20}


def test_one_that_is_there_is_never_written_again(tmp_path: Path) -> None:
    """After kill -9 a run goes on from before a milestone: what was kept of it stays."""
    first = Learner(tmp_path)
    first.reach(1_040, 9)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    second = Learner(tmp_path, done=Counters(env_steps=800, updates=5))
    second.reach(1_020, 8)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_what_a_crash_left_half_done_is_no_milestone(tmp_path: Path) -> None:
    """run.toml comes last: without it the rest is taken anew, also where it holds more updates."""
    first = Learner(tmp_path)
    first.reach(1_040, 9)
    place = RunDirectory(first.directory.milestones / "0000001000")
    place.run_file.unlink()
    second = Learner(tmp_path, done=Counters(env_steps=800, updates=5))
    second.reach(1_020, 8)
    assert place.run_file.exists()
    assert second.kept() == {1_000: 8}


def test_each_is_a_run_of_its_own(tmp_path: Path) -> None:
    learner = Learner(tmp_path)
    learner.reach(0, 0)
    learner.reach(1_040, 9)
    kept = [RunDirectory(path) for path in sorted(learner.directory.milestones.glob("*"))]
    runs = [directory.run for directory in kept]
    assert [run.spec for run in runs] == [learner.run.spec] * 2
    assert len({learner.run.id, *(run.id for run in runs)}) == 3
    assert [load_policy(directory.policy_file).run for directory in kept] == runs


def test_what_is_not_finite_is_no_milestone(tmp_path: Path) -> None:
    learner = Learner(tmp_path)
    learner.algorithm.critics.shared[0] = torch.nan
    with pytest.raises(ShoalError, match="non-finite"):
        learner.reach(1_040, 9)
    assert not list(tmp_path.rglob("run.toml"))
