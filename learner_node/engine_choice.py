"""The choice of a run's engine, which computes its updates (`algorithm.engine`): `stacked` or `autograd`.

No torch: the launcher prints the choice before it starts a process.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Literal, NamedTuple

from common.errors import ConfigError
from common.policy.network import layer_shapes
from common.run.run import AlgorithmSpec, NetworkSpec, Run
from common.spec import PlayersSpec
from learner_node.update.layout import NetworkLayout, network_layout

EngineName = Literal["autograd", "stacked"]

MAX_COPIED_PARAMETERS = 10_000_000
"""Copies of shared parameters up to which `auto` chooses `stacked`: 280 MB. Its update also copies them each time."""


class EngineChoice(NamedTuple):
    """The engine of a run, and why."""

    name: EngineName
    reason: str

    @property
    def line(self) -> str:
        """The line that is printed when the run starts."""
        return f"engine: {self.name} ({self.reason})"


def choose_engine(
    players: PlayersSpec, network: NetworkSpec, algorithm: AlgorithmSpec, layout: NetworkLayout
) -> EngineChoice:
    """Returns the engine of a run; ConfigError if the engine that is set does not cover its settings."""
    if any(player.stochastic for player in players.agents):
        if algorithm.engine == "stacked":
            raise ConfigError(
                f"algorithm.engine = 'stacked': it has no stochastic policies, but algorithm.name = {algorithm.name!r}"
                " learns them. Set algorithm.engine=auto."
            )
        return EngineChoice("autograd", "the only one with stochastic policies")
    if algorithm.engine != "auto":
        return EngineChoice(algorithm.engine, f"algorithm.engine={algorithm.engine}")
    copies = expanded_parameters(players, network, layout) - sum(learnt_parameters(players, network, layout))
    if copies > MAX_COPIED_PARAMETERS:
        return EngineChoice(
            "autograd", f"stacked would copy shared parameters to all their users, {copies / 1e6:,.0f} million numbers"
        )
    return EngineChoice("stacked", "gradients written by hand, the fastest for these settings")


def engine_of(run: Run) -> EngineChoice:
    """Returns the engine of a run; ConfigError if its settings do not fit its agents."""
    spec, players = run.spec, run.players
    return choose_engine(players, spec.network, spec.algorithm, network_layout(players, spec.network, spec.algorithm))


def learnt_parameters(players: PlayersSpec, network: NetworkSpec, layout: NetworkLayout) -> tuple[int, int]:
    """Returns the numbers of learnt parameters of policies and of critics; a shared network counts once."""
    by_network = dict(zip(layout.policy_networks, players.agents, strict=True))
    inputs = {critic.network: len(critic.input_columns) for critic in layout.critics}
    return (
        sum(_count(layer_shapes(player, network)) for player in by_network.values()),
        sum(_count(pairwise((input_count, *network.critic_hidden, 1))) for input_count in inputs.values()),
    )


def expanded_parameters(players: PlayersSpec, network: NetworkSpec, layout: NetworkLayout) -> int:
    """Returns the number of parameters in the stacked update; a shared network counts once for each user."""
    policies = sum(_count(layer_shapes(player, network)) for player in players.agents)
    return policies + len(layout.critics) * _count(pairwise((players.critic_input_dim, *network.critic_hidden, 1)))


def _count(shapes: Iterable[tuple[int, int]]) -> int:
    return sum((inputs + 1) * outputs for inputs, outputs in shapes)
