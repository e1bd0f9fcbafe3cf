"""Action masks of an environment: where it returns them, and the function that reads them.

| the environment returns the mask in                          | then the rest of the observation is     |
|--------------------------------------------------------------|-----------------------------------------|
| an observation that is a Dict with the key `action_mask`     | the Dict without that key               |
| its infos: `infos[agent]["action_mask"]`, from reset on      | the observation                         |

Only agents whose whole action consists of choices have masks: Discrete, MultiDiscrete or MultiBinary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from gymnasium import spaces

from common.errors import WorldError
from common.policy.masks import flat_mask
from common.run.spaces import MASK_KEY
from common.spec import Categorical, Part
from common.worlds.adapters.contract import short_repr
from common.worlds.world import Float32Array

(MASK,) = MASK_KEY

ReadMask = Callable[[Any, Any], Float32Array]
"""An agent's observation and its info -> its action mask; ValueError for a mask that does not fit its action."""


def can_be_masked(parts: Sequence[Part]) -> bool:
    """Returns whether all parts of an action are choices."""
    return all(isinstance(part, Categorical) for part in parts)


def has_mask(space: spaces.Space[Any]) -> TypeGuard[spaces.Dict]:
    """Returns whether an observation space contains an action mask."""
    return isinstance(space, spaces.Dict) and MASK in space.spaces


def without_mask(space: spaces.Dict) -> spaces.Dict:
    """Returns an observation space that contains an action mask, without the mask."""
    return spaces.Dict({key: inner for key, inner in space.spaces.items() if key != MASK})


def drop_mask(obs: Any) -> Any:
    """Returns an observation without its action mask."""
    return {key: value for key, value in obs.items() if key != MASK} if isinstance(obs, Mapping) else obs


def check_mask_space(space: spaces.Dict, parts: Sequence[Part], where: str) -> None:
    """Raises WorldError if the action mask in an observation space does not fit the parts of the action."""
    size, choices = _numbers(space[MASK]), sum(part.size for part in parts)
    if size != choices:
        raise WorldError(
            f"{where} observes the action mask {space[MASK]} of {size} numbers, expected {choices}: one number, 1 or 0,"
            " for each of its choices"
        )


def mask_reader(parts: Sequence[Part], *, in_info: bool) -> ReadMask:
    """Returns the function that reads an agent's mask from its observation, or from its info.

    An info without a mask allows every choice.
    """

    def read(obs: Any, info: Any) -> Float32Array:
        container = info if in_info else obs
        mask = container.get(MASK) if isinstance(container, Mapping) else None
        try:
            return flat_mask(mask, parts)
        except ValueError as e:
            raise ValueError(f"has the action mask {short_repr(mask)}, expected {e}") from None

    return read


def gives_mask(infos: Any, agent: Any) -> bool:
    """Returns whether an agent's info contains an action mask."""
    info = infos.get(agent) if isinstance(infos, Mapping) else None
    return isinstance(info, Mapping) and info.get(MASK) is not None


def _numbers(space: spaces.Space[Any]) -> int:
    """Returns how many numbers a value of a space has."""
    if isinstance(space, spaces.Tuple):
        return sum(map(_numbers, space.spaces))
    return int(np.prod(space.shape)) if space.shape is not None else 0
