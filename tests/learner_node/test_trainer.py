"""The update in its place: rates, turns, importance; and the GPU's path, with the device played by one that records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from common.run.run import Run, make_run_spec
from learner_node.devices import BatchBuffer, Device
from learner_node.networks.network_set import NetworkSet
from learner_node.replay.replay_session import SampledBatch
from learner_node.stacked.parameters import ParameterSet
from learner_node.trainer import Trainer

from .teams import TEAMS, random_records

_T = TypeVar("_T")
CPU = Device(torch.device("cpu"))


def run_of(team: str = "spread", **algorithm: object) -> Run:
    sections = {
        "network": {"policy_hidden": (8, 8), "critic_hidden": (8, 8)},
        "algorithm": algorithm,
        "replay": {"batch": 16},
    }
    return Run("r", make_run_spec({"scenario": "simple_spread"}, sections), TEAMS[team])


def records_of(run: Run, seed: int, probabilities: Tensor | None = None) -> SampledBatch:
    rows = random_records(run.joint, run.spec.replay.batch, seed)
    words = torch.from_numpy(rows.view(np.float32).reshape(len(rows), -1).copy())
    return SampledBatch(words, complete=True, probabilities=probabilities)


class Graphs(Device):
    """A GPU as far as anyone can tell: what is recorded is done on replay only, and its results stay in place."""

    is_gpu = True

    def __init__(self, training_state: Callable[[], list[Tensor]], *, fails: bool = False) -> None:
        super().__init__(torch.device("cpu"))
        self._state, self._fails = training_state, fails
        self.captured, self.replayed = 0, 0

    def capture(self, work: Callable[[], _T], generator: torch.Generator) -> tuple[Callable[[], object], _T]:
        if self._fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.captured += 1
        kept, drawn = [tensor.clone() for tensor in self._state()], generator.get_state()
        results = work()
        for tensor, before in zip(self._state(), kept, strict=True):
            tensor.copy_(before)
        generator.set_state(drawn)

        def replay() -> None:
            self.replayed += 1
            found = work()
            with torch.inference_mode():
                for place, value in zip(_tensors(results), _tensors(found), strict=True):
                    place.copy_(value)

        return replay, results


def _tensors(value: object) -> list[Tensor]:
    """Returns the tensors of an update's results, in order."""
    if isinstance(value, Tensor):
        return [value]
    parts = vars(value).values() if hasattr(value, "__dict__") else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def state_of(training: Trainer) -> list[Tensor]:
    engine = training.engine
    # The update normalises the batch in place.
    return [*engine.normaliser._buffers().values(), training._buffer.records] + [
        tensor
        for kind in (engine.policies, engine.critics)
        for tensor in (*parameters_of(kind), kind.adam.mean, kind.adam.square, kind.adam.steps)
    ]


def parameters_of(kind: ParameterSet[Any] | NetworkSet) -> list[Tensor]:
    """Returns the memory of all parameters and targets of one kind."""
    if isinstance(kind, NetworkSet):
        return [kind._flat, kind._flat_target]
    return [kind.shared, kind.expanded, kind.expanded_target]


NORMALISED = {"name": "matd3", "normalise_observations": True, "normalise_rewards": True}


@pytest.mark.parametrize(
    "algorithm", [{"name": "maddpg"}, {"name": "matd3", "critic_loss": "huber"}, NORMALISED], ids=str
)
@pytest.mark.parametrize("team", ["spread", "speaker_listener"])
@pytest.mark.parametrize("engine", ["stacked", "autograd"])
def test_a_captured_update_trains_as_one_done_as_written(team: str, algorithm: dict[str, object], engine: str) -> None:
    run, made = run_of(team, **algorithm, engine=engine), {}
    device = Graphs(lambda: state_of(made["gpu"]))
    made["gpu"], made["cpu"] = Trainer(run, device), Trainer(run, CPU)
    for updates in range(20):
        progress = updates / 20
        for training in made.values():
            training.update(records_of(run, updates), updates, progress, float(updates))
    assert device.replayed > 10
    assert device.captured == made["gpu"].engine.layout.policy_delay
    for one, other in zip(state_of(made["gpu"]), state_of(made["cpu"]), strict=True):
        assert torch.equal(one, other)
    assert made["gpu"].losses == made["cpu"].losses


