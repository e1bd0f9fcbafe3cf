"""The sizes of a run, known before it starts: sides, shared networks, parameters, and memory.

No I/O and no torch: the launcher prints the sizes and refuses a run that cannot work, before it starts a process.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import chain

from common.errors import ConfigError
from common.history import history_of
from common.run.players import players
from common.run.run import SET_CRITICS, RunSpec
from common.spec import AgentSpec, AgentsSpec, PlayersSpec
from common.transitions import transition_dtype
from learner_node.engine_choice import EngineChoice, choose_engine, expanded_parameters, learnt_parameters
from learner_node.networks import agent_sets
from learner_node.update.layout import NetworkLayout, network_layout

GIB = 2**30
BYTES_PER_EXPANDED_PARAMETER, BYTES_PER_PARAMETER = 28, 40
"""The learner's peak memory for each expanded parameter, and for each learnt parameter [bytes], both measured."""
BASE_BYTES = 300 * 2**20
"""Memory of a learner with the smallest networks [bytes], mostly PyTorch."""
PARAMETERS_A_SECOND = 4e7
"""Approximate number of expanded parameters that a learner builds in a second."""
HIDDEN_COPIES = 6
"""Approximate number of copies of the critics' hidden layers in an update of the engine `autograd`."""
BATCH_COPIES = 8
"""Approximate number of copies of a batch in the learner: prefetched, on the device, and in use."""
WORKER_BYTES = 100 * 2**20
"""Memory of an actor's process without its environment [bytes]."""
MIN_IMAGE_OBSERVATION = 3_000
"""Length from which an observation is most likely an image."""
_MAX_NAMES = 6


