"""Updates on a GPU equal those on the CPU, and captured updates equal direct ones.

    CPU against GPU        float64, within 1e-9: the sums of a product have another order on each device
    captured and direct    float32, the same bits: the same kernels in the same order, with the same random numbers

CPU and GPU draw different random numbers from one seed. So Gumbel noise is replaced by fixed numbers where they are
compared, and target noise has size 0. The comparison of captured and direct updates has both.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

import learner_node.algorithms.maddpg
import learner_node.stacked.update
from common.run.run import Run, make_run_spec
from learner_node.devices import Device, GraphedUpdate, choose_device
from learner_node.engine import Engine, make_engine
from learner_node.engine_choice import EngineName
from learner_node.persistence.state import Counters, copy_state, restore_state
from learner_node.replay.replay_session import SampledBatch
from learner_node.replay.td_errors import TdErrors
from learner_node.trainer import Trainer
from learner_node.update.batches import LossBatch
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records

ROWS, UPDATES = 32, 12
CPU = choose_device(gpu=False)
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "maddpg": ("spread", {"name": "maddpg"}),
    "matd3": ("spread", {"name": "matd3", "critic_loss": "huber"}),
    "iddpg": ("tag", {"name": "iddpg", "team_spirit": 0.5}),
    "joint": ("spread", {"name": "joint"}),
    "sides differ": ("tag", {"name": "adversary=joint,agent=iddpg"}),
    "one choice": ("discrete", {"name": "maddpg"}),
    "several parts": ("mixed", {"name": "a=matd3,b=iddpg", "gumbel": "soft"}),
    "masks": ("masked", {"name": "matd3"}),
    "masks, joint": ("masked", {"name": "a=joint,b=matd3", "teammates": "current"}),
}
AUTOGRAD_ONLY: dict[str, tuple[str, dict[str, object]]] = {
    "team critic": ("tag", {"name": "matd3", "team_critic": True}),
    "set critic": ("tag", {"name": "matd3", "critic": "set"}),
    "distributions": ("tag", {"name": "matd3", "critic_loss": "hl_gauss"}),
    "attention critic": ("mixed", {"name": "a=joint,b=matd3", "critic": "attention"}),
}
BY_ENGINE = [(case, engine) for case in CASES for engine in get_args(EngineName)]
EVERY_CASE = pytest.mark.parametrize(("case", "engine"), BY_ENGINE + [(case, "autograd") for case in AUTOGRAD_ONLY])
SUMS_IN_ORDER = pytest.mark.parametrize(("case", "engine"), BY_ENGINE)
"""The cases with the same bits each time. The gradients that a team's players add to their critic have no order."""
EVERY_ENGINE = pytest.mark.parametrize("engine", get_args(EngineName))
RARE = {"normalise_observations": True, "normalise_rewards": True}


def run_of(case: str, engine: str, *, is_rare: bool, **algorithm: object) -> Run:
    team, settings = {**CASES, **AUTOGRAD_ONLY}[case]
    settings = dict(settings)
    critic = settings.pop("critic", "mlp")
    sections = {
        "network": {"policy_hidden": (8, 6), "critic_hidden": (7, 5), "tell_apart": True, "critic": critic},
        "algorithm": {**settings, "engine": engine, **(RARE if is_rare else {}), **algorithm},
        "replay": {"batch": ROWS, **({"priority_exponent": 0.6} if is_rare else {})},
    }
    return Run("r", make_run_spec({"scenario": "simple_spread"}, sections), TEAMS[team])


def state_of(engine: Engine) -> dict[str, Tensor]:
    """Returns everything that updates change, on the CPU, but the state of the random numbers."""
    tensors = copy_state(engine, Counters()).tensors
    return {name: tensor for name, tensor in tensors.items() if name != "random_state"}


