"""Critics that encode each agent once and share the encodings: the values `set` and `attention` of `network.critic`.

With e_j the encoding of agent j's observation and action by the encoder of its role, the value of agent i is

    set         Q_i = f(e_i, mean of e_j over its teammates j, mean of e_j over its opponents j)
    attention   Q_i = f(e_i, sum over the others j of a_ij v(e_j)),  a_i = softmax over j of (W_k e_j) . (W_q e_i)

`set` is the sum decomposition of Zaheer et al. 2017 (arXiv 1703.06114, theorem 2) over the others, as a mean so that a
value does not grow with their number. `attention` is MAAC's critic (Iqbal and Sha 2019, arXiv 1810.02912, equations 5
and 6). Departure from both: the global state, if critics read it, is a further input of f. Neither value depends on the
order of the others of one role. The number of parameters does not depend on the number of agents of a role. Agents that
are absent, as those that died, are left out of means and sums.

A network encodes each agent of a batch once, for all critics that share the network. In the policy loss only a critic's
own encoding changes, since its own action does; the encodings of the others are those of the batch.

    G networks of a group     K users of each network     A agents     B rows of the batch     H width of an encoding
    Rows of agents, and of users until the end, are block after block: `[A, B]`, `[K, B]`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from common.policy.network import Layer
from common.run.run import NetworkSpec
from learner_node.networks.agent_sets import SetInput
from learner_node.networks.grouped import GroupedNetworks, InputChange
from learner_node.networks.grouped_mlp import GroupedLayer, initial_parameters

HEADS = 4
"""Number of attention heads (Iqbal and Sha 2019, appendix), where the width of an encoding is a multiple of it."""


class SetCritics(GroupedNetworks):
    """The set or attention critics of a group: inputs are the whole critic input, `[G, B, O+U+S]`.

    Where some agents are absent, U columns follow: 1.0 in those of the actions of agents that act, else 0.0.
    Outputs are `[G, B * K, outputs]`, in which the users' rows alternate.
    """

    def __init__(self, inputs: SetInput, networks: int, network: NetworkSpec, like: Tensor, *, outputs: int) -> None:
        """Starts at zero. networks: number of networks G. network: kind and widths. outputs: numbers of a critic."""
        super().__init__()
        width, *hidden = network.critic_hidden
        self._inputs, self._initialisation = inputs, network.initialisation
        self._columns = [torch.tensor(role.columns, device=like.device).flatten() for role in inputs.roles]
        self._state = torch.tensor(inputs.state, dtype=torch.int64, device=like.device)
        self._acting = torch.tensor(inputs.acting, device=like.device)
        self._focal = _FocalEncodings(inputs, like)
        norms = {"layer_norm": network.critic_layer_norm, "weight_norm": network.critic_weight_norm}
        activation = network.activation
        self.encoders = nn.ModuleList(
            GroupedLayer(
                networks,
                (role.size, width),
                len(role.columns) if network.tell_apart else 1,
                like,
                activation=activation,
                **norms,
                in_blocks=True,
            )
            for role in inputs.roles
        )
        self.context: _Means | _Attention | None = None
        contexts = 0
        if inputs.others and network.critic == "attention":
            self.context, contexts = _Attention(inputs, networks, network, like), 1
        elif inputs.others:
            self.context, contexts = _Means(inputs, like), len(inputs.others)
        sizes = [(1 + contexts) * width + len(inputs.state), *hidden, outputs]
        shapes = list(pairwise(sizes))
        self.layers = nn.ModuleList(
            [GroupedLayer(networks, one, 1, like, activation=activation, **norms) for one in shapes[:-1]]
            + [GroupedLayer(networks, shapes[-1], 1, like)]
        )

    def forward(self, x: Tensor, change: InputChange | None = None) -> Tensor:
        """Returns the outputs `[G, B * K, outputs]` for critic inputs `[G, B, O+U+S]`, which are those of all networks.

        change: of the critics' own actions.
        """
        rows = x[0]
        linear = [encoder.linear(read) for encoder, read in zip(self._encoders, self._read(rows), strict=True)]
        if change is not None:
            # A copy, because an activation may overwrite its input.
            focal_linear = self._focal.select_linear(linear, change, self._encoders, rows=len(rows))
        present = self._present(rows)
        agents = _joined([encoder.activate(one) for encoder, one in zip(self._encoders, linear, strict=True)], rows)
        focal = (
            self._focal.of(agents, present)
            if change is None
            else self._focal.mean(focal_linear, self._encoders, present)
        )
        parts = [focal] if self.context is None else [focal, *self.context(focal, agents, present)]
        if len(self._state):
            state = rows.index_select(1, self._state)
            parts.append(state.repeat(self._inputs.users, 1).expand(len(focal), -1, -1))
        out = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
        for layer in self.layers:
            out = layer(out)
        return out.view(len(out), self._inputs.users, -1, out.shape[2]).transpose(1, 2).flatten(1, 2)

    def initial(self, seed: Sequence[int]) -> npt.NDArray[np.float32]:
        """Draws the initial parameters of one network `[P]`, layer by layer."""
        return initial_parameters(self, seed, self._initialisation)

    def of_user(self, network: int, user: int) -> list[Layer]:  # noqa: ARG002  (there is no sequence of layers)
        """Returns no layers: the network is not an MLP."""
        return []

    @property
    def _encoders(self) -> list[GroupedLayer]:
        return [encoder for encoder in self.encoders if isinstance(encoder, GroupedLayer)]

    def _present(self, rows: Tensor) -> Tensor | None:
        """Returns 1.0 where an agent acts, else 0.0 `[A, B]`; None if all act."""
        has_absences = rows.shape[1] > self._inputs.input_dim
        return rows.index_select(1, self._acting).t() if has_absences else None

    def _read(self, rows: Tensor) -> Iterator[Tensor]:
        """Returns the inputs of each role's encoder `[G, agents of the role * B, size]`."""
        for role, columns in zip(self._inputs.roles, self._columns, strict=True):
            by_agent = rows.index_select(1, columns).view(len(rows), -1, role.size).transpose(0, 1)
            yield by_agent.reshape(1, -1, role.size).expand(len(self._encoders[0].weight), -1, -1)


