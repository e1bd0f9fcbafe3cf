"""The options of an environment's constructor: which ones it accepts, and the errors for those that it does not."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common.errors import ConfigError
from common.run.validation_errors import suggest
from common.worlds.adapters.faults import printable, shorten

_MAX_DEFAULT_CHARACTERS = 60


def describe_options(make: Callable[..., Any]) -> tuple[str, ...]:
    """Returns the options of a constructor with their defaults, as in `max_cycles=500`; `...` for undeclared ones."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return ("...",)
    named = [p for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    more = ["..."] if any(p.kind is p.VAR_KEYWORD for p in parameters) else []
    defaults = [shorten(repr(p.default), _MAX_DEFAULT_CHARACTERS) for p in named]
    texts = [p.name if p.default is p.empty else f"{p.name}={text}" for p, text in zip(named, defaults, strict=True)]
    return tuple(printable(text) for text in [*texts, *more])


def check_options(name: str, make: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raises ConfigError for options that do not match the signature, if Python can read it."""
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(**options)
    except TypeError as e:
        accepted = _options_of(signature)
        unknown = [option for option in options if option not in accepted]
        if not unknown or any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            raise ConfigError(f"{name}: its constructor is {e}. Pass --set world.NAME=VALUE.") from None
        raise _unknown_option(name, unknown[0], accepted) from None


def refuse_unknown_option(name: str, error: BaseException, options: Mapping[str, Any]) -> None:
    """Raises ConfigError for the TypeError of a callee of `parallel_env(**options)` that has no such option."""
    found = re.search(r"(\S+)\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if not (isinstance(error, TypeError) and found and found[2] in options):
        return
    accepted = _accepted_by(found[1], error)
    if accepted is not None and found[2] not in accepted:
        raise _unknown_option(name, found[2], accepted) from error
    raise ConfigError(f"{name} has no option {found[2]!r}: {error}") from error


def _accepted_by(callee: str, error: BaseException) -> list[str] | None:
    """Returns the options of the class or function that rejected one; None if its name is not found."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return None
    names = {**trace.tb_frame.f_globals, **trace.tb_frame.f_locals}
    try:
        return _options_of(inspect.signature(names[callee.partition(".")[0]]))
    except (KeyError, TypeError, ValueError):
        return None


def _options_of(signature: inspect.Signature) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in signature.parameters.values() if p.kind in kinds]


def _unknown_option(name: str, option: str, accepted: Sequence[str]) -> ConfigError:
    known = suggest(option, accepted) if accepted else "it takes none"
    return ConfigError(f"{name} has no option {option!r}; {known}")
