"""Critics of the user's own: torch modules of a class that the setting `network.critic` names by its import path.

    # my_nets.py, with network.critic = "my_nets:MyCritic"
    class MyCritic(nn.Module):
        def __init__(self, inputs, widths): ...          inputs: a CriticInput, widths: network.critic_hidden
        def forward(self, x): ...                        [rows, inputs.size] -> [rows, 1]

Each network is a separate module, called once a forward pass, because torch.vmap is not faster here and excludes
modules whose flow depends on data, and batch normalisation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.policy.network import Layer
from common.run.run import NetworkSpec
from common.spec import PlayersSpec
from common.user_code import exception_lines, import_object
from learner_node.networks.critic_input import CriticInput, critic_input
from learner_node.networks.grouped import GroupedNetworks, InputChange
from learner_node.update.layout import NetworkLayout

MakeCritic = Callable[[CriticInput, tuple[int, ...]], nn.Module]
"""What a user's class is called with: the critic's input, and the widths of `network.critic_hidden`."""


class UserCritics(GroupedNetworks):
    """The networks of a group, each a module of the user's class."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        """networks: modules of equal structure, which this object takes over."""
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor, change: InputChange | None = None) -> Tensor:
        """Returns the outputs `[G, R, 1]` for inputs `[G, R, inputs]`, changed by `change` if given."""
        if change is not None:
            columns = change.columns[:, None].expand_as(change.change)
            x = x.scatter_add(2, columns, change.change)
        return torch.stack([network(rows) for network, rows in zip(self.networks, x, strict=True)])

    def views(self, rows: Tensor) -> list[Tensor]:
        """Returns the views of `[G, P]` numbers, a row a network, that have the shapes of `parameters()`, in order."""
        found: list[Tensor] = []
        for network, row in zip(self.networks, rows, strict=True):
            shapes = [parameter.shape for parameter in network.parameters()]
            pieces = torch.split(row, [shape.numel() for shape in shapes])
            found += [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        return found

    @property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter of one network, by name."""
        return {name: tuple(parameter.shape) for name, parameter in self.networks[0].named_parameters()}

    def first(self, count: int) -> UserCritics:
        """Returns a copy of the first `count` networks, whose buffers are those of the networks themselves."""
        memo = {id(buffer): buffer for buffer in self.networks.buffers()}
        return UserCritics(copy.deepcopy(list(self.networks[:count]), memo))

    def of_user(self, network: int, user: int) -> list[Layer]:  # noqa: ARG002  (the layers are the user's)
        """Returns no layers: the module is not an MLP that Shoal knows."""
        return []


def import_critic(path: str) -> MakeCritic:
    """Returns the class that `network.critic` names; ConfigError if it cannot be imported or is not an nn.Module."""
    found = import_object("network.critic", path, "The learner imports it.")
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ConfigError(
            f"network.critic = {path!r}: {path.partition(':')[2]} is not a class derived from torch.nn.Module; see"
            " docs/own-algorithm.md."
        )
    return found


def make_critic(
    path: str, inputs: CriticInput, widths: tuple[int, ...], seed: Sequence[int], like: Tensor
) -> nn.Module:
    """Returns a critic of the user's class with initial parameters from a seed, as the number type of `like`.

    The module draws its parameters on the CPU from torch's generator, which keeps its state. ConfigError if the class
    cannot be used: the module cannot be made, has parameters that are not learnt, or no parameters.
    """
    make = import_critic(path)
    label = f"network.critic = {path!r}"
    drawn = np.random.default_rng(seed).integers(2**63)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(drawn))
        try:
            module = make(inputs, widths)
        except (Exception, SystemExit) as e:
            raise ConfigError(exception_lines(f"{label}: making a critic", e, "the class")) from e
    parameters = dict(module.named_parameters())
    if not parameters:
        raise ConfigError(f"{label}: the module has no parameters. Make its layers attributes in __init__.")
    if constant := [name for name, parameter in parameters.items() if not parameter.requires_grad]:
        raise ConfigError(
            f"{label}: requires_grad is False for {', '.join(constant)}. Make constants buffers: register_buffer."
        )
    return module.to(device=like.device, dtype=like.dtype)


def parameter_count(players: PlayersSpec, layout: NetworkLayout, network: NetworkSpec) -> int:
    """Returns the number of learnt parameters of all critics of the user's class; a shared network counts once."""
    first_users = {critic.network: i for i, critic in reversed(list(enumerate(layout.critics)))}
    count = 0
    for user in first_users.values():
        inputs = critic_input(players, layout, user)
        count += len(flat_parameters(make_critic(network.critic, inputs, network.critic_hidden, (0,), torch.zeros(()))))
    return count


def flat_parameters(module: nn.Module) -> Tensor:
    """Returns the parameters of a module `[P]`, in its order, as a copy."""
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
