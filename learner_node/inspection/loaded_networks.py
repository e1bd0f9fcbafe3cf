"""The networks of a run's newest checkpoint as plain arrays, for inspection: nothing is trained or written.

    checkpoints/ --> Engine, restored --> policies (flat), critics (layers), players' signals
                                                                  |
    rollouts: W watched steps of E episodes ----------------------+--> network_stats.py --> statistics

The files are only read, so a learner may train at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from common.policy.heads import Floats
from common.policy.network import Layer
from common.run.run import Run
from learner_node.engine import make_engine
from learner_node.inspection.network_stats import (
    Doubles,
    NetworkStats,
    ValueStats,
    critic_stats,
    value_stats,
)
from learner_node.persistence.checkpoints import read_newest
from learner_node.persistence.state import Counters, TrainingState, restore_state
from learner_node.timing import schedule
from learner_node.update.batches import LossBatch


class CriticLayers(NamedTuple):
    """One critic: its name, the columns of the critic input (layout.py) that it reads, and its layers.

    A critic that is not an MLP has no layers.
    """

    name: str
    input_columns: tuple[int, ...]
    layers: list[Layer]


class LoadedNetworks:
    """The policies and critics of a run at a checkpoint, as numpy arrays."""

    def __init__(self, run: Run, state: TrainingState) -> None:
        """Loads a state; ConfigError if the run's networks have other sizes."""
        spec = run.spec
        self._engine = make_engine(run, torch.zeros(()))
        restore_state(self._engine, state)
        self._gamma, self._players = spec.algorithm.discount, run.players.agents
        self.counters: Counters = state.counters
        self.policies: Floats = self._engine.policy_weights()
        """All policies, in the flat layout of common/policy/network.py, for observations not normalised."""
        self.critics = [self._critic(i) for i in range(len(self._engine.layout.critics))]
        """The first critic of each player, in the order of the players; then the second critics.

        Inputs and outputs are normalised, if the run normalises.
        """
        done = schedule.progress(spec.budget, state.counters.env_steps, state.counters.trained_s)
        self._engine.mixer.set_team_spirit(schedule.team_spirit(spec.algorithm, done))

    def values(
        self,
        obs: Floats,
        action: Floats,
        reward: Floats,
        discount: Floats,
        present: Floats,
        *,
        state: Floats | None = None,
    ) -> list[ValueStats]:
        """Compares the values of each player's first critic with the discounted returns that followed.

        obs, action, state: of the watched steps `[W, E, ...]`; state is None if critics do not read it.
        reward, discount, present: of all steps `[T, E, agents]`; T must exceed W by enough steps to discount later
        rewards to almost nothing.
        """
        signals = self._player_signals(reward, discount, present)
        critic_input, units = self._critic_rows(obs, action, present, state), self._reward_units()
        stats = []
        acting = self._engine.mixer.acting(torch.from_numpy(_rows(present[: len(obs)])))
        found = self._engine.first_values(torch.from_numpy(critic_input), acting).numpy()
        for i, (player, values) in enumerate(zip(self._players, found, strict=True)):
            values_by_step = values.reshape(obs.shape[:2]).astype(np.float64) * units[i]
            player_reward, player_discount, player_present = (field[..., i] for field in signals)
            stats.append(
                value_stats(
                    player.name, values_by_step, player_reward, player_discount, player_present, gamma=self._gamma
                )
            )
        return stats

    def critic_activity(
        self, obs: Floats, action: Floats, present: Floats, state: Floats | None = None
    ) -> list[NetworkStats]:
        """Returns the statistics of all critics on the watched steps `[W, E, ...]` in which any agent was present.

        Critics that are not MLPs are left out.
        """
        acting = (present[: len(obs)] > 0).any(axis=-1).ravel()
        rows = self._critic_rows(obs, action, present, state)[acting]
        return [
            critic_stats(critic.name, critic.layers, rows[:, critic.input_columns])
            for critic in self.critics
            if critic.layers
        ]

    def _critic_rows(self, obs: Floats, action: Floats, present: Floats, state: Floats | None = None) -> Floats:
        """Returns the critics' inputs in the watched steps `[W, E, ...]`, one row for each step and episode."""
        rows = _rows(obs, action, state)
        normaliser = self._engine.normaliser
        if normaliser.observations is not None:
            acting = torch.from_numpy(_rows(present[: len(obs)]))
            normaliser.observations.apply(torch.from_numpy(rows)[:, : obs.shape[-1]], acting)
        if normaliser.state is not None and state is not None:
            normaliser.state.apply(torch.from_numpy(rows)[:, -state.shape[-1] :], None)
        return rows

    def _reward_units(self) -> list[float]:
        """Returns the size of a critic's unit in units of the player's rewards, player by player."""
        factor = self._engine.normaliser.reward_factor
        return [1.0] * len(self._players) if factor is None else factor.reciprocal().tolist()

    def _critic(self, i: int) -> CriticLayers:
        critic = self._engine.layout.critics[i]
        order = "Q" if i < len(self._players) else "Q2"
        return CriticLayers(
            f"{order} of {self._players[critic.player].name}", critic.input_columns, self._engine.critic_layers(i)
        )

    def _player_signals(self, reward: Floats, discount: Floats, present: Floats) -> tuple[Doubles, Doubles, Doubles]:
        """Returns the players' rewards, discounts and presence `[T, E, N]` from the agents' `[T, E, agents]`."""
        rewards, discounts, presences = (
            torch.from_numpy(f.reshape(-1, f.shape[-1])) for f in (reward, discount, present)
        )
        unused = rewards.new_empty(len(rewards), 0)
        signals = self._engine.mixer.signals(LossBatch(unused, unused, rewards, discounts, presences))
        players = [field.numpy().reshape(*reward.shape[:2], -1).astype(np.float64) for field in signals]
        return players[0], players[1], players[2]


def load_newest(run: Run, checkpoints: Path) -> LoadedNetworks | None:
    """Loads a run's newest readable checkpoint without changing the files; returns None if there is none."""
    state = read_newest(checkpoints).state
    return None if state is None else LoadedNetworks(run, state)


def _rows(*fields: Floats | None) -> Floats:
    """Returns fields `[W, E, ...]` side by side, one row for each step and episode; None is left out."""
    flat: Sequence[Floats] = [field.reshape(-1, field.shape[-1]) for field in fields if field is not None]
    return np.concatenate(flat, axis=1)