@dataclass(frozen=True)
class Sizes:
    """The sizes of a run."""

    sides: str
    """The sides, and the players that share networks, as text."""
    agents: str
    """The lengths of each agent's observation and action, as text."""
    record_bytes: int
    """Size of one transition [bytes]."""
    capacity: int
    """Number of transitions in a full replay table."""
    policy_parameters: int
    critic_parameters: int
    """Number of learnt parameters; a shared network counts once."""
    expanded_parameters: int
    """Number of parameters in the update: under the engine `stacked` a shared network counts once for each user."""
    engine: EngineChoice
    """The engine that computes the updates."""
    learner_bytes: int
    """Approximate memory of the learner [bytes]."""
    players: int
    history: int = 0
    """Number of last observations and actions that each agent observes too (`world.history`)."""

    @property
    def replay_bytes(self) -> int:
        """Memory of a full replay table [bytes]."""
        return self.capacity * self.record_bytes

    @property
    def build_s(self) -> float:
        """Approximate time to build the networks [s]."""
        return self.expanded_parameters / PARAMETERS_A_SECOND

    @property
    def building(self) -> str:
        """The learner's announcement that it builds the networks, as text."""
        lasts = f", about {self.build_s:.0f} s" if self.build_s >= 2.0 else ""
        count = self.policy_parameters + self.critic_parameters
        return (
            f"building the networks of {_counted(self.players, 'player')}: {_with_unit_prefix(count)} parameters{lasts}"
        )

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines that are printed when the run starts."""
        replay = f"{self.record_bytes:,} bytes a transition, {_gib(self.replay_bytes)} for a full replay of"
        policies, critics = _with_unit_prefix(self.policy_parameters), _with_unit_prefix(self.critic_parameters)
        memory = f"the learner needs about {_gib(self.learner_bytes)}"
        return (
            f"sides: {self.sides}",
            f"agents: {self.agents}",
            self.engine.line,
            f"sizes: {replay} {self.capacity:,}; {policies} parameters of policies, {critics} of critics; {memory}",
        )


def sizes_of(spec: RunSpec, agents: AgentsSpec) -> Sizes:
    """Returns the sizes of a run; ConfigError if its settings do not fit its agents."""
    run_players = players(agents, spec.algorithm.variants)
    layout = network_layout(run_players, spec.network, spec.algorithm)
    policy, critic = learnt_parameters(run_players, spec.network, layout)
    if spec.network.critic in SET_CRITICS:
        critic = agent_sets.parameter_count(run_players, layout, spec.network)
    elif spec.network.is_user_critic:
        from learner_node.networks.user_critics import parameter_count  # noqa: PLC0415  (importing torch takes seconds)

        critic = parameter_count(run_players, layout, spec.network)
    engine = choose_engine(run_players, spec.network, spec.algorithm, layout)
    expanded, input_bytes = policy + critic, 0
    if engine.name == "stacked":
        expanded = expanded_parameters(run_players, spec.network, layout)
    else:
        input_bytes = _input_bytes(spec, layout)
    record_bytes = transition_dtype(agents).itemsize
    sides = _sides_text(run_players, layout)
    if ":" in spec.scenario:
        # The names of the agents decide the sides of such a world, and may mislead.
        sides += "; network.sides and network.share change this"
    return Sizes(
        sides=sides,
        agents=_agents_text(agents),
        record_bytes=record_bytes,
        capacity=spec.replay.capacity,
        policy_parameters=policy,
        critic_parameters=critic,
        expanded_parameters=expanded,
        engine=engine,
        learner_bytes=BASE_BYTES
        + input_bytes
        + expanded * BYTES_PER_EXPANDED_PARAMETER
        + (policy + critic) * BYTES_PER_PARAMETER
        + BATCH_COPIES * spec.batch_rows * record_bytes,
        players=len(run_players.agents),
        history=history_of(spec.world),
    )


def refuse_large_run(
    sizes: Sizes, agents: AgentsSpec, available_bytes: int, *, learner_bytes: int, workers: int, copies: float
) -> None:
    """Raises ConfigError if replay server, learner and actors of a run do not fit together into one machine's memory.

    learner_bytes: memory of the learner on the CPU. workers: number of actor processes. copies: number of copies of
    each transition, in the replay server and in a Redis on the same machine.
    """
    others = learner_bytes + workers * WORKER_BYTES
    if sizes.replay_bytes <= available_bytes - others:
        return
    free = f"{_gib(available_bytes)} of memory are free, and learner and actors need {_gib(others)} of it"
    max_capacity = fitting_capacity(sizes, available_bytes, learner_bytes=learner_bytes, workers=workers, copies=copies)
    advice = (
        f"choose at most {max_capacity:,}: --set replay.capacity={max_capacity}"
        if max_capacity
        else "lower --actors, network.critic_hidden or the number of agents"
    )
    raise ConfigError(
        f"replay.capacity {sizes.capacity:,} needs {_gib(sizes.replay_bytes)} at {sizes.record_bytes:,} bytes a "
        f"transition; {free}; {advice}{_observation_advice(sizes, agents)}"
    )


def fitting_capacity(sizes: Sizes, available_bytes: int, *, learner_bytes: int, workers: int, copies: float) -> int:
    """Returns the most transitions that fit into a machine's memory beside the run's processes, 0 or more.

    The parameters are those of `refuse_large_run`.
    """
    room = available_bytes - learner_bytes - workers * WORKER_BYTES
    return int(max(room, 0) / copies) // sizes.record_bytes


def refuse_large_learner(sizes: Sizes, agents: AgentsSpec, available_bytes: int) -> None:
    """Raises ConfigError if the learner alone does not fit into memory."""
    if sizes.learner_bytes > available_bytes:
        raise ConfigError(
            f"the learner needs about {_gib(sizes.learner_bytes)} for {_counted(sizes.players, 'player')} and "
            f"{_gib(available_bytes)} of memory are free; lower network.critic_hidden or the number of agents"
            f"{_observation_advice(sizes, agents)}"
        )


def _observation_advice(sizes: Sizes, agents: AgentsSpec) -> str:
    """Returns the advice to shorten long observations, or an empty text."""
    if sizes.history:
        return f"; or lower world.history ({sizes.history}): observations grow with it"
    largest = max(agents.agents, key=lambda agent: agent.obs_dim)
    if largest.obs_dim < MIN_IMAGE_OBSERVATION:
        return ""
    return (
        f". {largest.name} observes {largest.obs_dim:,} numbers: pixels need a wrapper that makes a few features of"
        " them, since Shoal's networks have no convolutions"
    )


def _input_bytes(spec: RunSpec, layout: NetworkLayout) -> int:
    """Returns the memory of the engine `autograd` for the inputs and hidden layers of all critics [bytes]."""
    # Networks that read the same columns read one set of rows.
    by_network: dict[int, tuple[tuple[int, ...], ...]] = {}
    for critic in layout.critics:
        by_network[critic.network] = (*by_network.get(critic.network, ()), critic.input_columns)
    inputs = sum(len(columns) for users in set(by_network.values()) for columns in users)
    if spec.network.critic in SET_CRITICS:
        # Each network reads each agent once.
        inputs = sum(len({*chain.from_iterable(users)}) for users in by_network.values())
    hidden = len(layout.critics) * sum(spec.network.critic_hidden)
    return 4 * spec.batch_rows * (inputs + HIDDEN_COPIES * hidden)


# ---- texts --------------------------------------------------------------------------------------------------------


def _sides_text(run_players: PlayersSpec, layout: NetworkLayout) -> str:
    """Returns the sides with their agents and numbers of networks; sides of one agent are joined in one clause."""
    player_numbers = range(len(run_players.agents))
    groups = _groups(player_numbers, layout)
    across_sides = [group for group in groups if len({run_players.agents[i].team for i in group}) > 1]
    sharing_across = {i for group in across_sides for i in group}
    sides = {side: [i for i in player_numbers if run_players.agents[i].team == side] for side in run_players.sides}
    alone = [side for side, members in sides.items() if len(members) == 1 and members[0] not in sharing_across]
    clauses = [
        f"{side} ({_side_text(members, sharing_across, run_players, layout)})"
        for side, members in sides.items()
        if side not in alone or len(alone) == 1
    ]
    if len(alone) > 1:
        clauses.append(f"{_names(alone)} (a side each: nothing is shared)")
    clauses += [f"shared across sides: {_group_text(group, run_players, layout)}" for group in across_sides]
    return "; ".join(clauses)


def _side_text(
    members: Sequence[int], sharing_across: Container[int], run_players: PlayersSpec, layout: NetworkLayout
) -> str:
    groups = _groups([i for i in members if i not in sharing_across], layout)
    alone = [group[0] for group in groups if len(group) == 1]
    texts = [_group_text(group, run_players, layout) for group in groups if len(group) > 1]
    if len(alone) > 1:
        texts.append(f"{_names([run_players.agents[i].name for i in alone])}: each has its own networks")
    elif alone:
        texts.append(_group_text(alone, run_players, layout))
    if others := [run_players.agents[i].name for i in members if i in sharing_across]:
        texts.append(_names(others))
    return "; ".join(texts)


def _group_text(group: Sequence[int], run_players: PlayersSpec, layout: NetworkLayout) -> str:
    policies = {layout.policy_networks[i] for i in group}
    critics = {critic.network for critic in layout.critics if critic.player in group}
    names = _names([run_players.agents[i].name for i in group])
    counts = _one_or_count(len(policies), "policy", "policies"), _one_or_count(len(critics), "critic", "critics")
    return f"{names}: {', '.join(counts)}"


def _groups(members: Sequence[int], layout: NetworkLayout) -> list[list[int]]:
    """Returns the players in groups; players of a group share a policy or a critic."""
    groups: list[tuple[set[tuple[str, int]], list[int]]] = []
    for i in members:
        networks = {("policy", layout.policy_networks[i])}
        networks |= {("critic", critic.network) for critic in layout.critics if critic.player == i}
        joined = [group for group in groups if group[0] & networks]
        merged = (networks.union(*(group[0] for group in joined)), sorted([i, *(k for g in joined for k in g[1])]))
        groups = [group for group in groups if group not in joined] + [merged]
    return sorted(group for _, group in groups)


def _agents_text(agents: AgentsSpec) -> str:
    by_size: dict[tuple[int, int], list[AgentSpec]] = {}
    for agent in agents.agents:
        by_size.setdefault((agent.obs_dim, agent.action_dim), []).append(agent)
    state = f"; critics read a global state of {agents.state_dim:,}" if agents.state_dim else ""
    texts = "; ".join(
        f"{_names([agent.name for agent in alike])} {'observes' if len(alike) == 1 else 'observe'} {obs:,} numbers, "
        f"{'acts' if len(alike) == 1 else 'act'} with {action:,}"
        for (obs, action), alike in by_size.items()
    )
    return texts + state


def _names(names: Sequence[str]) -> str:
    if len(names) <= _MAX_NAMES:
        return ", ".join(names)
    return f"{names[0]}, {names[1]}, ..., {names[-1]} ({len(names)})"


def _one_or_count(count: int, one: str, several: str) -> str:
    return f"one {one}" if count == 1 else f"{count} {several}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _with_unit_prefix(number: int) -> str:
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return str(number)


def _gib(count: float) -> str:
    gib = count / GIB
    return f"{gib:,.0f} GiB" if gib >= 100 else f"{gib:.{max(0, 1 - math.floor(math.log10(max(gib, 0.01))))}f} GiB"
