"""Traps 33 and 37: what an interrupted training goes on with, and how much it learns for each step it acts."""

from __future__ import annotations

import gc
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from common.process.stop import Stop
from common.run.directory import RunDirectory
from common.run.run import AlgorithmSpec, NetworkSpec, Run
from common.spec import Categorical, joint_spec
from common.transitions import transition_dtype
from common.wire.codec import checksum
from common.wire.messages import Ack, Batch, Chunk, Hello, Open, SampleRequest, Welcome
from deploy.local.config import TrainConfig
from deploy.local.live_display import LineDisplay
from deploy.lockstep.run import LockstepRun
from learner_node.persistence.checkpoints import Checkpoints
from learner_node.persistence.state import Counters, TrainingState, copy_state, restore_state
from learner_node.stacked.update import StackedUpdate
from replay_server.config import ReplayConfig
from replay_server.replay import Replay
from tests.learner_node.teams import run_for
from tests.traps.hand import DOUBLE, UNIT, rows, run_in

# ---- 33: checkpoints ------------------------------------------------------------------------------------------------

MIXED = joint_spec([("mover", "a", 3, (UNIT,)), ("chooser", "b", 2, (Categorical(3),))])
"""With matd3, an update draws smoothing noise for the mover and Gumbel noise for the chooser."""


def fresh(seed: int = 1) -> StackedUpdate:
    return StackedUpdate(run_for(MIXED, NetworkSpec((4,), (4,)), AlgorithmSpec(name="matd3"), seed=seed), DOUBLE)


def trained_on(found: StackedUpdate, updates: Sequence[int]) -> StackedUpdate:
    """Returns a learner after the updates of these numbers, each on the batch of its number."""
    for update in updates:
        rng = np.random.default_rng(update)
        fields = {name: rng.normal(size=(16, size)) for name, size in (("obs", 5), ("next_obs", 5), ("reward", 2))}
        action = np.concatenate([rng.uniform(-1, 1, (16, 1)), np.eye(3)[rng.integers(3, size=16)]], axis=1)
        found.update(rows(MIXED, **fields, action=action, count=16), 1e-2, 1e-2, update_policies=update % 2 == 1)
    return found


def learnt(found: StackedUpdate) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in copy_state(found, Counters()).tensors.items()}


