"""The engine of a run: the networks of all players with their update. Two engines keep one contract.

    autograd   the pages of algorithms/, which read like the papers; torch derives the gradients
    stacked    stacked/update.py, the same with gradients written by hand, faster for small networks

Both start with the same parameters, draw the same random numbers, agree to 1e-9 in float64, and read each other's
checkpoints. engine_choice.py decides which one a run uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.errors import ConfigError
from common.policy.network import Layer
from common.run.run import Run
from common.spec import PlayersSpec
from common.user_code import import_object
from learner_node.algorithms.hasac import Hasac
from learner_node.algorithms.hatd3 import Hatd3
from learner_node.algorithms.maddpg import Maddpg
from learner_node.algorithms.masac import Masac
from learner_node.engine_choice import engine_of
from learner_node.stacked.update import StackedUpdate
from learner_node.update.batches import LossBatch
from learner_node.update.layout import NetworkLayout, network_layout
from learner_node.update.network_state import NetworkState
from learner_node.update.normalisation import Normaliser
from learner_node.update.signals import SignalMixer
from learner_node.update.update_stats import UpdateStats


class Engine(Protocol):
    """The networks of a run, and their update.

    Example:
        engine = make_engine(run, torch.zeros(()))
        engine.set_rates(2e-3, 2e-3)
        stats = engine.step(engine.normalise(batch), update_policies=True)
        flat = engine.policy_weights()
    """

    players: PlayersSpec
    layout: NetworkLayout
    mixer: SignalMixer
    normaliser: Normaliser
    generator: torch.Generator

    @property
    def policies(self) -> NetworkState:
        """The state of the policies."""
        ...

    @property
    def critics(self) -> NetworkState:
        """The state of the critics."""
        ...

    def network_states(self) -> dict[str, NetworkState]:
        """Returns all learnt state by the name that checkpoints give it: policies, critics, and temperatures if any."""
        ...

    def set_rates(self, policy_learning_rate: float, critic_learning_rate: float) -> None:
        """Sets the learning rates of the following updates."""
        ...

    def normalise(self, batch: LossBatch, *, observe: bool = True) -> LossBatch:
        """Returns a batch normalised, and overwrites its observations; a run without normalisation gets it unchanged.

        observe: whether to add the batch to the run's statistics first, as `normaliser.is_due` says.
        """
        ...

    def step(self, batch: LossBatch, *, update_policies: bool) -> UpdateStats:
        """Updates once on a batch, with the learning rates of `set_rates`.

        update_policies: whether policies and all targets are updated too, as `algorithm.policy_every` says. Batches of
        one size need the same tensor operations on tensors that stay in place, so a CUDA graph can capture them.
        """
        ...

    def update(
        self,
        batch: LossBatch,
        policy_learning_rate: float,
        critic_learning_rate: float,
        *,
        update_policies: bool = True,
    ) -> UpdateStats:
        """Sets the learning rates, then updates once on a batch."""
        ...

    def logits(self, obs: Tensor) -> Tensor:
        """Returns the policies' logits `[B, U]` for observations `[B, O]`, valid until the next call."""
        ...

    def policy_weights(self) -> npt.NDArray[np.float32]:
        """Returns all policies in the flat layout of common/policy/network.py, for observations not normalised."""
        ...

    def critic_layers(self, critic: int) -> list[Layer]:
        """Returns the layers of one critic in numpy; none if the critic is not an MLP.

        Inputs and output are normalised, if the run normalises.
        """
        ...

    def first_values(self, critic_input: Tensor, acting: Tensor | None = None) -> Tensor:
        """Returns the values of each player's first critic `[N, B]` for observations, actions, states `[B, O+U+S]`.

        acting: 0.0 in the columns of agents that do not act `[B, U]`; None if all act. Inputs and values are
        normalised, if the run normalises.
        """
        ...


MakeEngine = Callable[[Run, Tensor], Engine]
"""Makes the engine of a run, with the number type and on the device of a tensor: the class of an algorithm."""


def import_algorithm(path: str) -> MakeEngine:
    """Returns the class that `algorithm.name` names; ConfigError if it cannot be imported or is not an engine."""
    found = import_object("algorithm.name", path, "The learner imports it.")
    methods = [name for name, value in vars(Engine).items() if callable(value) and not name.startswith("_")]
    missing = [name for name in methods if not hasattr(found, name)]
    if not isinstance(found, type) or missing:
        raise ConfigError(
            f"algorithm.name = {path!r}: {path.partition(':')[2]} is not a class derived from Maddpg"
            f"{f', and has no method {missing[0]}' if missing else ''}; see docs/own-algorithm.md."
        )
    return found


def _built_in(run: Run) -> type[Maddpg | StackedUpdate]:
    """Returns the class that learns a run's algorithms; sides may mix those of one class and of its base classes."""
    is_stochastic = any(player.stochastic for player in run.players.agents)
    is_sequential = any(network_layout(run.players, run.spec.network, run.spec.algorithm).sequential)
    if is_stochastic:
        return Hasac if is_sequential else Masac
    if is_sequential:
        return Hatd3
    return StackedUpdate if engine_of(run).name == "stacked" else Maddpg


def make_engine(run: Run, like: Tensor) -> Engine:
    """Returns the engine of a run with initial parameters, with the number type and on the device of `like`.

    ConfigError if the settings need another engine, or do not fit the agents.
    """
    spec = run.spec
    built_in = _built_in(run)
    engine: MakeEngine = built_in
    if spec.algorithm.is_user_class:
        engine = import_algorithm(spec.algorithm.name)
        if isinstance(engine, type) and issubclass(engine, Maddpg) and not issubclass(engine, built_in):
            raise ConfigError(
                f"algorithm.variant = {spec.algorithm.variant!r}: {spec.algorithm.name} does not learn by it. Derive"
                f" the class from {built_in.__module__}.{built_in.__qualname__}, or set algorithm.variant=matd3."
            )
    return engine(run, like)
