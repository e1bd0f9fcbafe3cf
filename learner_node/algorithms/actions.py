"""Actions of the plain update, from a policy's logits: without exploration, with a gradient, and with target noise.

`network.head` says how a Box part acts (docs/algorithms.md). Categorical parts are one-hot choices under every head.
Logits and actions are `[batch, numbers of the player's action]`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.policy.masks import FORBIDDEN
from common.spec import Box, PlayerSpec

THRUST = Box((0.0,) * 5, (1.0,) * 5)
"""A particle's move: stay, left, right, down and up."""


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
        own = logits[:, columns]
        if isinstance(part, Box):
            parts.append(_box_action(part, own, head))
        else:
            parts.append(nn.functional.one_hot(own.argmax(1), part.n).to(own))
    return torch.cat(parts, 1)


def differentiable_action(
    player: PlayerSpec, logits: Tensor, gumbel: Tensor, *, hard: bool, temperature: float, head: str = "box"
) -> Tensor:
    """Returns `a = mu(o)` with a gradient for discrete parts too (Jang et al. 2017).

    gumbel: Gumbel noise, read for Categorical parts and under the head `soft`. hard: straight-through samples, one-hot
    forward with the gradient of the soft sample; else soft samples.
    """
    parts = []
    for part, columns in zip(player.parts, player.part_slices, strict=True):
        own = logits[:, columns]
        if isinstance(part, Box):
            parts.append(_box_action(part, own, head, gumbel[:, columns]))
            continue
        soft = nn.functional.softmax((own + gumbel[:, columns]) / temperature, 1)
        one_hot = nn.functional.one_hot(soft.argmax(1), part.n).to(own)
        parts.append(one_hot + soft - soft.detach() if hard else soft)
    return torch.cat(parts, 1)


def add_target_noise(player: PlayerSpec, action: Tensor, noise: Tensor, head: str = "box") -> Tensor:
    """Returns a target action plus noise, within its bounds; `noise` is clipped, in units of half the action's range.

    Choices and soft vectors are left as they are: noise would take them off the simplex.
    """
    parts = []
    for part, columns in zip(player.parts, player.part_slices, strict=True):
        own = action[:, columns]
        if isinstance(part, Box) and head != "soft":
            low, high = torch.tensor(part.low).to(own), torch.tensor(part.high).to(own)
            own_noise = noise[:, columns] * (high - low) / 2
            if head == "force" and part == THRUST:
                # Noise is on the thrust: what is added to one direction is taken from the opposite one.
                right, up = own_noise[:, 2], own_noise[:, 4]
                own_noise = torch.stack([0 * up, -right, right, -up, up], 1)
            own = (own + own_noise).clamp(low, high)
        parts.append(own)
    return torch.cat(parts, 1)


def _box_action(part: Box, logits: Tensor, head: str, gumbel: Tensor | float = 0.0) -> Tensor:
    """Returns what a Box part executes under a head."""
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
    """Returns `tanh(|h|) h / |h|` of `[batch, 2]`, by its series near 0."""
    square = h.square().sum(1, keepdim=True)
    is_short = square < 1e-6
    norm = torch.where(is_short, 1.0, square).sqrt()
    return h * torch.where(is_short, 1 - square / 3 + 2 * square**2 / 15, torch.tanh(norm) / norm)
