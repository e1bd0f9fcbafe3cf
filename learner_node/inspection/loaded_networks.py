"""The networks of a run's newest checkpoint as plain arrays, to be looked at: nothing is trained and nothing written.

    checkpoints/ --> Maddpg, restored --> policies (flat), critics (layers), what players are told of rewards
                                                                  |
                 what was played, W watched steps of E episodes --+--> network_stats.py --> figures

Files are only read: a learner may be training beside this.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError

from common.policy.heads import Floats
from common.policy.network import Layer
from common.run.run import Run
from learner_node import schedule
from learner_node.checkpoints import read
from learner_node.inspection.network_stats import (
    Doubles,
    NetworkFigures,
    ValueFigures,
    critic_figures,
    forward,
    value_figures,
)
from learner_node.stacked.losses import LossBatch
from learner_node.stacked.networks import critic_pieces
from learner_node.stacked.update import StackedUpdate
from learner_node.state import Counters, TrainingState, restore

_log = logging.getLogger(__name__)


class CriticLayers(NamedTuple):
    """One critic: what it is called, what it reads of the joint observation and action, and its layers."""

    name: str
    sees: tuple[int, ...]
    layers: list[Layer]


class LoadedNetworks:
    """What a run had learnt at a checkpoint."""

    def __init__(self, run: Run, state: TrainingState) -> None:
        """Takes a state over; ConfigError when it is not that of this run's networks."""
        spec = run.spec
        self._algorithm = StackedUpdate(run.joint, spec.network, spec.algorithm, spec.seed, torch.zeros(()))
        restore(self._algorithm, state)
        self._gamma, self._players = spec.algorithm.discount, run.players.agents
        self.counters: Counters = state.counters
        self.policies: Floats = self._algorithm.policy_weights()
        """In the flat layout of common/policy/network.py."""
        self.critics = [self._critic(i) for i in range(len(self._algorithm.plan.critics))]
        """Each player's first, in their order; then the second ones."""
        done = schedule.progress(spec.budget, state.counters.env_steps, state.counters.trained_s)
        self._algorithm.rewards.set_team_spirit(schedule.team_spirit(spec.algorithm, done))

    def values(
        self, obs: Floats, action: Floats, reward: Floats, discount: Floats, present: Floats
    ) -> list[ValueFigures]:
        """Compares each player's first critic with the discounted returns that followed.

        obs, action: of the watched steps `[W, E, ...]`; the others of all steps `[T, E, agents]`, long enough that what
        would follow them counts next to nothing.
        """
        told = self._told(reward, discount, present)
        joint = _rows(obs, action)
        figures = []
        for i, (player, critic) in enumerate(zip(self._players, self.critics, strict=False)):
            _, values = forward(critic.layers, joint[:, critic.sees])
            believed = values.reshape(obs.shape[:2]).astype(np.float64)
            own_reward, own_discount, own_present = (field[..., i] for field in told)
            figures.append(
                value_figures(player.name, believed, own_reward, own_discount, own_present, gamma=self._gamma)
            )
        return figures

    def critic_activity(self, obs: Floats, action: Floats, present: Floats) -> list[NetworkFigures]:
        """Returns the figures of all critics on the watched steps `[W, E, ...]` in which somebody was there."""
        joint = _rows(obs, action)[(present[: len(obs)] > 0).any(axis=-1).ravel()]
        return [critic_figures(critic.name, critic.layers, joint[:, critic.sees]) for critic in self.critics]

    def _critic(self, i: int) -> CriticLayers:
        critic = self._algorithm.plan.critics[i]
        pieces = [piece.float().numpy() for piece in critic_pieces(self._algorithm.critics.online, i, critic.sees)]
        layers = [Layer(weight, bias.reshape(-1)) for weight, bias in zip(pieces[::2], pieces[1::2], strict=True)]
        order = "Q" if i < len(self._players) else "Q2"
        return CriticLayers(f"{order} of {self._players[critic.player].name}", critic.sees, layers)

    def _told(self, reward: Floats, discount: Floats, present: Floats) -> tuple[Doubles, Doubles, Doubles]:
        """Returns what players are told of agents' rewards, discounts and presence: `[T, E, agents]` to `[T, E, N]`."""
        rewards, discounts, presences = (
            torch.from_numpy(f.reshape(-1, f.shape[-1])) for f in (reward, discount, present)
        )
        unused = rewards.new_empty(len(rewards), 0)
        told = self._algorithm.rewards.told(LossBatch(unused, unused, rewards, discounts, presences))
        players = [field.numpy().reshape(*reward.shape[:2], -1).astype(np.float64) for field in told]
        return players[0], players[1], players[2]


def load_newest(run: Run, checkpoints: Path) -> LoadedNetworks | None:
    """Reads a run's newest checkpoint that is whole, without touching the files; None where there is none.

    A learner may be writing beside this: what disappears or is not whole is passed over.
    """
    for path in [*sorted(checkpoints.glob("updates-*.safetensors"), reverse=True), *checkpoints.glob("best.*")]:
        try:
            state = read(path)
        except (SafetensorError, msgspec.MsgspecError, KeyError, ValueError, OSError) as e:
            _log.warning("%s cannot be used (%s); trying the one before it", path, e)
            continue
        return LoadedNetworks(run, state)
    return None


def _rows(*fields: Floats) -> Floats:
    """Lays fields `[W, E, ...]` side by side, a row a step and episode."""
    flat: Sequence[Floats] = [field.reshape(-1, field.shape[-1]) for field in fields]
    return np.concatenate(flat, axis=1)
