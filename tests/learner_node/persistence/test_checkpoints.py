"""Checkpoints: whole or not there; the newest whole one is gone on from, bit for bit."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.errors import ConfigError, ShoalError
from common.run.run import AlgorithmSpec, NetworkSpec
from learner_node.persistence.checkpoints import Checkpoints, read
from learner_node.persistence.state import Counters, TrainingState, copy_state, restore_state
from learner_node.stacked.update import StackedUpdate
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records, run_for

NETWORK = NetworkSpec(policy_hidden=(8, 8), critic_hidden=(8, 8), share_policies=False)
SINGLE = torch.zeros(())


def make(team: str = "mixed", seed: int = 1) -> StackedUpdate:
    return StackedUpdate(run_for(TEAMS[team], NETWORK, AlgorithmSpec(name="matd3"), seed=seed), SINGLE)


def train(algorithm: StackedUpdate, *seeds: int) -> None:
    for seed in seeds:
        fields = as_fields(random_records(algorithm.agents, 32, seed), torch.float32)
        algorithm.update(as_batch(fields), 1e-3, 1e-3)


def state_after(updates: int) -> TrainingState:
    return TrainingState({"weights": torch.full((3,), float(updates))}, Counters(updates=updates))


def updates_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_restored_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    straight, broken_off, resumed = make(), make(), make(seed=2)
    train(straight, 0, 1, 2, 3, 4)
    train(broken_off, 0, 1, 2)
    files = Checkpoints(tmp_path, 3)
    files.save(copy_state(broken_off, Counters(updates=3, env_steps=99, trained_s=1.5)), best=False)
    state = files.load()
    assert state is not None
    assert state.counters == Counters(updates=3, env_steps=99, trained_s=1.5)
    restore_state(resumed, state)
    train(resumed, 3, 4)
    for one, other in ((straight.policies, resumed.policies), (straight.critics, resumed.critics)):
        assert torch.equal(one.shared, other.shared)
        assert torch.equal(one.expanded_target, other.expanded_target)


def test_random_numbers_of_another_device_seed_those_of_this_one() -> None:
    """A GPU's state has 16 bytes, a CPU's some thousand. Neither fits the other, and a run may change its device."""
    trained = make()
    state = copy_state(trained, Counters())
    drawn = []
    for last in (0, 0, 1):
        of_gpu = torch.tensor([*range(15), last], dtype=torch.uint8)
        resumed = make(seed=2)
        restore_state(resumed, TrainingState({**state.tensors, "random_state": of_gpu}, state.counters))
        assert torch.equal(resumed.policies.shared, trained.policies.shared)
        drawn.append(torch.rand(8, generator=resumed.generator))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_newest_few_and_the_best_are_kept(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path, 2)
    for updates in (1, 2, 3, 10, 200):
        files.save(state_after(updates), best=updates == 3)
    kept = ["best.safetensors", "updates-0000000010.safetensors", "updates-0000000200.safetensors"]
    assert updates_in(tmp_path) == kept
    assert read(tmp_path / "best.safetensors").counters.updates == 3


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_newest_file_is_passed_over(tmp_path: Path, damage: str) -> None:
    files = Checkpoints(tmp_path, 3)
    files.save(state_after(1), best=False)
    newest = files.save(state_after(2), best=False)
    content = newest.read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    newest.write_bytes({"cut": content[:-5], "flip": flipped, "empty": b"", "text": b"not a checkpoint"}[damage])
    state = files.load()
    assert state is not None
    assert state.counters.updates == 1
    assert updates_in(tmp_path) == ["updates-0000000001.safetensors", "updates-0000000002.safetensors.damaged"]


def test_the_best_one_is_the_last_resort(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path, 3)
    files.save(state_after(1), best=True).write_bytes(b"")
    state = files.load()
    assert state is not None
    assert state.counters.updates == 1


def test_when_none_can_be_read_it_does_not_begin_anew(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path, 3)
    files.save(state_after(1), best=False).write_bytes(b"")
    for _ in range(2):
        with pytest.raises(ShoalError, match="none of the 1 checkpoints"):
            files.load()


def test_without_files_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none", 3).load() is None


def test_non_finite_numbers_displace_no_checkpoint(tmp_path: Path) -> None:
    algorithm = make()
    algorithm.critics.shared[0] = torch.nan
    with pytest.raises(ShoalError, match=r"critics/online contain.*lower"):
        Checkpoints(tmp_path, 3).save(copy_state(algorithm, Counters()), best=False)
    assert updates_in(tmp_path) == []


def test_a_checkpoint_of_other_networks_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match="resume with the network"):
        restore_state(make("tag"), copy_state(make("mixed"), Counters()))


def test_a_checkpoint_does_not_depend_on_how_networks_are_stacked() -> None:
    """What is kept stands network by network, so it can be read by whoever knows common/policy/network.py."""
    algorithm = make("mixed")
    kept = copy_state(algorithm, Counters()).tensors["policies/online"]
    assert torch.equal(kept, torch.from_numpy(algorithm.policy_weights()))


_SAVER = """
import sys, torch
from pathlib import Path
from learner_node.persistence.checkpoints import Checkpoints
from learner_node.persistence.state import Counters, TrainingState
files = Checkpoints(Path(sys.argv[1]), 3)
state = files.load()
updates = state.counters.updates if state else 0
while True:
    updates += 1
    tensors = {"weights": torch.full((50_000,), float(updates))}
    files.save(TrainingState(tensors, Counters(updates=updates)), best=updates % 7 == 0)
    print(updates, flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_kill_9_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path, kills: int) -> None:
    rng = random.Random(0)
    for _ in range(kills):
        with subprocess.Popen([sys.executable, "-c", _SAVER, tmp_path], stdout=subprocess.PIPE, text=True) as saver:
            assert saver.stdout is not None
            said = [int(saver.stdout.readline()) for _ in range(rng.randrange(1, 30))]
            saver.send_signal(signal.SIGKILL)
            said += [int(line) for line in saver.stdout.read().splitlines() if line]
        state = Checkpoints(tmp_path, 3).load()
        assert state is not None
        assert state.counters.updates >= said[-1]
        assert (state.tensors["weights"] == state.counters.updates).all()
        assert not list(tmp_path.glob(".*"))
