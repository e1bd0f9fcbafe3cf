"""The actions of the plain update, from a policy's logits: greedy, differentiable, and with target noise.

`network.head` selects the head of Box parts (docs/algorithms.md). Categorical parts are one-hot choices under every
head. Logits and actions are `[batch, length of the player's action]`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.policy.masks import FORBIDDEN
from common.spec import Box, PlayerSpec

THRUST = Box((0.0,) * 5, (1.0,) * 5)
"""The Box of a particle's move: stay, left, right, down and up, each from 0 to 1."""


def allowed_numbers(player: PlayerSpec, obs: Tensor) -> Tensor:
    """Returns 0 for the numbers of a player's action that its action masks forbid in joint observations, else 1."""
    allowed = obs.new_ones(len(obs), player.action_dim)
    for obs_column, action_column in player.mask_columns:
        allowed[:, action_column - player.action_start] = obs[:, obs_column]
    return allowed


def lower_forbidden(logits: Tensor, allowed: Tensor) -> Tensor:
    """Returns logits in which those of forbidden choices are so low that no softmax or argmax takes them.

    Huang and Ontanon 2022, arXiv 2006.14171. allowed: from `allowed_numbers`.
    """
    return logits - (1 - allowed) * FORBIDDEN


def greedy_action(player: PlayerSpec, logits: Tensor, head: str = "box") -> Tensor:
    """Returns `a = mu(o)` without exploration."""
    parts = []
    for part, columns in zip(player.parts, player.part_slices, strict=True):
        part_logits = logits[:, columns]
        if isinstance(part, Box):
            parts.append(_box_action(part, part_logits, head))
        else:
            parts.append(nn.functional.one_hot(part_logits.argmax(1), part.n).to(part_logits))
    return torch.cat(parts, 1)


def differentiable_action(
    player: PlayerSpec, logits: Tensor, gumbel: Tensor, *, hard: bool, temperature: float, head: str = "box"
) -> Tensor:
    """Returns `a = mu(o)` with a gradient for discrete parts too (Jang et al. 2017).

    gumbel: Gumbel noise for Categorical parts, and for Box parts under the head `soft`. hard: straight-through samples,
    which are one-hot forward and have the gradient of the soft sample; False gives soft samples.
    """
    parts = []
    for part, columns in zip(player.parts, player.part_slices, strict=True):
        part_logits = logits[:, columns]
        if isinstance(part, Box):
            parts.append(_box_action(part, part_logits, head, gumbel[:, columns]))
            continue
        soft = nn.functional.softmax((part_logits + gumbel[:, columns]) / temperature, 1)
        one_hot = nn.functional.one_hot(soft.argmax(1), part.n).to(part_logits)
        parts.append(one_hot + soft - soft.detach() if hard else soft)
    return torch.cat(parts, 1)


def add_target_noise(player: PlayerSpec, action: Tensor, noise: Tensor, head: str = "box") -> Tensor:
    """Returns a target action plus noise, clamped to its bounds. `noise` is in units of half the action's range.

    Choices and soft vectors get no noise, which would take them off the simplex.
    """
    parts = []
    for part, columns in zip(player.parts, player.part_slices, strict=True):
        part_action = action[:, columns]
        if isinstance(part, Box) and head != "soft":
            low, high = torch.tensor(part.low).to(part_action), torch.tensor(part.high).to(part_action)
            part_noise = noise[:, columns] * (high - low) / 2
            if head == "force" and part == THRUST:
                # The noise is on the thrust: a direction gets as much as the opposite one loses.
                right, up = part_noise[:, 2], part_noise[:, 4]
                part_noise = torch.stack([0 * up, -right, right, -up, up], 1)
            part_action = (part_action + part_noise).clamp(low, high)
        parts.append(part_action)
    return torch.cat(parts, 1)


def _box_action(part: Box, logits: Tensor, head: str, gumbel: Tensor | float = 0.0) -> Tensor:
    """Returns the action of a Box part under a head."""
    low, high = torch.tensor(part.low).to(logits), torch.tensor(part.high).to(logits)
    middle, half = (high + low) / 2, (high - low) / 2
    if head == "soft":
        return nn.functional.softmax(logits + gumbel, 1)
    if head == "force" and part.size == 2:
        return middle + half * _force(logits)
    if head == "force" and part == THRUST:
        _, left, right, down, up = logits.t()
        x, y = _force(torch.stack([right - left, up - down], 1)).t()
        return torch.stack([0 * x, (1 - x) / 2, (1 + x) / 2, (1 - y) / 2, (1 + y) / 2], 1)
    return middle + half * torch.tanh(logits)


def _force(h: Tensor) -> Tensor:
    """Returns `tanh(|h|) h / |h|` of h `[batch, 2]`; near 0 by its series, whose gradient is finite."""
    square = h.square().sum(1, keepdim=True)
    is_short = square < 1e-6
    norm = torch.where(is_short, 1.0, square).sqrt()
    return h * torch.where(is_short, 1 - square / 3 + 2 * square**2 / 15, torch.tanh(norm) / norm)
