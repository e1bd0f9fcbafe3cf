"""Statistics of networks and critics for `shoal diagnose`, in numpy, from layers and rollouts.

    T steps     W watched steps: the first of the T, which diagnosis.py calls measured steps
    E episodes     N players     n rows

Critics are evaluated on the watched steps; later steps only complete the returns. The module does not import torch, so
that warnings can use the statistics without it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from common.policy.heads import Floats, bounded_force, box_range, by_part, segments, softmax
from common.policy.masks import FORBIDDEN, ActionMasks
from common.policy.network import Layer, PolicyLayers
from common.spec import AgentSpec, Box, joint_spec

Doubles = npt.NDArray[np.float64]

SATURATED = 0.99
"""A tanh output beyond this magnitude is saturated: its gradient is below 0.02."""


class NetworkStats(msgspec.Struct, frozen=True):
    """Statistics of one network on the observations and actions of rollouts."""

    network: str
    inputs: int
    """Number of distinct inputs. On few inputs, even a healthy network has many inactive units."""
    hidden_units: tuple[int, ...]
    dead: tuple[float, ...]
    """Fraction of each hidden layer's ReLU units that no input activates; empty for other activations."""
    logit_size: float | None = None
    """Root mean square of a policy's logits of allowed choices; None for critics. The fields below are None where they
    do not apply."""
    saturated: float | None = None
    """Fraction of saturated numbers among the actions of Box parts."""
    top_probability: float | None = None
    """Mean probability of the likeliest choice in Categorical and soft parts."""
    entropy: float | None = None
    """Mean entropy of the choices, as a fraction of the largest possible."""


class ValueStats(msgspec.Struct, frozen=True):
    """One player's critic compared with the discounted returns that followed, in units of the scaled rewards."""

    player: str
    value: float
    """Mean of the critic's values."""
    realised: float
    """Mean of the returns."""
    realised_std: float
    bias: float
    """Mean of value - return."""
    bias_ci95: tuple[float, float]
    """95 % confidence interval of the bias, over episodes."""
    relative_bias: float
    """The bias over the mean magnitude of the returns."""
    rank_correlation: float | None
    """Spearman's rank correlation of values and returns; None if all returns are equal."""
    reward_watched: float
    """Mean reward a step in the watched steps."""
    reward_beyond: float
    """Mean reward a step in the steps after the watched ones; 0 if there are none."""


def forward(layers: Sequence[Layer], rows: Floats) -> tuple[list[Floats], Floats]:
    """Returns the hidden layers `[n, H]` after their activation, and the outputs `[n, outputs]`."""
    outputs: list[Floats] = []
    for layer in layers:
        rows = layer.forward(rows)
        outputs.append(rows)
    return outputs[:-1], outputs[-1]


def critic_stats(name: str, layers: Sequence[Layer], rows: Floats) -> NetworkStats:
    """Returns a critic's statistics on its inputs `[n, inputs]`."""
    hidden, _ = forward(layers, rows)
    return NetworkStats(name, _distinct_rows(rows), tuple(h.shape[1] for h in hidden), _dead_fractions(layers, hidden))


def policy_stats(
    player: AgentSpec, head: str, layers: PolicyLayers, hidden: Sequence[Floats], obs: Floats
) -> NetworkStats:
    """Returns a policy's statistics on its observations `[n, obs]`; hidden: the outputs of each hidden layer."""
    logits = layers.last.forward(hidden[-1])
    logits = ActionMasks(player.local_mask_columns).lower(logits, obs)
    squashed, choices = _squashed_and_choices(player, head, logits)
    tops = [part.max(axis=-1).ravel() for part in choices]
    entropies = [_normalised_entropy(part).ravel() for part in choices]
    size = float(np.sqrt(np.mean(np.square(logits[logits > -FORBIDDEN / 2], dtype=np.float64))))
    return NetworkStats(
        player.name,
        _distinct_rows(obs),
        tuple(h.shape[1] for h in hidden),
        _dead_fractions(layers.hidden, hidden),
        size,
        float(np.mean(np.concatenate(squashed) > SATURATED)) if squashed else None,
        float(np.mean(np.concatenate(tops))) if tops else None,
        float(np.mean(np.concatenate(entropies))) if entropies else None,
    )


