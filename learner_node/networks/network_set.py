"""All policies, or all critics, of a run with their targets and optimiser.

The modules compute. The parameters of all groups are views of one flat buffer, so that Adam, clipping and the soft
update are a few operations, whatever the number of networks and layers.

G networks of a group     P parameters of all networks
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from learner_node.networks.grouped import GroupedNetworks
from learner_node.networks.groups import Group
from learner_node.update.optimiser import Adam, Block, ClipRule, GradientClip, WeightDecay


class NetworkSet:
    """The networks of one kind as modules, one a group, whose parameters are `[G, ...]`.

    Example:
        squared_norms = policies.descend(loss)
        policies.soft_update(tau=0.01)
    """

    def __init__(
        self,
        groups: Sequence[Group],
        modules: Sequence[GroupedNetworks],
        initial: Sequence[Tensor],
        network_rates: Sequence[float],
        *,
        weight_decay: WeightDecay,
        clip: ClipRule,
    ) -> None:
        """initial: the first parameters of each network. network_rates: factor on the learning rate of each network."""
        start = 0
        self._blocks: list[tuple[Block, list[int]]] = []
        for group in groups:
            block = Block(start, len(group.networks), len(initial[group.networks[0]]))
            self._blocks.append((block, group.networks))
            start += block.rows * block.width
        self._flat, self._flat_target, self._flat_gradient = (initial[0].new_zeros(start) for _ in range(3))
        self.online = list(modules)
        """The learnt networks, group by group."""
        self.target = copy.deepcopy(self.online)
        """Their targets, in evaluation mode."""
        self._parameters = self._move(self.online, self._flat)
        self._move(self.target, self._flat_target)
        for module in self.target:
            module.requires_grad_(requires_grad=False).eval()
        self._gradients = [
            view
            for module, (block, _) in zip(self.online, self._blocks, strict=True)
            for view in module.views(block.of(self._flat_gradient))
        ]
        self._write(self._flat, torch.cat(list(initial)))
        self._flat_target.copy_(self._flat)
        self.adam = Adam(self._flat, weight_decay, self._rates(initial, network_rates))
        self._gradient_clip = GradientClip(self._flat_gradient, self._blocks, clip, self._tensor_of())

    def frozen(self, counts: Sequence[int]) -> list[GroupedNetworks]:
        """Returns the first `counts` learnt networks of each group, in the same memory and without gradients.

        They are in evaluation mode.
        """
        modules = [module.first(count) for module, count in zip(self.online, counts, strict=True)]
        for module, (block, _), count in zip(modules, self._blocks, counts, strict=True):
            _bind(module, block.of(self._flat)[:count])
            module.requires_grad_(requires_grad=False).eval()
        return modules

    def descend(self, loss: Tensor) -> Tensor:
        """Does one step of Adam on a loss; returns the squared norms of the gradients before clipping, by network."""
        squared_norms = self._differentiate(loss)
        with torch.no_grad():
            self.adam.step(self._flat, self._flat_gradient)
        return squared_norms

    def descend_at(self, position: int, positions: Tensor, loss: Tensor) -> Tensor:
        """Does one step of Adam on a loss for the networks at a position of an order; the others stay.

        positions: the position of each network, from 0 `[networks]`. One call for each position in turn moves every
        network once. Returns the squared norms of all gradients before clipping, by network.
        """
        squared_norms = self._differentiate(loss)
        with torch.no_grad():
            is_chosen = (positions == position).index_select(0, self._network_of_parameter)
            self.adam.step_of(is_chosen, self._flat, self._flat_gradient, is_first=position == 0)
        return squared_norms

    def _differentiate(self, loss: Tensor) -> Tensor:
        """Writes the gradient of a loss, clipped; returns the squared norms before clipping, by network."""
        # A module of the user's may leave a parameter unused, whose gradient is 0.
        found = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
        with torch.no_grad():
            for gradient, new in zip(self._gradients, found, strict=True):
                gradient.copy_(new)
            return self._gradient_clip.clip()

    @cached_property
    def _network_of_parameter(self) -> Tensor:
        """The number of the network that each parameter belongs to `[P]`."""
        numbers = torch.empty_like(self._flat, dtype=torch.int64)
        for block, networks in self._blocks:
            block.of(numbers).copy_(torch.tensor(networks, device=numbers.device)[:, None])
        return numbers

    @torch.no_grad()
    def soft_update(self, tau: float) -> None:
        """Moves every target: `theta' = tau * theta + (1 - tau) * theta'` (Lowe et al. 2017, algorithm 1).

        Buffers, such as the statistics of batch normalisation, are copied.
        """
        self._flat_target.lerp_(self._flat, tau)
        for online, target in zip(self.online, self.target, strict=True):
            for learnt, followed in zip(online.buffers(), target.buffers(), strict=True):
                followed.copy_(learnt)

    @property
    def parameters(self) -> list[Tensor]:
        """The learnt parameters of each network `[p]`, as views in the order of checkpoints."""
        return self._by_network(self._flat)

    @property
    def parameter_shapes(self) -> list[dict[str, tuple[int, ...]]]:
        """The shape of each parameter of each network, by name."""
        found = {
            number: module.parameter_shapes
            for module, (_, networks) in zip(self.online, self._blocks, strict=True)
            for number in networks
        }
        return [found[number] for number in sorted(found)]

    def tensors(self) -> dict[str, Tensor]:
        """Returns a copy of all state on the CPU as tensors by name, each network by network."""
        state = {"online": self._flat, "target": self._flat_target}
        state |= {"adam/mean": self.adam.mean, "adam/square": self.adam.square}
        by_network = {name: torch.cat(self._by_network(flat)).to("cpu", copy=True) for name, flat in state.items()}
        buffers = {name: buffer.to("cpu", copy=True) for name, buffer in self._buffers.items()}
        return {**by_network, "adam/steps": self.adam.steps.to("cpu", copy=True), **buffers}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Replaces all state by what `tensors` returned."""
        self._write(self._flat, tensors["online"])
        self._write(self._flat_target, tensors["target"])
        self._write(self.adam.mean, tensors["adam/mean"])
        self._write(self.adam.square, tensors["adam/square"])
        self.adam.steps.copy_(tensors["adam/steps"])
        for name, buffer in self._buffers.items():
            buffer.copy_(tensors[name])

    @property
    def _buffers(self) -> dict[str, Tensor]:
        """The persistent buffers of all modules by name, such as the statistics of batch normalisation."""
        return {
            f"{kind}_buffers/{i}/{name}": buffer
            for kind, modules in (("online", self.online), ("target", self.target))
            for i, module in enumerate(modules)
            for name, buffer in module.named_buffers()
            if name in module.state_dict()
        }

    def _move(self, modules: Sequence[GroupedNetworks], flat: Tensor) -> list[nn.Parameter]:
        """Moves the parameters of modules into a flat buffer; returns them."""
        for (block, _), module in zip(self._blocks, modules, strict=True):
            _bind(module, block.of(flat))
        return [parameter for module in modules for parameter in module.parameters()]

    def _tensor_of(self) -> Tensor:
        """Returns the parameter of a network that each number belongs to `[P]`, counted over all networks."""
        tensor_of = torch.zeros_like(self._flat, dtype=torch.int64)
        count = 0
        for module, (block, _) in zip(self.online, self._blocks, strict=True):
            for view in module.views(block.of(tensor_of)):
                for of_network in view:
                    of_network.fill_(count)
                    count += 1
        return tensor_of

    def _by_network(self, flat: Tensor) -> list[Tensor]:
        """Returns each network's part of a flat buffer, as views in the order of the networks' numbers."""
        rows = {
            number: row
            for block, networks in self._blocks
            for number, row in zip(networks, block.of(flat), strict=True)
        }
        return [rows[number] for number in sorted(rows)]

    @torch.no_grad()
    def _write(self, flat: Tensor, by_network: Tensor) -> None:
        rows = self._by_network(flat)
        for row, values in zip(rows, torch.split(by_network, [len(row) for row in rows]), strict=True):
            row.copy_(values)

    def _rates(self, initial: Sequence[Tensor], network_rates: Sequence[float]) -> Tensor | None:
        """Returns the learning rate factor of each parameter `[P]`; None if all are 1."""
        if set(network_rates) == {1.0}:
            return None
        rates = torch.empty_like(self._flat)
        by_network = zip(initial, network_rates, strict=True)
        self._write(rates, torch.cat([torch.full_like(network, rate) for network, rate in by_network]))
        return rates


def _bind(module: GroupedNetworks, rows: Tensor) -> None:
    """Makes the parameters of a module views of rows of a flat buffer `[G, P]`."""
    for parameter, view in zip(module.parameters(), module.views(rows), strict=True):
        parameter.data = view
