"""Milestones of runs in lockstep: the same however often the run is interrupted, and of no effect on what is learnt."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from common.policy.file import load_policy
from common.run.directory import RunDirectory

from .test_lockstep import Training

pytestmark = pytest.mark.slow

EACH_1000 = {"budget": {"steps": 2_500, "milestone_steps": 1_000}}


def milestones(run: Path) -> dict[str, tuple[str, str]]:
    """Returns name -> digests of its policies and of its state."""
    found = {}
    for path in sorted((run / "milestones").iterdir()):
        (state,) = (path / "checkpoints").iterdir()
        # Of the counters, which stand first in the file, the training time differs from run to run.
        tensors = state.read_bytes()[8 + int.from_bytes(state.read_bytes()[:8], "little") :]
        found[path.name] = load_policy(path / "policy.safetensors").digest, hashlib.blake2b(tensors).hexdigest()
    return found


def test_an_interrupted_run_has_the_milestones_of_the_whole_one(tmp_path: Path) -> None:
    whole, parts = (Training(tmp_path / name, "simple_spread", EACH_1000) for name in ("whole", "parts"))
    assert whole.train()
    for looks in (0, 2, 20, 150):
        assert not parts.train(looks)
    assert parts.train()
    expected = milestones(tmp_path / "whole")
    assert list(expected) == ["0000000000", "0000001000", "0000002000", "0000002500"]
    assert len(set(expected.values())) == 4
    assert milestones(tmp_path / "parts") == expected


def test_taking_them_changes_nothing_of_what_is_learnt(tmp_path: Path) -> None:
    bits = []
    for name, settings in (("with", EACH_1000), ("without", {"budget": {"steps": 2_500}})):
        training = Training(tmp_path / name, "simple_spread", settings)
        assert training.train()
        bits.append(training.bits())
    assert bits[0] == bits[1]


def test_a_milestone_is_trained_on_from_where_it_was_taken(tmp_path: Path) -> None:
    assert Training(tmp_path / "run", "simple_spread", EACH_1000).train()
    branch = Training(tmp_path / "run" / "milestones" / "0000001000", "simple_spread", EACH_1000)
    before = load_policy(branch.directory.policy_file)
    assert not branch.train(looks=60)
    after = load_policy(branch.directory.policy_file)
    assert after.updates > before.updates > 0
    assert after.digest != before.digest
    assert RunDirectory(tmp_path / "run").policy_file.exists()
