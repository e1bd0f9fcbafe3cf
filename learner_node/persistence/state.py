"""The training state: everything that a run needs to continue, as one object that checkpoints contain.

Parameters and moments are stored network by network in the order of common/policy/network.py, not in the order of the
stacked buffers, so that old checkpoints stay readable when the layout of the buffers changes. A network that several
players share is stored once.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping

import msgspec
import torch
from torch import Tensor

from common.errors import ConfigError, ShoalError
from common.run.run import BudgetSpec
from learner_node.engine import Engine
from learner_node.timing import schedule

_RANDOM = "random_state"
_NORMALISATION = "normalisation"
_SEED_BYTES = 8

_log = logging.getLogger(__name__)


class Counters(msgspec.Struct, forbid_unknown_fields=True):
    """Counters of a run, stored in its checkpoints."""

    updates: int = 0
    env_steps: int = 0
    """Transitions stored in the run, as far as the learner knows."""
    samples: int = 0
    """Transitions learnt from; a transition counts each time it is sampled."""
    trained_s: float = 0.0
    """Time charged to the budget [s]: from the first transition, waits included, absences of a peer excluded."""
    updating_s: float = 0.0
    """Duration of the loop's iterations that received a batch and updated [s]: the update, the work between updates,
    and the wait for that batch. Iterations that received no batch are not counted."""
    weights_version: int = 0
    best_return: float | None = None
    """Best mean return of training episodes at any checkpoint so far."""
    reward_size: float | None = None
    """Root mean square of the sampled rewards that are not 0. A resume compares new rewards with it."""

    def progress(self, budget: BudgetSpec) -> float:
        """Returns the fraction of the budget used, 0 to 1."""
        return schedule.progress(budget, self.env_steps, self.trained_s)


class TrainingState(msgspec.Struct, frozen=True):
    """Everything that an update reads or changes, as tensors by name on the CPU, and the counters."""

    tensors: dict[str, Tensor]
    counters: Counters

    def check(self) -> None:
        """Raises ShoalError if a number is not finite, because no training recovers from that."""
        broken = [name for name, tensor in self.tensors.items() if not torch.isfinite(tensor).all()]
        if broken:
            raise ShoalError(
                f"{', '.join(broken)} contain non-finite numbers after {self.counters.updates} updates; lower "
                "algorithm.critic_learning_rate and algorithm.policy_learning_rate or set algorithm.gradient_clip, "
                "and resume from the last checkpoint."
            )


def copy_state(engine: Engine, counters: Counters) -> TrainingState:
    """Returns a copy of the state of an engine on the CPU, with the counters."""
    return TrainingState({**_tensors(engine), _RANDOM: engine.generator.get_state()}, counters)


def restore_state(engine: Engine, state: TrainingState) -> None:
    """Replaces the state of an engine; ConfigError for networks of other sizes."""
    wanted = {name: tuple(tensor.shape) for name, tensor in _tensors(engine).items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.tensors.items() if name != _RANDOM}
    _check_normalisation(set(found), set(wanted))
    if found != wanted:
        raise ConfigError(
            f"the checkpoint contains {found}, this run's networks need {wanted}; "
            "resume with the network and algorithm settings of the checkpoint."
        )
    for kind, parameters in engine.network_states().items():
        parameters.load({name: state.tensors[f"{kind}/{name}"] for name in parameters.tensors()})
    engine.normaliser.load(_with_prefix(_NORMALISATION, state.tensors))
    _restore_generator(engine.generator, state.tensors[_RANDOM])


def _restore_generator(generator: torch.Generator, state: Tensor) -> None:
    """Continues a stream of random numbers; on another kind of device, where no state fits, from a seed made of it."""
    if len(state) == len(generator.get_state()):
        generator.set_state(state)
        return
    digest = hashlib.blake2b(state.numpy().tobytes(), digest_size=_SEED_BYTES).digest()
    generator.manual_seed(int.from_bytes(digest, "little"))
    _log.info("the device changed: the random numbers of updates continue in another stream")


def _check_normalisation(found: set[str], wanted: set[str]) -> None:
    """Raises ConfigError if a checkpoint and a run do not normalise the same: networks fit what they learnt from."""
    for part, setting in (("observation", "observations"), ("reward", "rewards")):
        name = f"{_NORMALISATION}/{part}_count"
        if (name in found) != (name in wanted):
            key, trained = f"algorithm.normalise_{setting}", "with" if name in found else "without"
            raise ConfigError(
                f"{key} = {str(name in wanted).lower()}: the checkpoint was trained {trained} it, and its networks fit"
                f" that. Resume with --set {key}={str(name in found).lower()}, or start a new --run."
            )


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _tensors(engine: Engine) -> dict[str, Tensor]:
    return {
        f"{kind}/{name}": tensor
        for kind, parameters in engine.network_states().items()
        for name, tensor in parameters.tensors().items()
    } | {f"{_NORMALISATION}/{name}": tensor for name, tensor in engine.normaliser.tensors().items()}
