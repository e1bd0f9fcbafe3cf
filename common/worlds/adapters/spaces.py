"""Encodes Gymnasium spaces as slices of joint vectors, and decodes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from common.errors import ConfigError
from common.run.spaces import OBSERVATION_KEY, AgentSpaces, Entry, Kind, mask_entry
from common.spec import Box, Categorical, Part
from common.worlds.adapters.contract import space_mismatch
from common.worlds.adapters.masks import has_mask, without_mask
from common.worlds.world import Float32Array

Decode = Callable[[Float32Array], Sequence[Any]]
"""An agent's columns of the joint actions `[copies, size]` -> the action that each copy's environment takes."""
Encode = Callable[[Any], Float32Array]
"""An agent's observation from its environment -> its slice of the joint observation."""


def observation_codec(space: spaces.Space[Any], where: str) -> tuple[int, Encode]:
    """Returns the length of a flattened observation and the function that flattens it; ConfigError if none exists."""
    if isinstance(space, spaces.Box):
        return int(np.prod(space.shape)), _box_encoder(space.shape)
    if isinstance(space, spaces.Dict) and not space.spaces:
        return 0, lambda _: np.empty(0, np.float32)
    if not space.is_np_flattenable:
        raise ConfigError(f"{where} observes {space}, which has no fixed length. Wrap the environment to flatten it.")

    def encode(obs: Any) -> Float32Array:
        if wrong := space_mismatch(space, obs):
            raise ValueError(wrong)
        return np.asarray(spaces.flatten(space, obs), np.float32)

    return spaces.flatdim(space), encode


def _box_encoder(shape: tuple[int, ...]) -> Encode:
    size = int(np.prod(shape))

    def encode(obs: Any) -> Float32Array:
        values = np.asarray(obs, np.float32)
        if values.shape != shape and not values.size == 1 == size:
            raise ValueError(f"{values.size} numbers of shape {values.shape}, not {shape}")
        return values.reshape(-1)

    return encode


def action_codec(space: spaces.Space[Any], where: str) -> tuple[tuple[Part, ...], Decode]:
    """Returns the parts of an action space and the function that decodes an action from them.

    Raises ConfigError for an unbounded Box and for kinds of space that Shoal's policies do not support.
    """
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return _box_codec(space, where)
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return (Categorical(int(space.n)),), lambda rows: (rows.argmax(axis=1) + start).tolist()
    if isinstance(space, spaces.MultiDiscrete):
        return _choices_codec(space.nvec, space.start, space.dtype)
    if isinstance(space, spaces.MultiBinary):
        return _choices_codec(np.full(space.shape, 2), np.zeros(space.shape, int), space.dtype)
    raise ConfigError(
        f"{where} acts in {space}. Shoal supports Box of floats, Discrete, MultiDiscrete and MultiBinary. Use "
        "MultiDiscrete or one Box; for mixed actions, give the Box one number for each choice and take the argmax in "
        "the environment."
    )


def _box_codec(space: spaces.Box, where: str) -> tuple[tuple[Part, ...], Decode]:
    low, high = np.asarray(space.low), np.asarray(space.high)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ConfigError(
            f"{where} acts in {space}, which has no finite bounds. "
            "Wrap the environment to give its Box bounds (supersuit.clip_actions, or your own wrapper)."
        )

    def decode(rows: Float32Array) -> list[Any]:
        values = rows.astype(space.dtype).reshape(len(rows), *space.shape)
        # Two in-place ufuncs are many times as fast as np.clip on a few numbers.
        np.maximum(values, low, out=values)
        np.minimum(values, high, out=values)
        # The ellipsis keeps an action without dimensions an array.
        return list(values) if space.shape else [values[c, ...] for c in range(len(rows))]

    return (Box(tuple(low.reshape(-1).tolist()), tuple(high.reshape(-1).tolist())),), decode


def _choices_codec(sizes: Any, starts: Any, dtype: Any) -> tuple[tuple[Part, ...], Decode]:
    """Returns the parts and the decoder of several choices, each one-hot."""
    ends = np.cumsum(sizes.reshape(-1)).tolist()
    parts = [slice(end - size, end) for end, size in zip(ends, sizes.reshape(-1).tolist(), strict=True)]

    def decode(rows: Float32Array) -> list[Any]:
        chosen = np.stack([rows[:, part].argmax(axis=1) for part in parts], axis=1)
        return list((chosen.reshape(len(rows), *sizes.shape) + starts).astype(dtype))

    return tuple(Categorical(int(n)) for n in sizes.reshape(-1)), decode


def describe_spaces(
    agent: str,
    observation: spaces.Space[Any],
    action: spaces.Space[Any],
    *,
    mask_dim: int = 0,
) -> AgentSpaces:
    """Returns one agent's spaces as plain data, from which an export can undo this module's encoding.

    mask_dim: length of the action mask, which is the last entry of the observation. A mask from infos is described as
    if the observation were a Dict with the keys "observation" and "action_mask".
    """
    acted = tuple(_entries(action, bounds=True))
    if not mask_dim:
        return AgentSpaces(agent, tuple(_entries(observation)), acted)
    if has_mask(observation):
        entries = tuple(_entries(without_mask(observation)))
    else:  # the mask is in the infos
        entries = tuple(_entries(observation, (OBSERVATION_KEY,)))
    first = entries[-1].columns[1] if entries else 0
    return AgentSpaces(agent, (*entries, mask_entry(first, mask_dim)), acted)


def _entries(
    space: spaces.Space[Any], key: tuple[str | int, ...] = (), first: int = 0, *, bounds: bool = False
) -> Iterator[Entry]:
    """Yields the leaves of a space in the order of `gymnasium.spaces.flatten`."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inside = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for name, part in inside:
            yield from _entries(part, (*key, name if isinstance(name, int) else str(name)), first, bounds=bounds)
            first += spaces.flatdim(part)
        return
    columns = (first, first + spaces.flatdim(space))
    shape, dtype = tuple(int(n) for n in space.shape or ()), np.dtype(space.dtype).name
    if isinstance(space, spaces.Discrete):
        yield Entry("discrete", columns, "one_hot", key, shape, dtype, n=int(space.n), start=int(space.start))
    elif isinstance(space, spaces.MultiDiscrete):
        choices = tuple(int(n) for n in np.ravel(space.nvec))
        starts = tuple(int(n) for n in np.ravel(space.start))
        yield Entry("multi_discrete", columns, "one_hot", key, shape, dtype, n=choices, start=starts)
    elif isinstance(space, spaces.MultiBinary) and bounds:
        # Actions of MultiBinary are choices between 0 and 1; observations are numbers.
        bits = spaces.flatdim(space)
        columns = (first, first + 2 * bits)
        yield Entry("multi_binary", columns, "one_hot", key, shape, dtype, n=(2,) * bits, start=(0,) * bits)
    else:
        kind: Kind = "multi_binary" if isinstance(space, spaces.MultiBinary) else "box"
        low: tuple[float, ...] = ()
        high: tuple[float, ...] = ()
        if isinstance(space, spaces.Text):
            kind = "text"
        elif bounds and isinstance(space, spaces.Box):
            low, high = (tuple(float(x) for x in np.ravel(bound)) for bound in (space.low, space.high))
        yield Entry(kind, columns, "values", key, shape, dtype, low=low, high=high)
