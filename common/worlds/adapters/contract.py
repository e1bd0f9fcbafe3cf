"""Checks what an environment returns against PettingZoo's contract: tuples, dicts, observations, rewards, flags.

The functions `read_...` return a value, or raise ContractError with the fault. `space_mismatch` returns the fault as a
text, `is_outside` whether a number is out of bounds. pettingzoo_world.py adds world, copy, step and agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from gymnasium import spaces

from common.worlds.adapters.faults import agent_text

_LARGEST = float(np.finfo(np.float32).max)
_BEFORE = "an environment of PettingZoo before 1.23: return"
_RESET = "(observations, infos)"
_FIVE_DICTS = [dict] * 5
_STEP = "(observations, rewards, terminations, truncations, infos)"


class ContractError(Exception):
    """Describes a value of an environment and what it must be; the adapter turns it into a WorldError."""


def read_reset(result: Any) -> Mapping[Any, Any]:
    """Returns the observations of the value that `reset` returned."""
    if isinstance(result, Mapping):
        raise ContractError(f"reset returned a dict alone, not {_RESET}; {_BEFORE} {_RESET} from reset")
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ContractError(f"reset returned {describe_result(result)}, not {_RESET}, two dicts by agent")
    observations: Any = result[0]
    _check_dicts("reset", ("observations", "infos"), result)
    return observations  # type: ignore[no-any-return]


def read_step(result: Any) -> tuple[Mapping[Any, Any], ...]:
    """Returns the five dicts of the value that `step` returned."""
    if type(result) is tuple and list(map(type, result)) == _FIVE_DICTS:
        return result
    if not isinstance(result, tuple | list) or len(result) != 5:
        way_out = f"; {_BEFORE} {_STEP} from step" if isinstance(result, tuple | list) and len(result) == 4 else ""
        raise ContractError(f"step returned {describe_result(result)}, not {_STEP}, five dicts by agent{way_out}")
    _check_dicts("step", ("observations", "rewards", "terminations", "truncations", "infos"), result)
    return tuple({} if part is None else part for part in result)


def _check_dicts(method: str, names: Iterable[str], parts: Iterable[Any]) -> None:
    for name, part in zip(names, parts, strict=True):
        if not isinstance(part, Mapping) and not (name == "infos" and part is None):
            raise ContractError(f"{method} returned {short_repr(part)} as {name}, not a dict by agent")


def read_number(value: Any, what: str) -> float:
    """Returns a reward as a float; an array of one element is accepted."""
    if type(value) is float:
        found = value
    elif isinstance(value, int | float | np.integer | np.floating | np.bool_ | Fraction | Decimal):
        found = _as_float(value)
    else:
        found = _only_element(value, what)
    if not -_LARGEST <= found <= _LARGEST:
        beyond = ", which float32 cannot hold" if np.isfinite(found) else ""
        raise ContractError(f"was given {found} as {what}{beyond}")
    return found


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _only_element(value: Any, what: str) -> float:
    """Returns the only element of an array, a list or a tensor."""
    values = _array(value)
    if values is None or values.dtype.kind not in "biuf":
        raise ContractError(f"was given {short_repr(value)} as {what}, which is not a number")
    if values.size != 1:
        raise ContractError(
            f"was given {short_repr(value)} as {what}: {values.size} numbers. "
            f"Sum or weight the {what}s to one number an agent."
        )
    return float(values.reshape(-1)[0])


def read_flag(flags: Mapping[Any, Any], agent: Any, what: str) -> bool:
    """Returns whether an agent terminated or was truncated."""
    try:
        value = flags[agent]
    except KeyError:
        given = ", ".join(agent_text(name) for name in flags) or "no agent"
        raise ContractError(
            f"acted and has no entry in the {what}, which name {given}; return True or False for it"
        ) from None
    if value is False or value is True:
        return value
    values = _array(value)
    if values is None or values.size != 1 or values.dtype.kind not in "biu" or values.reshape(-1)[0] not in {0, 1}:
        raise ContractError(f"was given {short_repr(value)} in the {what}, not True or False")
    return bool(values.reshape(-1)[0])


def space_mismatch(space: spaces.Space[Any], value: Any) -> str:
    """Returns why an observation does not have the structure of its space; empty if it has.

    Numbers outside the bounds of a Box are accepted here; `is_outside` finds them.
    """
    if value is None:
        return "None"
    if isinstance(space, spaces.Dict):
        return _mismatch_in_dict(space, value)
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            return f"{short_repr(value)}, not {len(space.spaces)} parts"
        found = [
            (i, space_mismatch(inner, part)) for i, (inner, part) in enumerate(zip(space.spaces, value, strict=True))
        ]
        return next((f"at [{i}] {text}" for i, text in found if text), "")
    if isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return _mismatch_in_numbers(space, value)
    return "" if space.contains(value) else f"{short_repr(value)}, which is not in {space}"


def _mismatch_in_dict(space: spaces.Dict, value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"{short_repr(value)}, not a dict with {', '.join(map(repr, space.spaces))}"
    for key in space.spaces:
        if key not in value:
            return f"a dict without {key!r}"
    for key in value:
        if key not in space.spaces:
            return f"a dict with {key!r}, which its space does not name"
    found = ((key, space_mismatch(inner, value[key])) for key, inner in space.spaces.items())
    return next((f"at {key!r} {text}" for key, text in found if text), "")


def _mismatch_in_numbers(space: spaces.Space[Any], value: Any) -> str:
    shape = tuple(space.shape or ())
    values = _array(value)
    if values is None or values.dtype.kind not in "biuf":
        return f"{short_repr(value)}, not numbers of shape {shape}"
    if values.shape != shape and not values.size == 1 == np.prod(shape, dtype=int):
        return f"{values.size} numbers of shape {values.shape}, not {shape}"
    if isinstance(space, spaces.Box):
        return ""
    low = space.start if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) else 0
    sizes = {spaces.Discrete: "n", spaces.MultiDiscrete: "nvec"}.get(type(space))
    above = low + (getattr(space, sizes) if sizes else 2)
    if values.dtype.kind == "f" or not ((values >= low) & (values < above)).all():
        return f"{short_repr(value)}, which is not in {space}"
    return ""


def is_outside(space: spaces.Space[Any], value: Any) -> bool:
    """Returns whether an observation of a Box lies outside its bounds."""
    if not isinstance(space, spaces.Box):
        return False
    values = np.asarray(value)
    return bool(((values < space.low) | (values > space.high)).any())


def short_repr(value: Any) -> str:
    """Returns a short text of a value with its type, for a message."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001  (the user's __repr__)
        text = ""
    kind = type(value).__name__
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return text if value is None or text.startswith(kind) else f"{text} ({kind})"


def describe_result(result: Any) -> str:
    """Returns a short text of what `reset` or `step` returned, for a message: the number of values, or the value."""
    return f"{len(result)} values" if isinstance(result, tuple | list) else short_repr(result)


def _array(value: Any) -> np.ndarray[Any, Any] | None:
    try:
        return np.asarray(value)
    except Exception:  # noqa: BLE001  (ragged lists, tensors on a device)
        return None