@pytest.mark.slow
def test_33_a_checkpoint_holds_all_that_the_next_updates_depend_on(tmp_path: Path) -> None:
    """EPyMARL loads no critic and no critic's optimiser, BenchMARL keeps no optimiser, and none a random state.

    A run that goes on from such a file is another run. Here it goes on bit for bit, in a learner of another seed; and
    each single tensor that is kept is needed: with that one as it is in a fresh learner, the course is another.
    """
    files = Checkpoints(tmp_path, 3)
    files.save(copy_state(trained_on(fresh(), range(6)), Counters(updates=6, env_steps=60)), best=False)
    straight, kept = learnt(trained_on(fresh(), range(10))), files.load()
    assert kept is not None
    assert kept.counters == Counters(updates=6, env_steps=60)

    def gone_on(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
        resumed = fresh(seed=2)
        restore_state(resumed, TrainingState({name: tensor.clone() for name, tensor in tensors.items()}, kept.counters))
        return learnt(trained_on(resumed, range(6, 10)))

    assert gone_on(kept.tensors) == straight
    unborn = copy_state(fresh(seed=2), Counters()).tensors
    for name in kept.tensors:
        assert gone_on({**kept.tensors, name: unborn[name]}) != straight, f"{name} makes no difference"


class StopAfter(Stop):
    """Asks for a stop at its n-th look."""

    def __init__(self, looks: float) -> None:
        super().__init__()
        self._left = looks

    @property
    def requested(self) -> bool:
        self._left -= 1
        return self._left < 0

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


def lockstep(path: Path, *stops: float) -> dict[str, bytes]:
    """Trains one small run, interrupted at these looks, to its end; returns all that was learnt and counted."""
    path.mkdir()
    replay = {"batch": 16, "samples_per_insert": 2.0, "min_size": 100, "capacity": 300}
    settings: dict[str, Any] = {"network": {"policy_hidden": (8,), "critic_hidden": (8,)}, "replay": replay}
    run = run_in("simple_tag", **settings, exploration={"random_steps": 50}, budget={"steps": 600})
    config = TrainConfig(actors=1, copies=10, lockstep=True)
    for looks in (*stops, float("inf")):
        finished = LockstepRun(RunDirectory(path), run, config).train(
            StopAfter(looks), LineDisplay(Console(file=io.StringIO()))
        )
        assert finished == (looks == float("inf"))
        gc.collect()  # the directory's lock goes with its holder
    state = Checkpoints(path / "checkpoints", 3).load()
    assert state is not None
    counters = state.counters.updates, state.counters.env_steps, state.counters.samples
    return {
        **{name: tensor.numpy().tobytes() for name, tensor in state.tensors.items()},
        "counters": repr(counters).encode(),
    }


@pytest.mark.slow
def test_33_an_interrupted_run_gets_its_replay_its_episodes_and_its_generators_back(tmp_path: Path) -> None:
    """HARL, xuance and AgileRL keep no replay: a run that goes on learns from an empty one, in other episodes.

    A run that was interrupted twice ends with the same bits as one that was not: nothing of it was lost or repeated.
    """
    assert lockstep(tmp_path / "interrupted", 12, 40) == lockstep(tmp_path / "whole")


# ---- 37: the ratio of learning to acting ----------------------------------------------------------------------------

SPI, BATCH, MIN_SIZE = 4.0, 32, 500


class Traffic:
    """A replay's core between actors that send whenever they may, and a learner that asks for batches for ever."""

    def __init__(self, run: Run, actors: int, chunk_rows: int) -> None:
        self._run, self._replay = run, Replay(ReplayConfig(durability="ram"), 0.0)
        self._credit, self._seq, self._incarnation = [0] * actors, [0] * actors, [0] * actors
        self._records = np.zeros(chunk_rows, transition_dtype(run.joint))
        self._requested = self.batches = self.inserted = 0
        self.furthest = 0.0
        """Most samples that the learner was ever ahead or behind."""
        self._say(b"learner", Open("learner", run))
        for i in range(actors):
            self._say(b"%d" % i, Hello(f"actor-{i}", 0, 0, run.data_hash))

    def flow(self, transitions: int) -> None:
        """Goes on until actors have brought so many transitions and the learner can take no more."""
        batches = -1
        while batches != self.batches or self.inserted < transitions:
            batches = self.batches
            if self.inserted < transitions:
                self._send_chunks()
            if self._requested == self.batches:
                self._requested += 1
                self._say(b"learner", SampleRequest(self._requested, BATCH))
            self._take(self._replay.advance(0.0))
            if self.inserted > MIN_SIZE:
                self.furthest = max(self.furthest, abs(SPI * (self.inserted - MIN_SIZE) - BATCH * self.batches))

    def _send_chunks(self) -> None:
        payload, rows_sent = self._records.tobytes(), len(self._records)
        for i, credit in enumerate(self._credit):
            while self._seq[i] < credit:
                self._seq[i] += 1
                self.inserted += rows_sent
                chunk = Chunk(
                    actor=f"actor-{i}",
                    incarnation=self._incarnation[i],
                    seq=self._seq[i],
                    count=rows_sent,
                    policy_version=1,
                    crc32c=checksum(payload),
                    data_hash=self._run.data_hash,
                    run=self._run.id,
                )
                self._say(b"%d" % i, chunk, payload)

    def _say(self, peer: bytes, message: Any, payload: bytes | None = None) -> None:
        self._take(self._replay.handle(peer, message, payload, 0.0))

    def _take(self, replies: Sequence[Any]) -> None:
        for reply in replies:
            if isinstance(reply.message, Batch):
                self.batches += 1
            elif isinstance(reply.message, Welcome | Ack):
                self._credit[int(reply.peer)] = reply.message.credit
                self._incarnation[int(reply.peer)] = reply.message.incarnation


@pytest.mark.slow
@pytest.mark.parametrize(("actors", "chunk_rows"), [(1, 1), (1, 100), (8, 50), (40, 10)])
def test_37_the_number_of_actors_and_copies_does_not_change_the_replay_ratio(actors: int, chunk_rows: int) -> None:
    """on-policy needs "n_rollout_threads 128" for its results (issue #112; #46 was solved by the same number of them).

    AgileRL divides its learning steps by the number of environments, in whole numbers. Here the ratio is a setting
    that is held: for each transition after the first 500, four are sampled, however many actors bring how much at
    once; and at no moment is one side further ahead than a batch and a chunk of each actor.
    """
    replay = {"batch": BATCH, "samples_per_insert": SPI, "min_size": MIN_SIZE, "capacity": 10_000}
    traffic = Traffic(run_in("simple", replay=replay), actors, chunk_rows)
    traffic.flow(8_000)
    wanted = SPI * (traffic.inserted - MIN_SIZE) / BATCH
    assert 8_000 <= traffic.inserted < 8_000 + 8 * actors * chunk_rows
    assert traffic.batches == pytest.approx(wanted, rel=0.1)
    assert traffic.furthest <= BATCH + SPI * actors * chunk_rows, "a batch, and a chunk of every actor"