def test_an_update_that_cannot_be_captured_goes_on_as_written(caplog: pytest.LogCaptureFixture) -> None:
    run, made = run_of(name="maddpg"), {}
    made["gpu"] = Trainer(run, Graphs(lambda: state_of(made["gpu"]), fails=True))
    made["cpu"] = Trainer(run, CPU)
    for updates in range(8):
        for training in made.values():
            training.update(records_of(run, updates), updates, 0.0, float(updates))
    assert caplog.text.count("cannot be captured") == 1
    for one, other in zip(state_of(made["gpu"]), state_of(made["cpu"]), strict=True):
        assert torch.equal(one, other)


def test_learning_rates_fall_over_the_run() -> None:
    run = run_of(policy_learning_rate=0.1, critic_learning_rate=0.2, final_learning_rate_share=0.5)
    training = Trainer(run, CPU)
    for progress, share in ((0.0, 1.0), (0.5, 0.75), (1.0, 0.5)):
        training.update(records_of(run, 0), 0, progress, 0.0)
        assert float(training.engine.policies.adam.learning_rate) == pytest.approx(0.1 * share)
        assert float(training.engine.critics.adam.learning_rate) == pytest.approx(0.2 * share)


def test_policies_move_in_their_turn_and_figures_are_of_such_an_update() -> None:
    run = run_of(name="matd3", policy_every=3)
    training = Trainer(run, CPU)
    moved = []
    for updates in range(9):
        before = training.engine.policies.shared.clone()
        training.update(records_of(run, updates), updates, 0.0, 1_000.0 + updates)
        moved.append(not torch.equal(before, training.engine.policies.shared))
        assert (training.losses is not None) == (updates >= 2)
    assert moved == [False, False, True] * 3


def test_rarely_sampled_rows_count_for_more() -> None:
    """The loss of a row sampled twice as often as uniform counts half (beta = 1 at the end of a run)."""
    run = run_of()
    twice = torch.ones(16)
    twice[:8] = 2.0
    weighted, uniform = Trainer(run, CPU), Trainer(run, CPU)
    weighted.update(records_of(run, 0, twice), 0, 1.0, 0.0)
    assert torch.equal(weighted._buffer.importance, torch.tensor([0.5] * 8 + [1.0] * 8))
    uniform.update(records_of(run, 0, torch.full((16,), 3.0)), 0, 1.0, 0.0)
    plain = Trainer(run, CPU)
    plain.update(records_of(run, 0), 0, 1.0, 0.0)
    assert torch.equal(uniform.engine.critics.shared, plain.engine.critics.shared)
    assert not torch.equal(weighted.engine.critics.shared, plain.engine.critics.shared)


def test_team_spirit_rises_over_the_run() -> None:
    run = run_of(team_spirit=0.0, final_team_spirit=1.0)
    training = Trainer(run, CPU)
    training.update(records_of(run, 0), 0, 0.5, 0.0)
    matrix = training.engine.mixer._matrix
    torch.testing.assert_close(matrix, 0.5 * torch.eye(3) + 0.5 / 3)


def test_a_run_of_players_is_trained_with_their_weights() -> None:
    """A side that learns as one has one policy, whose weights are what actors expect of it."""
    run = run_of("tag", name="adversary=joint,agent=iddpg")
    training = Trainer(run, CPU)
    training.update(records_of(run, 0), 0, 0.0, 0.0)
    assert [player.name for player in run.players.agents] == ["adversary-team", "agent_0"]
    assert msgspec.to_builtins(run.spec)["algorithm"]["name"] == "adversary=joint,agent=iddpg"


class Queue(Device):
    """A GPU's queue: work is done when someone waits for it."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.pinned_tensors: list[Tensor] = []
        self.unfinished = self.longest = 0

    def pinned(self, host: Tensor) -> Tensor:
        self.pinned_tensors.append(host)
        return host

    def mark(self) -> Callable[[], object]:
        self.unfinished += 1
        self.longest = max(self.longest, self.unfinished)

        def wait() -> None:
            self.unfinished -= 1

        return wait


def test_a_fast_replay_server_fills_no_queue_of_batches() -> None:
    device = Queue()
    buffer = BatchBuffer(device, rows=2, numbers=3)
    importance = torch.ones(2)
    for number in range(10):
        buffer.load(torch.full((2, 3), float(number)), importance if number == 9 else None)
    assert (device.longest, device.unfinished) == (1, 1)
    assert [tensor is importance for tensor in device.pinned_tensors] == [True]
    assert torch.equal(buffer.records, torch.full((2, 3), 9.0))
