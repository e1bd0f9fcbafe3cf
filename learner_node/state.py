"""All state of an algorithm as tensors by name, and back."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from learner_node.algorithms.maddpg import Maddpg, Trained


def state_of(algorithm: Maddpg) -> dict[str, Tensor]:
    """Returns copies, on the CPU, of everything an update reads or changes."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in _tensors(algorithm).items()} | {
        "random_state": algorithm.generator.get_state().cpu()
    }


def load_state(algorithm: Maddpg, state: dict[str, Tensor]) -> None:
    """Puts a state back; ValueError when its tensors are not those of this algorithm and these sizes."""
    own = _tensors(algorithm)
    if set(state) != {*own, "random_state"}:
        raise ValueError(f"its tensors are {sorted(state)}, not {sorted(own)}")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise ValueError(f"{name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}")
    for name, tensor in own.items():
        tensor.copy_(state[name])
    algorithm.generator.set_state(state["random_state"])


def _tensors(algorithm: Maddpg) -> dict[str, Tensor]:
    kinds: dict[str, Trained[Any]] = {"policies": algorithm.policies, "critics": algorithm.critics}
    return {
        f"{kind}/{name}": tensor
        for kind, trained in kinds.items()
        for name, tensor in (
            ("online", trained.flat),
            ("target", trained.target_flat),
            ("adam/mean", trained.adam.mean),
            ("adam/square", trained.adam.square),
            ("adam/steps", trained.adam.steps),
        )
    }
