"""The start of a run from the networks of another run (`start_from`), whose world may have another number of agents.

Policies, critics, temperatures and the statistics of normalisation are taken from the other run's newest checkpoint.
Target networks start equal to the learnt ones; the optimisers, counters and random numbers are those of a new run.

Players correspond by role: the k-th player of a role starts from the networks of the k-th player of that role, counted
from the first one again where the other run has fewer. Networks must have equal shapes, as those of `set` and
`attention` critics have for any number of agents. `set` critics of an agent with no teammates are an exception: they
have no mean of teammates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch

from common.errors import ConfigError
from common.run.directory import RunDirectory
from common.run.run import Run, RunSpec
from common.spec import AgentsSpec, PlayersSpec
from learner_node.algorithms.maddpg import Maddpg
from learner_node.algorithms.masac import Masac
from learner_node.engine import Engine, make_engine
from learner_node.networks.network_set import NetworkSet
from learner_node.persistence.checkpoints import read_newest
from learner_node.persistence.state import restore_state


def start_from(engine: Engine, run: Run) -> None:
    """Replaces the networks of a new run's engine by those of the run in `run.spec.start_from`.

    ConfigError if that directory has no checkpoint, a player has no counterpart, or networks differ in shape.
    """
    path = run.spec.start_from
    source, target = _trained(path), _autograd(run)
    counterparts = _counterparts(path, target.players, source.players)
    policies = {
        number: source.layout.policy_networks[counterparts[i]]
        for i, number in reversed(list(enumerate(target.layout.policy_networks)))
    }
    _copy(path, "policies", target.policies, source.policies, policies)
    _copy(path, "critics", target.critics, source.critics, _critic_networks(target, source, counterparts))
    if isinstance(target, Masac) and isinstance(source, Masac):
        for number, other in policies.items():
            target.temperatures.log[number] = source.temperatures.log[other]
    for kind, state in engine.network_states().items():
        state.load(target.network_states()[kind].tensors())
    statistics, known = source.normaliser.tensors(), engine.normaliser.tensors()
    for name in {**known, **statistics}:
        shapes = [tuple(one[name].shape) if name in one else "missing" for one in (known, statistics)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"start_from = {path!r}: the statistics {name} of normalisation are {shapes[1]} there and {shapes[0]}"
                " here. Use the same algorithm.normalise_observations and normalise_rewards, and let agents of a role"
                " share networks."
            )
    engine.normaliser.load(statistics)


def check_start(spec: RunSpec, agents: AgentsSpec) -> None:
    """Raises ConfigError if a new run with these settings cannot start from the run in `spec.start_from`."""
    run = Run("", spec, agents)
    start_from(make_engine(run, torch.zeros(())), run)


def _trained(path: str) -> Maddpg:
    """Returns an engine with the networks of the newest checkpoint in a run's directory."""
    directory = RunDirectory(Path(path))
    engine = _autograd(directory.run)
    state = read_newest(directory.checkpoints).state
    if state is None:
        raise ConfigError(f"start_from = {path!r}: there is no checkpoint that can be read. Train that run first.")
    restore_state(engine, state)
    return engine


def _autograd(run: Run) -> Maddpg:
    """Returns the engine `autograd` of a run, whose networks have names and shapes, with initial parameters."""
    algorithm = msgspec.structs.replace(run.spec.algorithm, engine="autograd")
    spec = msgspec.structs.replace(run.spec, algorithm=algorithm)
    engine = make_engine(msgspec.structs.replace(run, spec=spec), torch.zeros(()))
    if not isinstance(engine, Maddpg):
        raise ConfigError(
            f"start_from: {run.spec.algorithm.name} does not derive from Maddpg, so its networks cannot be compared."
            " Choose another algorithm.name, or start without start_from."
        )
    return engine


def _counterparts(path: str, players: PlayersSpec, others: PlayersSpec) -> list[int]:
    """Returns the counterpart of each player among those of another run."""
    roles, other_roles = ([_role(one.name, one.team) for one in spec.agents] for spec in (players, others))
    found = []
    for i, role in enumerate(roles):
        candidates = [j for j, other in enumerate(other_roles) if other == role]
        if not candidates:
            raise ConfigError(
                f"start_from = {path!r}: that run has no agent like {players.agents[i].name} of side {role[1]}; it has"
                f" {', '.join(sorted({one.name for one in others.agents})[:20])}. Start from a run of the same roles."
            )
        found.append(candidates[roles[:i].count(role) % len(candidates)])
    return found


def _role(name: str, side: str) -> tuple[str, str]:
    """Returns the name without its number, and the side."""
    return re.sub(r"_?\d+$", "", name), side


def _critic_networks(target: Maddpg, source: Maddpg, counterparts: Sequence[int]) -> dict[int, int]:
    """Returns the network of the other run for each critic network, first critics from first ones."""
    players, others = len(target.players.agents), len(source.players.agents)
    known = {(critic.player, i >= others): critic.network for i, critic in enumerate(source.layout.critics)}
    found: dict[int, int] = {}
    for i, critic in enumerate(target.layout.critics):
        # A run that has one critic a player where this one has two gives both the same parameters.
        other = counterparts[critic.player]
        found.setdefault(critic.network, known.get((other, i >= players), known[other, False]))
    return found


def _copy(path: str, kind: str, target: NetworkSet, source: NetworkSet, network_of: dict[int, int]) -> None:
    """Copies the parameters of networks; ConfigError that names the first parameter whose shape differs."""
    shapes, other_shapes = target.parameter_shapes, source.parameter_shapes
    for number, other in sorted(network_of.items()):
        for name in {**shapes[number], **other_shapes[other]}:
            here, there = shapes[number].get(name), other_shapes[other].get(name)
            if here != there:
                raise ConfigError(
                    f"start_from = {path!r}: {name} of the {kind} is {_size(there)} there and {_size(here)} here."
                    " Agents of a role must have equal observations and actions in both worlds, and both runs the same"
                    " settings of network and algorithm.name. Critics with network.critic=mlp grow with the number of"
                    " agents; those of attention do not, and those of set only where an agent with no teammates gets"
                    " some."
                )
        target.parameters[number].copy_(source.parameters[other])
    target.soft_update(1.0)


def _size(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape))