@pytest.fixture(name="fixed_noise")
def fixed_noise_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes Gumbel noise the same numbers in each update, which stay in place as a captured update needs."""
    drawn: dict[tuple[object, ...], Tensor] = {}

    def noise(rows: int, columns: int, like: Tensor, generator: torch.Generator) -> Tensor:
        key = rows, columns, like.device, like.dtype
        if key not in drawn:
            uniform = torch.rand(rows, columns, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
            drawn[key] = (-(-uniform.clamp(min=1e-30).log()).log()).to(like)
        return drawn[key].clone()

    for module in (learner_node.algorithms.maddpg, learner_node.stacked.update):
        monkeypatch.setattr(module, "gumbel_noise", noise)


class Training:
    """Updates of one engine in float64, captured on a GPU."""

    def __init__(self, run: Run, device: Device, *, is_rare: bool) -> None:
        self._run, self._device, self._is_rare = run, device, is_rare
        self.engine = make_engine(run, torch.zeros((), dtype=torch.float64, device=device.torch))
        self._batch = self._records(0)
        self._updates: dict[bool, GraphedUpdate[object]] = {}

    def update(self, seed: int) -> None:
        """Copies a batch to the memory of the first one, and updates."""
        for name, tensor in _tensors(self._records(seed)):
            getattr(self._batch, name).copy_(tensor)
        update_policies = (seed + 1) % self.engine.layout.policy_delay == 0
        self.engine.set_rates(1e-3, 2e-3)
        if update_policies not in self._updates:
            work = partial(self._step, update_policies=update_policies)
            self._updates[update_policies] = GraphedUpdate(self._device, work, self.engine.generator)
        self._updates[update_policies].run()

    def _step(self, *, update_policies: bool) -> object:
        return self.engine.step(self.engine.normalise(self._batch), update_policies=update_policies)

    def _records(self, seed: int) -> LossBatch:
        records = random_records(self._run.joint, ROWS, seed, absences=self._is_rare)
        importance = torch.rand(ROWS, generator=torch.Generator().manual_seed(seed)) if self._is_rare else None
        batch = replace(as_batch(as_fields(records, torch.float64)), complete=not self._is_rare, importance=importance)
        return replace(batch, **{name: tensor.to(self.engine_like) for name, tensor in _tensors(batch)})

    @property
    def engine_like(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=self._device.torch)


def _tensors(batch: LossBatch) -> list[tuple[str, Tensor]]:
    values = [(field.name, getattr(batch, field.name)) for field in fields(batch)]
    return [(name, value) for name, value in values if isinstance(value, Tensor)]


@pytest.mark.usefixtures("fixed_noise")
@EVERY_CASE
@pytest.mark.parametrize("is_rare", [False, True], ids=["complete", "absences, weights, normalised"])
def test_a_gpu_trains_as_the_cpu(gpu: Device, case: str, engine: str, is_rare: bool) -> None:
    run = run_of(case, engine, is_rare=is_rare, smoothing=0.0)
    on_cpu, on_gpu = (Training(run, device, is_rare=is_rare) for device in (CPU, gpu))
    for seed in range(UPDATES):
        on_cpu.update(seed)
        on_gpu.update(seed)
    expected, found = state_of(on_cpu.engine), state_of(on_gpu.engine)
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )
    weights = on_cpu.engine.policy_weights(), on_gpu.engine.policy_weights()
    torch.testing.assert_close(*map(torch.from_numpy, weights), rtol=1e-6, atol=1e-6)


def batches(run: Run, *, is_rare: bool) -> Callable[[int], SampledBatch]:
    """Returns the function that makes the batch of an update, in memory as the learner's client has it."""

    def batch(seed: int) -> SampledBatch:
        records = random_records(run.joint, ROWS, seed, absences=is_rare)
        words = torch.from_numpy(records.view("float32").reshape(ROWS, -1).copy())
        weights = torch.rand(ROWS, generator=torch.Generator().manual_seed(seed)) + 0.5 if is_rare else None
        return SampledBatch(words.pin_memory(), complete=not is_rare, probabilities=weights)

    return batch


def direct(gpu: Device) -> Device:
    """Returns the GPU without captures."""
    found = type(gpu)(gpu.torch)
    found.is_gpu = False
    return found