class _FocalEncodings:
    """The encodings of the critics' own agents: one each, or the mean over a side that has one critic."""

    def __init__(self, inputs: SetInput, like: Tensor) -> None:
        everyone = tuple((agent,) for agent in range(inputs.agents))
        self._is_everyone = all(by_network == everyone for by_network in inputs.focal)
        self._weights = _mean_weights([inputs.focal], inputs.agents, like)
        self._roles = inputs.focal_roles
        self._sizes = [inputs.roles[role].size - inputs.roles[role].action_start for role in self._roles]
        self._starts = [inputs.roles[role].action_start for role in self._roles]
        ends = np.cumsum([0, *(len(role.columns) for role in inputs.roles)])
        self._positions = [
            torch.tensor(
                [
                    [
                        network * len(inputs.roles[role].columns) + agents[slot] - int(ends[role])
                        for agents in by_network
                    ]
                    for network, by_network in enumerate(inputs.focal)
                ],
                device=like.device,
            )
            for slot, role in enumerate(self._roles)
        ]
        """For each own agent, its position among those of its role in all networks `[G, K]`."""
        self._agents = torch.tensor(inputs.focal, device=like.device).permute(2, 0, 1)
        """The own agents `[slots, G, K]`."""

    def of(self, agents: Tensor, present: Tensor | None) -> Tensor:
        """Returns the critics' own encodings `[G, K * B, H]`, from those of all agents `[G, A, B, H]`.

        present: 1.0 where an agent acts `[A, B]`; None if all do.
        """
        if self._is_everyone:
            return agents.flatten(1, 2)
        if present is not None and len(self._agents) > 1:
            return _blocks(_mean_of_present(self._weights, agents, present), agents)
        return _blocks(torch.bmm(self._weights[: len(agents)], agents.flatten(2)), agents)

    def select_linear(
        self, linear: Sequence[Tensor], change: InputChange, encoders: Sequence[GroupedLayer], *, rows: int
    ) -> list[Tensor]:
        """Returns the encoders' linear maps of own agents with changed actions, one tensor `[G, K * B, H]` for each.

        linear: that of all agents of each role `[G, agents of the role * B, H]`. rows: B.
        """
        networks, _, numbers = change.change.shape
        changes = change.change.view(networks, rows, -1, numbers).transpose(1, 2).reshape(networks, -1, numbers)
        found = []
        slots = zip(self._roles, self._starts, self._positions, torch.split(changes, self._sizes, 2), strict=True)
        for role, start, positions, action_change in slots:
            of_role, weight = linear[role], encoders[role].matrix()
            if not self._is_everyone:
                blocks = of_role.reshape(-1, rows, of_role.shape[2])
                selected = blocks.index_select(0, positions[:networks].flatten())
                of_role = selected.view(networks, -1, of_role.shape[2])
            found.append(torch.baddbmm(of_role, action_change, weight[:, start:]))
        return found

    def mean(self, linear: Sequence[Tensor], encoders: Sequence[GroupedLayer], present: Tensor | None) -> Tensor:
        """Returns the critics' own encodings `[G, K * B, H]` from the result of `select_linear`.

        present: as in `of`.
        """
        encodings = [encoders[role].activate(one) for role, one in zip(self._roles, linear, strict=True)]
        if len(encodings) == 1:
            return encodings[0]
        stacked = torch.stack(encodings)
        if present is None:
            return stacked.mean(0)
        weights = present[self._agents[:, : stacked.shape[1]]].flatten(2)[..., None]  # [slots, G, K * B, 1]
        return (stacked * weights).sum(0) / weights.sum(0).clamp_min(1.0)


