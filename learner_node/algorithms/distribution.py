"""The policies of stochastic players as distributions: samples that are differentiable, and their entropies.

    Box parts           u = logit + std * noise, a = tanh(u) in units of half the action's range
                        -log pi(a|o) = -log N(noise) + log std + log(1 - tanh(u)^2), summed over the numbers
    Categorical parts   a draw from the softmax of the logits; H = -sum p log p, summed over the parts

The density of Box parts is that of Haarnoja et al. 2018 (arXiv 1812.05905), appendix C. The entropy of
Categorical parts is exact (Christodoulou 2019, arXiv 1910.07207), because the softmax gives all probabilities.

B rows of the batch     N players     U length of the joint action     G number of `PlayersSpec.gaussian_columns`
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.policy.gaussian import HALF, MID
from common.policy.heads import segments
from common.policy.masks import FORBIDDEN
from common.spec import Categorical, PlayersSpec


class Sample(NamedTuple):
    """One sample of the Box parts of all stochastic players."""

    logits: Tensor
    """The logits without noise, which the sample without exploration comes from `[B, U]`."""
    noisy_logits: Tensor
    """The logits with the noise of the sample in the columns of Gaussians: `u` above `[B, U]`."""
    entropy: Tensor
    """One-sample estimate of each player's entropy [nats] `[N, B]`; 0 for players that are not stochastic."""


class Distribution:
    """The distributions of all stochastic players.

    Example:
        distribution = Distribution(players, like)
        sample = distribution.sample(logits, output, noise)
    """

    def __init__(self, players: PlayersSpec, like: Tensor) -> None:
        """Takes the number type and the device from `like`."""
        self._players = len(players.agents)
        self.gaussian_columns = _tensor(players.gaussian_columns, like)
        """Columns of the joint action `[G]`."""
        self._gaussian_owner = _tensor([i for i, p in enumerate(players.agents) for _ in p.gaussian_columns], like)
        # Segments join adjacent choices of one size, whichever players make them; deterministic ones have weight 0.
        choices = [segment for segment in segments(players, "box") if segment.kind == "choice"]
        owners = iter([i for i, p in enumerate(players.agents) for part in p.parts if isinstance(part, Categorical)])
        self._choices: list[tuple[slice, tuple[int, int], Tensor, Tensor]] = []
        for segment in choices:
            owner = [next(owners) for _ in segment.parts]
            weight = like.new_tensor([float(players.agents[i].stochastic) for i in owner])
            self._choices.append((segment.columns, segment.shape, _tensor(owner, like), weight))

    def sample(self, logits: Tensor, output: Tensor, noise: Tensor) -> Sample:
        """Returns a sample, which has gradients by logits and outputs (the reparameterisation trick).

        logits: `[B, U]`. output: the policies' outputs for the Gaussians `[B, G]`. noise: standard Gaussian `[B, G]`.
        """
        log_std = MID + HALF * torch.tanh(output)
        noisy = logits.index_add(1, self.gaussian_columns, noise * log_std.exp())
        surprise = squashed_surprise(noisy.index_select(1, self.gaussian_columns), noise, log_std)
        entropy = logits.new_zeros(self._players, len(logits)).index_add(0, self._gaussian_owner, surprise.t())
        for part_logits, owner, weight in self._by_choices(logits):
            entropy = entropy.index_add(0, owner, (choice_entropy(part_logits) * weight).t())
        return Sample(logits, noisy, entropy)

    def target_entropy(self, logits: Tensor, choice_fraction: float) -> Tensor:
        """Returns -1 for each number of Box parts, and `choice_fraction * log n` for each choice among n `[N, B]`.

        n counts the choices that the action mask allows in a row: with one choice left, the entropy can only be 0.
        """
        rows = logits.new_ones(len(self._gaussian_owner), len(logits))
        target = logits.new_zeros(self._players, len(logits)).index_add(0, self._gaussian_owner, -rows)
        for part_logits, owner, weight in self._by_choices(logits):
            allowed = (part_logits > part_logits.amax(2, keepdim=True) - FORBIDDEN / 2).sum(2).to(logits)
            target = target.index_add(0, owner, (choice_fraction * allowed.log() * weight).t())
        return target

    def _by_choices(self, logits: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields logits `[B, P, n]` of P choices of one size, with the owner and the weight of each choice `[P]`."""
        for columns, shape, owner, weight in self._choices:
            yield logits[:, columns].reshape(len(logits), *shape), owner, weight


def squashed_surprise(u: Tensor, noise: Tensor, log_std: Tensor) -> Tensor:
    """Returns `-log pi(tanh(u))` of each number for `u = mean + std * noise`, all `[B, G]` [nats]."""
    gaussian = 0.5 * noise.square() + log_std + 0.5 * math.log(2 * math.pi)
    # log(1 - tanh(u)^2) without loss of precision where tanh(u) is nearly 1.
    return gaussian + 2 * (math.log(2) - u - nn.functional.softplus(-2 * u))


def choice_entropy(logits: Tensor) -> Tensor:
    """Returns the entropy of the softmax of each part's logits `[..., n]` [nats]; forbidden choices add 0."""
    log_p = nn.functional.log_softmax(logits, -1)
    return -(log_p.exp() * log_p).sum(-1)


def _tensor(numbers: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(list(numbers), dtype=torch.int64, device=like.device)