@SUMS_IN_ORDER
@pytest.mark.parametrize("is_rare", [False, True], ids=["complete", "absences, weights, normalised"])
def test_captured_updates_have_the_bits_of_direct_ones(gpu: Device, case: str, engine: str, is_rare: bool) -> None:
    run = run_of(case, engine, is_rare=is_rare)
    captured, plain = Trainer(run, gpu), Trainer(run, direct(gpu))
    batch = batches(run, is_rare=is_rare)
    for updates in range(UPDATES):
        for trainer in (captured, plain):
            stats = trainer.update(batch(updates), updates, updates / UPDATES, float(updates))
        if is_rare:
            sent = TdErrors()
            sent.start(batch(updates), stats.abs_td_error)
            torch.cuda.synchronize()
            [(_, td_errors)] = sent.arrived()
            assert torch.equal(td_errors, stats.abs_td_error.cpu())
    assert all(graphed._captured is not None for graphed in captured._variants.values())
    assert all(graphed._captured is None for graphed in plain._variants.values())
    found, expected = state_of(captured.engine), state_of(plain.engine)
    assert {name: torch.equal(found[name], expected[name]) for name in expected} == dict.fromkeys(expected, True)
    assert (captured.engine.policy_weights() == plain.engine.policy_weights()).all()
    assert torch.equal(captured.engine.generator.get_state(), plain.engine.generator.get_state())


def test_kinds_of_updates_alternate_in_one_memory(gpu: Device) -> None:
    """All graphs share their memory, so the result of one kind must not depend on which kind ran before it."""
    run = run_of("several parts", "autograd", is_rare=True)
    captured, plain = Trainer(run, gpu), Trainer(run, direct(gpu))
    rare, complete = batches(run, is_rare=True), batches(run, is_rare=False)
    for updates in range(40):
        batch = (rare if updates % 3 else complete)(updates)
        for trainer in (captured, plain):
            trainer.update(batch, updates, 0.0, float(updates))
    assert len(captured._variants) > 2
    found, expected = state_of(captured.engine), state_of(plain.engine)
    assert {name: torch.equal(found[name], expected[name]) for name in expected} == dict.fromkeys(expected, True)


def test_an_update_that_cannot_be_captured_runs_directly() -> None:
    """In a separate process, because a failed capture leaves its mark on torch's allocator."""
    line = [sys.executable, "-m", "tests.gpu.failed_capture"]
    done = subprocess.run(line, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be captured in a CUDA graph") == 1


@pytest.mark.usefixtures("fixed_noise")
@EVERY_ENGINE
@pytest.mark.parametrize("starts_on_gpu", [False, True], ids=["CPU to GPU", "GPU to CPU"])
def test_a_run_continues_on_the_other_device(gpu: Device, engine: str, starts_on_gpu: bool) -> None:
    run = run_of("several parts", engine, is_rare=True, smoothing=0.0)
    first, second = (gpu, CPU) if starts_on_gpu else (CPU, gpu)
    whole, stopped, resumed = (Training(run, device, is_rare=True) for device in (first, first, second))
    for seed in range(UPDATES):
        whole.update(seed)
    for seed in range(6):
        stopped.update(seed)
    restore_state(resumed.engine, copy_state(stopped.engine, Counters()))
    for seed in range(6, UPDATES):
        resumed.update(seed)
    expected, found = state_of(whole.engine), state_of(resumed.engine)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-9)


@EVERY_ENGINE
def test_a_run_continues_on_its_gpu_with_its_random_numbers(gpu: Device, engine: str) -> None:
    run = run_of("masks", engine, is_rare=False)
    batch = batches(run, is_rare=False)
    whole, stopped, resumed = (Trainer(run, gpu) for _ in range(3))
    for updates in range(UPDATES):
        whole.update(batch(updates), updates, 0.0, 0.0)
    for updates in range(6):
        stopped.update(batch(updates), updates, 0.0, 0.0)
    restore_state(resumed.engine, copy_state(stopped.engine, Counters()))
    for updates in range(6, UPDATES):
        resumed.update(batch(updates), updates, 0.0, 0.0)
    found, expected = state_of(resumed.engine), state_of(whole.engine)
    assert {name: torch.equal(found[name], expected[name]) for name in expected} == dict.fromkeys(expected, True)
