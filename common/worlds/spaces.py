"""Translates between a Gymnasium space and a slice of a joint vector, both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from common.errors import ConfigError
from common.spec import Box, Categorical, Part
from common.worlds.world import Float32Array

Decode = Callable[[Float32Array], Any]
"""An agent's slice of the joint action -> what its environment takes."""
Encode = Callable[[Any], Float32Array]
"""What an environment shows an agent -> its slice of the joint observation."""


def observation_codec(space: spaces.Space[Any], where: str) -> tuple[int, Encode]:
    """Returns the length of a flattened observation and how to flatten one. Raises ConfigError where none exists."""
    if isinstance(space, spaces.Box):
        return int(np.prod(space.shape)), lambda obs: np.asarray(obs, np.float32).reshape(-1)
    if not space.is_np_flattenable:
        raise ConfigError(f"{where} observes {space}, which has no fixed length; wrap the environment to flatten it")
    return spaces.flatdim(space), lambda obs: np.asarray(spaces.flatten(space, obs), np.float32)


def action_codec(space: spaces.Space[Any], where: str) -> tuple[tuple[Part, ...], Decode]:
    """Returns the parts of an action space and how to read an action from them.

    Raises ConfigError for an unbounded Box and for kinds of space that no policy here can act in.
    """
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return _box_codec(space, where)
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return (Categorical(int(space.n)),), lambda row: start + int(row.argmax())
    if isinstance(space, spaces.MultiDiscrete):
        return _choices_codec(space.nvec, space.start, space.dtype)
    if isinstance(space, spaces.MultiBinary):
        return _choices_codec(np.full(space.shape, 2), np.zeros(space.shape, int), space.dtype)
    raise ConfigError(
        f"{where} acts in {space}; only Box of floats, Discrete, MultiDiscrete and MultiBinary can be acted in"
    )


def _box_codec(space: spaces.Box, where: str) -> tuple[tuple[Part, ...], Decode]:
    low, high = np.asarray(space.low), np.asarray(space.high)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ConfigError(
            f"{where} acts in {space}, which has no finite bounds; "
            "wrap the environment in a Box with bounds (supersuit.clip_actions, or a wrapper of your own)"
        )

    def decode(row: Float32Array) -> Any:
        return np.clip(row.reshape(space.shape), low, high).astype(space.dtype)

    return (Box(tuple(low.reshape(-1).tolist()), tuple(high.reshape(-1).tolist())),), decode


def _choices_codec(sizes: Any, starts: Any, dtype: Any) -> tuple[tuple[Part, ...], Decode]:
    """Reads several choices that stand side by side, each one-hot."""
    ends = np.cumsum(sizes.reshape(-1))[:-1]

    def decode(row: Float32Array) -> Any:
        chosen = np.array([part.argmax() for part in np.split(row, ends)])
        return (chosen.reshape(sizes.shape) + starts).astype(dtype)

    return tuple(Categorical(int(n)) for n in sizes.reshape(-1)), decode