class _Means(nn.Module):
    """The context of a set critic: the means over its teammates and over its opponents."""

    def __init__(self, inputs: SetInput, like: Tensor) -> None:
        super().__init__()
        self._weights = _mean_weights(inputs.others, inputs.agents, like)

    def forward(self, focal: Tensor, agents: Tensor, present: Tensor | None) -> list[Tensor]:
        """Returns the means `[G, K * B, H]`, from the encodings of all agents `[G, A, B, H]`.

        present: 1.0 where an agent acts `[A, B]`; None if all do. A mean over nobody is 0.
        """
        if present is None:
            means = torch.bmm(self._weights[: len(agents)], agents.flatten(2))
        else:
            means = _mean_of_present(self._weights, agents, present)
        relations = means.shape[1] * agents.shape[2] // focal.shape[1]
        return [_blocks(one, agents) for one in means.chunk(relations, 1)]


class _Attention(nn.Module):
    """The context of an attention critic: the values of the others, weighted by how well their keys fit its query."""

    def __init__(self, inputs: SetInput, networks: int, network: NetworkSpec, like: Tensor) -> None:
        super().__init__()
        width = network.critic_hidden[0]
        self._heads = math.gcd(width, HEADS)
        self.query, self.key = (GroupedLayer(networks, (width, width), 0, like) for _ in range(2))
        self.value = GroupedLayer(networks, (width, width), 1, like, activation=network.activation)
        self._is_other = _mean_weights([_united(inputs.others)], inputs.agents, like) > 0
        """Whether a critic reads an agent as one of the others `[G, K, A]`."""

    def forward(self, focal: Tensor, agents: Tensor, present: Tensor | None) -> list[Tensor]:
        """Returns one context `[G, K * B, H]`, from own encodings `[G, K * B, H]` and those of all agents.

        present: 1.0 where an agent acts `[A, B]`; None if all do. The context of a critic without others is 0.
        """
        rows, flat = agents.shape[2], agents.flatten(1, 2)
        query, key, value = (
            self._by_head(encodings, rows) for encodings in (self.query(focal), self.key(flat), self.value(flat))
        )
        is_other = self._is_other[: len(agents), None, None].expand(-1, rows, -1, -1, -1).flatten(0, 1)
        has_others = None
        if present is not None:
            is_other = is_other & (present.t() > 0).repeat(len(agents), 1)[:, None, None]
            has_others = is_other.any(-1, keepdim=True)
            # A softmax over nobody would be NaN.
            is_other = is_other | ~has_others
        found = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=is_other
        )  # [G * B, heads, K, .]
        if has_others is not None:
            found = found * has_others
        return [found.view(len(agents), rows, *found.shape[1:]).permute(0, 3, 1, 2, 4).reshape(focal.shape)]

    def _by_head(self, encodings: Tensor, rows: int) -> Tensor:
        """Returns encodings `[G * B, heads, agents, H / heads]` from those of agents block after block."""
        networks, _, width = encodings.shape
        split = encodings.view(networks, -1, rows, self._heads, width // self._heads)
        return split.permute(0, 2, 3, 1, 4).flatten(0, 1)


def _mean_of_present(weights: Tensor, agents: Tensor, present: Tensor) -> Tensor:
    """Returns the means over the agents of each relation that act `[G, R, B * H]`; 0 over nobody.

    weights: positive for the agents of each relation `[G, R, A]`. agents: encodings `[G, A, B, H]`. present: `[A, B]`.
    """
    members = (weights[: len(agents)] > 0).to(agents)
    sums = torch.bmm(members, (agents * present[:, :, None]).flatten(2)).view(*members.shape[:2], *agents.shape[2:])
    counts = (members @ present).clamp_min(1.0)
    return (sums / counts[..., None]).flatten(2)


def _mean_weights(relations: Sequence[Sequence[Sequence[Sequence[int]]]], agents: int, like: Tensor) -> Tensor:
    """Returns the matrices `[G, relations * K, A]` that average over the agents of each relation `[G][K]`."""
    by_network = zip(*relations, strict=True)
    rows = [[members for relation in relations_of for members in relation] for relations_of in by_network]
    weights = [[[1.0 / len(one) if a in one else 0.0 for a in range(agents)] for one in by_user] for by_user in rows]
    return torch.tensor(weights, dtype=like.dtype, device=like.device)


def _united(relations: Sequence[Sequence[Sequence[Sequence[int]]]]) -> list[list[list[int]]]:
    """Returns the agents of all relations together `[G][K]`."""
    return [
        [[agent for members in by_user for agent in members] for by_user in zip(*by_network, strict=True)]
        for by_network in zip(*relations, strict=True)
    ]


def _joined(encodings: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Returns the encodings of all agents `[G, A, B, H]` from those of each role."""
    by_role = [one.view(len(one), -1, len(rows), one.shape[2]) for one in encodings]
    return by_role[0] if len(by_role) == 1 else torch.cat(by_role, 1)


def _blocks(sums: Tensor, agents: Tensor) -> Tensor:
    """Returns rows `[G, K * B, H]` from `[G, K, B * H]`; agents: encodings `[G, A, B, H]`."""
    return sums.reshape(len(sums), -1, agents.shape[3])
