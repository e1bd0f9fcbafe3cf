"""All state of a training: one object that is captured from an algorithm, checked, kept, and put back.

Parameters and moments are kept network by network in the order of common/policy/network.py, not as they lie in the
stacked buffers: how those are laid out may change without making old checkpoints unreadable. A network that several
share is kept once.
"""

from __future__ import annotations

from typing import Any

import msgspec
import torch
from torch import Tensor

from common.errors import ConfigError, ShoalError
from learner_node.stacked.parameters import ParameterSet
from learner_node.stacked.update import StackedUpdate

_RANDOM = "random_state"


class Counters(msgspec.Struct, forbid_unknown_fields=True):
    """What a learner has done, beside its tensors."""

    updates: int = 0
    env_steps: int = 0
    samples: int = 0
    trained_s: float = 0.0
    """Time charged to the budget [s]."""
    updating_s: float = 0.0
    """Time in which batches came and updates were done [s]."""
    weights_version: int = 0
    best_return: float | None = None
    reward_size: float | None = None
    """Root mean square of the rewards learnt from, to notice at a resume that the environment changed."""


class TrainingState(msgspec.Struct, frozen=True):
    """Everything an update reads or changes, by name and on the CPU, and the counters."""

    tensors: dict[str, Tensor]
    counters: Counters

    def check(self) -> None:
        """Raises ShoalError when a number is not finite, which no training recovers from."""
        broken = [name for name, tensor in self.tensors.items() if not torch.isfinite(tensor).all()]
        if broken:
            raise ShoalError(
                f"{', '.join(broken)} hold non-finite numbers after {self.counters.updates} updates; lower "
                "algorithm.critic_learning_rate and algorithm.policy_learning_rate or set algorithm.gradient_clip, "
                "and resume from the last checkpoint"
            )


def capture(algorithm: StackedUpdate, counters: Counters) -> TrainingState:
    """Returns a copy of an algorithm's state."""
    return TrainingState({**_tensors(algorithm), _RANDOM: algorithm.generator.get_state()}, counters)


def restore(algorithm: StackedUpdate, state: TrainingState) -> None:
    """Puts a state back; ConfigError when it is not that of these networks."""
    wanted = {name: tuple(tensor.shape) for name, tensor in _tensors(algorithm).items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.tensors.items() if name != _RANDOM}
    if found != wanted:
        raise ConfigError(
            f"the checkpoint holds {found}, this run's networks need {wanted}; "
            "resume with the network and algorithm settings it was made with"
        )
    for kind, trained in _kinds(algorithm).items():
        trained.load({name: state.tensors[f"{kind}/{name}"] for name in trained.tensors()})
    algorithm.generator.set_state(state.tensors[_RANDOM])


def _tensors(algorithm: StackedUpdate) -> dict[str, Tensor]:
    return {
        f"{kind}/{name}": tensor
        for kind, trained in _kinds(algorithm).items()
        for name, tensor in trained.tensors().items()
    }


def _kinds(algorithm: StackedUpdate) -> dict[str, ParameterSet[Any]]:
    return {"policies": algorithm.policies, "critics": algorithm.critics}
