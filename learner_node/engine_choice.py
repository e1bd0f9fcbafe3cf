"""The choice of a run's engine, which computes its updates (`algorithm.engine`): `stacked` or `autograd`.

No torch: the launcher prints the choice before it starts a process.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, NamedTuple

from common.errors import ConfigError
from common.policy.network import parameter_count, weight_count
from common.run.players import STOCHASTIC, parse_algorithms
from common.run.run import MLP, AlgorithmSpec, NetworkSpec, Run
from common.spec import PlayersSpec
from learner_node.networks.mixing_input import mixing_input
from learner_node.update.layout import VARIANTS, NetworkLayout, network_layout

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


def user_classes(network: NetworkSpec, algorithm: AlgorithmSpec) -> str:
    """Returns the settings that name a user's own classes, as text; empty if there are none."""
    settings = [f"algorithm.name = {algorithm.name!r}"] if algorithm.is_user_class else []
    if network.is_user_critic:
        settings.append(f"network.critic = {network.critic!r}")
    return ", ".join(settings)


def choose_engine(
    players: PlayersSpec, network: NetworkSpec, algorithm: AlgorithmSpec, layout: NetworkLayout
) -> EngineChoice:
    """Returns the engine of a run; ConfigError if `algorithm.engine` names one that does not cover the settings."""
    if algorithm.engine == "stacked":
        refuse_uncovered(network, algorithm)
    if algorithm.engine != "auto":
        return EngineChoice(algorithm.engine, f"algorithm.engine={algorithm.engine}")
    if setting := uncovered(network, algorithm):
        return EngineChoice("autograd", f"stacked does not cover {setting}")
    copies = expanded_parameters(players, network, layout) - sum(learnt_parameters(players, network, layout))
    if copies > MAX_COPIED_PARAMETERS:
        return EngineChoice(
            "autograd", f"stacked would copy shared parameters to all their users, {copies / 1e6:,.0f} million numbers"
        )
    return EngineChoice("stacked", "gradients written by hand, the fastest for these settings")


def uncovered(network: NetworkSpec, algorithm: AlgorithmSpec) -> str:
    """Returns the setting that the gradients written by hand do not cover; empty if they cover all."""
    names = set(parse_algorithms(algorithm.variants).values())
    variants = [VARIANTS[name] for name in names]
    is_covered = not STOCHASTIC & names and not any(one.team_critic or one.minimax for one in variants)
    settings = {
        f"algorithm.name={algorithm.name}": algorithm.is_user_class or not is_covered,
        f"network.critic={network.critic}": network.critic != MLP,
        f"network.activation={network.activation}": network.activation != "relu",
        "network.policy_layer_norm=true": network.policy_layer_norm,
        "network.critic_layer_norm=true": network.critic_layer_norm,
        "network.critic_weight_norm=true": network.critic_weight_norm,
        f"network.recurrent={network.recurrent}": network.recurrent is not None,
        "algorithm.team_critic=true": algorithm.team_critic,
        "algorithm.critic_loss=hl_gauss": algorithm.critic_loss == "hl_gauss",
    }
    return next((setting for setting, is_uncovered in settings.items() if is_uncovered), "")


def refuse_uncovered(network: NetworkSpec, algorithm: AlgorithmSpec) -> None:
    """Raises ConfigError for settings that the engine `stacked` does not cover."""
    if setting := uncovered(network, algorithm):
        path = setting.partition("=")[0]
        raise ConfigError(
            f"algorithm.engine = 'stacked': it does not cover {setting}. Set algorithm.engine=auto, which uses autograd"
            f" for this setting, or keep the engine and set {path}={_default_of(path)}."
        )


def _default_of(path: str) -> str:
    """Returns the default of a setting as a user writes it, as in relu, false or none (`stacked` covers it)."""
    section, _, name = path.partition(".")
    default = getattr({"network": NetworkSpec, "algorithm": AlgorithmSpec}[section](), name)
    return default if isinstance(default, str) else str(default).lower()


def engine_of(run: Run) -> EngineChoice:
    """Returns the engine of a run; ConfigError if its settings do not fit its agents."""
    spec, players = run.spec, run.players
    return choose_engine(players, spec.network, spec.algorithm, network_layout(players, spec.network, spec.algorithm))


def learnt_parameters(players: PlayersSpec, network: NetworkSpec, layout: NetworkLayout) -> tuple[int, int]:
    """Returns the numbers of learnt parameters of policies and of critics; a shared network counts once."""
    by_network = dict(zip(layout.policy_networks, players.agents, strict=True))
    critics = {critic.network: i for i, critic in enumerate(layout.critics)}
    return (
        sum(parameter_count(player, network) for player in by_network.values()),
        sum(
            mixing_input(players, layout, network, i).parameter_count(network)
            if layout.mixing[layout.critics[i].player]
            else _critic_parameters(len(layout.critics[i].input_columns), network, layout)
            for i in critics.values()
        ),
    )


def expanded_parameters(players: PlayersSpec, network: NetworkSpec, layout: NetworkLayout) -> int:
    """Returns the number of parameters in the stacked update; a shared network counts once for each user."""
    return weight_count(players, network) + len(layout.critics) * _critic_parameters(
        players.critic_input_dim, network, layout
    )


def _critic_parameters(inputs: int, network: NetworkSpec, layout: NetworkLayout) -> int:
    """Returns the number of parameters of a critic."""
    *hidden, last = pairwise((inputs, *network.critic_hidden, layout.critic_outputs))
    count = (last[0] + 1) * last[1]
    if network.recurrent:
        i, units = hidden.pop()
        count += 3 * units * (i + 1 + units + 1)
    norms = network.critic_norms * sum(o for _, o in hidden)
    return count + norms + sum((i + 1) * o for i, o in hidden)
