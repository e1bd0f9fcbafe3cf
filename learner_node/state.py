"""All state of a training: one object that is captured from an algorithm, checked, kept, and put back.

Parameters and moments are kept network by network in the order of common/policy.py, not as they lie in the stacked
buffers: how those are laid out may change without making old checkpoints unreadable.
"""

from __future__ import annotations

from typing import Any

import msgspec
import torch
from torch import Tensor

from common.errors import ConfigError, ShoalError
from learner_node.algorithms.maddpg import Maddpg, Trained

_RANDOM = "random_state"


class Counters(msgspec.Struct, forbid_unknown_fields=True):
    """What a learner has done, beside its tensors."""

    updates: int = 0
    env_steps: int = 0
    samples: int = 0
    trained_s: float = 0.0
    weights_version: int = 0
    best_return: float | None = None


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


def capture(algorithm: Maddpg, counters: Counters) -> TrainingState:
    """Returns a copy of an algorithm's state."""
    tensors = {
        name: (tensor[order] if tensor.dim() else tensor).to("cpu", copy=True)
        for name, (tensor, order) in _tensors(algorithm).items()
    }
    return TrainingState({**tensors, _RANDOM: algorithm.generator.get_state()}, counters)


def restore(algorithm: Maddpg, state: TrainingState) -> None:
    """Puts a state back; ConfigError when it is not that of these networks."""
    own = _tensors(algorithm)
    wanted = {name: tuple(tensor.shape) for name, (tensor, _) in own.items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.tensors.items() if name != _RANDOM}
    if found != wanted:
        raise ConfigError(
            f"the checkpoint holds {found}, this run's networks need {wanted}; "
            "resume with the network and algorithm settings it was made with"
        )
    for name, (tensor, order) in own.items():
        if tensor.dim():
            tensor[order] = state.tensors[name].to(tensor.device)
        else:
            tensor.copy_(state.tensors[name])
    algorithm.generator.set_state(state.tensors[_RANDOM])


def _tensors(algorithm: Maddpg) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns each tensor by name with the order its numbers are kept in."""
    kinds: dict[str, Trained[Any]] = {"policies": algorithm.policies, "critics": algorithm.critics}
    return {
        f"{kind}/{name}": (tensor, trained.order)
        for kind, trained in kinds.items()
        for name, tensor in (
            ("online", trained.flat),
            ("target", trained.target_flat),
            ("adam/mean", trained.adam.mean),
            ("adam/square", trained.adam.square),
            ("adam/steps", trained.adam.steps),
        )
    }