def realised_returns(reward: Doubles, discount: Doubles, gamma: float, watched: int) -> Doubles:
    """Returns `G_t = reward_t + gamma * discount_t * G_t+1` of the first steps `[W, ...]`, from all steps `[T, ...]`.

    Rewards after the last step count as 0.
    """
    result = np.zeros((watched, *reward.shape[1:]))
    return_to_go = np.zeros(reward.shape[1:])
    for t in reversed(range(len(reward))):
        return_to_go = reward[t] + gamma * discount[t] * return_to_go
        if t < watched:
            result[t] = return_to_go
    return result


def value_stats(
    player: str, values: Doubles, reward: Doubles, discount: Doubles, present: Doubles, *, gamma: float
) -> ValueStats:
    """Compares one player's values in the watched steps `[W, E]` with the returns that followed.

    reward, discount, present: the player's signals of all steps `[T, E]`.
    """
    watched, is_present = len(values), present > 0
    returns = realised_returns(reward, discount, gamma, watched)
    watched_present = is_present[:watched]
    error = np.where(watched_present, values - returns, 0.0)
    realised, predicted = returns[watched_present], values[watched_present]
    count = watched_present.sum(axis=0)
    by_episode = error.sum(axis=0)[count > 0] / count[count > 0]
    bias, size = float(error.sum() / watched_present.sum()), float(np.abs(realised).mean())
    half_width = 1.96 * float(by_episode.std() / np.sqrt(len(by_episode)))
    all_equal = realised.std() <= 1e-6 * max(size, 1e-6)
    return ValueStats(
        player,
        float(predicted.mean()),
        float(realised.mean()),
        float(realised.std()),
        bias,
        (bias - half_width, bias + half_width),
        bias / size if size else 0.0,
        None if all_equal else rank_correlation(predicted, realised),
        _mean_reward(reward[:watched], is_present[:watched]),
        _mean_reward(reward[watched:], is_present[watched:]),
    )


def rank_correlation(a: Doubles, b: Doubles) -> float:
    """Returns Spearman's rank correlation of `[n]` and `[n]`; equal values share a mean rank; 0 if all are equal."""
    ranks = [_ranks(values) for values in (a, b)]
    centred = [rank - rank.mean() for rank in ranks]
    size = np.sqrt(np.square(centred[0]).sum() * np.square(centred[1]).sum())
    return float((centred[0] * centred[1]).sum() / size) if size else 0.0


def _mean_reward(reward: Doubles, is_present: npt.NDArray[np.bool_]) -> float:
    return float(reward[is_present].mean()) if is_present.any() else 0.0


def _ranks(values: Doubles) -> Doubles:
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    result: Doubles = (last - (counts - 1) / 2.0)[index]
    return result


def _distinct_rows(rows: Floats) -> int:
    return len({row.tobytes() for row in np.ascontiguousarray(rows)})


def _dead_fractions(layers: Sequence[Layer], hidden: Sequence[Floats]) -> tuple[float, ...]:
    """Returns the fraction of units that are never active, of each layer with ReLU."""
    relu = [outputs for layer, outputs in zip(layers, hidden, strict=False) if layer.activation == "relu"]
    return tuple(float(np.mean(~(outputs > 0.0).any(axis=0))) for outputs in relu)


def _squashed_and_choices(player: AgentSpec, head: str, logits: Floats) -> tuple[list[Floats], list[Floats]]:
    """Returns the magnitudes of Box actions in units of half their range, and the probabilities of choices."""
    player_spec = joint_spec([(player.name, player.team, player.obs_dim, player.parts)])
    squashed, choices = [], []
    for segment in segments(player_spec, head):
        part_logits = by_part(logits, segment)
        if segment.kind in ("choice", "soft"):
            probabilities = np.empty_like(part_logits)
            softmax(part_logits, probabilities)
            choices.append(probabilities)
        elif segment.kind == "box":
            # A number whose bounds are equal cannot saturate.
            free = np.concatenate([box_range(part)[1] > 0 for part in segment.parts if isinstance(part, Box)])
            squashed.append(np.abs(np.tanh(part_logits[..., free])).ravel())
        else:
            force = part_logits if segment.kind == "force" else part_logits[..., 2::2] - part_logits[..., 1::2]
            squashed.append(np.linalg.norm(bounded_force(force), axis=-1).ravel())
    return squashed, choices


def _normalised_entropy(probabilities: Floats) -> Floats:
    """Returns the entropy of `[..., k]` choices over `log k`, where k counts the choices of a probability above 0."""
    entropy: Floats = -(probabilities * np.log(np.maximum(probabilities, 1e-30))).sum(axis=-1)
    possible = (probabilities > 0.0).sum(axis=-1)
    return np.where(possible > 1, entropy / np.log(np.maximum(possible, 2), dtype=np.float32), entropy)
