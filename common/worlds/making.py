"""How a `pettingzoo:` name becomes environments: finds their maker, checks the options, reads the agents' spaces."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from gymnasium.spaces import Space

from common.errors import ConfigError, ShoalError, WorldError
from common.run.validation_errors import suggest
from common.spec import AgentsSpec, joint_spec
from common.worlds.faults import raised
from common.worlds.spaces import Decode, Encode, action_codec, observation_codec

ParallelEnv = Any  # PettingZoo's own class is generic in three ways and says no more
_AEC = "an AEC environment: return pettingzoo.utils.aec_to_parallel(...) from parallel_env() in a module of your own"


class Codec(NamedTuple):
    """How one agent's observations and actions are laid into the joint vectors, and the spaces they are of."""

    encode: Encode
    decode: Decode
    observed: Space[Any] | None = None
    acted: Space[Any] | None = None


class Layout(NamedTuple):
    """All possible agents of an environment side by side."""

    spec: AgentsSpec
    codecs: list[Codec]


def maker_of(name: str, path: str) -> Callable[..., ParallelEnv]:
    """Returns a module's `parallel_env`, or the class or function that `path` names in a module.

    Raises ConfigError where there is none, and WorldError for an exception that the module raises.
    """
    _refuse_other_spellings(name, path)
    found = _find(name, path)
    if not isinstance(found, ModuleType):
        if not callable(found):
            raise ConfigError(
                f"{name}: {path} is {type(found).__name__}; name a module with parallel_env(), or a class"
            )
        return found  # type: ignore[no-any-return]
    make: Callable[..., ParallelEnv] | None = getattr(found, "parallel_env", None)
    if callable(make):
        return make
    if callable(getattr(found, "env", None)) or callable(getattr(found, "raw_env", None)):
        raise ConfigError(f"{name}: {path} has no parallel_env(); it makes {_AEC}")
    classes = [c for c in vars(found).values() if _is_env_class(c) and c.__module__ == found.__name__]
    if classes:
        raise ConfigError(f"{name}: {path} has no parallel_env(); write pettingzoo:{path}.{classes[0].__name__}")
    raise ConfigError(f"{name}: {path} has no parallel_env(); name a module that makes a PettingZoo ParallelEnv")


def make_copies(
    name: str,
    make: Callable[..., ParallelEnv],
    copies: int,
    options: Mapping[str, Any],
    on_made: Callable[[int], object],
    *,
    on_fault: Callable[[BaseException], object],
) -> list[ParallelEnv]:
    """Makes copies of an environment and reports each; where one fails, says so and closes those made.

    Raises ConfigError for options that `make` does not take, WorldError for what the constructor raises.
    """
    _check_options(name, make, options)
    envs: list[ParallelEnv] = []
    with closed_on_fault(name, envs, on_fault):
        for copy in range(copies):
            try:
                envs.append(make(**options))
            except BaseException as e:
                _refuse_unknown_option(name, e, options)
                raise raised(f"{name}: making copy {copy}", e, copy) from e
            _check_env(f"{name}: copy {copy}", envs[-1], copy)
            on_made(copy)
    return envs


@contextmanager
def closed_on_fault(
    name: str, envs: Sequence[ParallelEnv], on_fault: Callable[[BaseException], object]
) -> Iterator[None]:
    """Closes the environments when what follows fails, after `on_fault` was told: a close() may never return."""
    try:
        yield
    except BaseException as e:
        on_fault(e)
        with suppress(Exception):
            close_all(name, envs)
        raise


def close_all(name: str, envs: Sequence[ParallelEnv]) -> None:
    """Closes every environment, also after one that fails to; then raises the first failure."""
    first: ShoalError | None = None
    for copy, env in enumerate(envs):
        try:
            env.close()
        except BaseException as e:  # noqa: BLE001  (raised once all are closed; Ctrl-C at once)
            error = raised(f"{name}: closing copy {copy}", e, copy)
            first = first or error
    if first is not None:
        raise first


def lay_out(name: str, envs: Sequence[ParallelEnv]) -> Layout:
    """Lays all possible agents of an environment side by side; WorldError where copies differ."""
    agents, codecs = [], []
    names = list(envs[0].possible_agents)
    for agent in names:
        where = f"{name}: agent {agent}"
        observed, acted = (_space(where, envs[0], kind, agent) for kind in ("observation_space", "action_space"))
        obs_dim, encode = observation_codec(observed, where)
        parts, decode = action_codec(acted, where)
        shown = printable(str(agent))
        agents.append((shown, team_of(shown), obs_dim, parts))
        codecs.append(Codec(encode, decode, observed, acted))
    for copy, env in enumerate(envs[1:], 1):
        if list(env.possible_agents) != names:
            raise WorldError(f"{name}: copy {copy} has agents {env.possible_agents}, copy 0 has {names}", copy)
        for agent, codec in zip(names, codecs, strict=True):
            for kind, first in (("observation_space", codec.observed), ("action_space", codec.acted)):
                other = _space(f"{name}: copy {copy}: agent {agent}", env, kind, agent)
                if other is not first and other != first:
                    text = f"{name}: copy {copy}: {kind} of agent {agent} is {other}, in copy 0 it is {first}"
                    raise WorldError(f"{text}; all copies must be alike", copy)
    return Layout(joint_spec(agents), codecs)


def team_of(agent: str) -> str:
    """Returns the side an agent's name tells: what stands before the last underscore and number."""
    return re.sub(r"_\d+$", "", agent)


def _refuse_other_spellings(name: str, path: str) -> None:
    dotted = path.removesuffix(".py").replace(":", ".").replace("/", ".").strip(".")
    if ":" in path or path.endswith(".py"):
        raise ConfigError(f"{name}: write pettingzoo:{dotted}")
    if re.fullmatch(r"(sisl|butterfly|classic|atari|mpe)/\w+", path):
        raise ConfigError(f"{name}: {path} is an id of a registry; write pettingzoo:pettingzoo.{dotted}")
    if re.search(r"[^\w.]", path) or not path:
        raise ConfigError(
            f"{name}: {path!r} is not the name of a module; write pettingzoo:package.module, whose parallel_env() "
            "makes a PettingZoo ParallelEnv (an id of a registry, as of gymnasium.make, is no module)"
        )


def _find(name: str, path: str) -> Any:
    """Imports a module, or what a module holds under the last name of the path."""
    try:
        return import_module(path)
    except ImportError as e:
        error = e
    except BaseException as e:
        raise raised(f"{name}: importing {path}", e) from e
    parent, _, last = path.rpartition(".")
    if parent and error.name in {path, parent}:
        try:
            return getattr(import_module(parent), last)
        except AttributeError:
            if not hasattr(import_module(parent), "__path__"):
                raise ConfigError(f"{name}: {parent} has no {last}") from None
        except ImportError:
            pass
        except BaseException as e:
            raise raised(f"{name}: importing {parent}", e) from e
    raise ConfigError(f"{name}: cannot import {path}: {error}; {_way_out(path, error)}") from error


def _way_out(module: str, error: ImportError) -> str:
    """Returns what to do where a module is not found, or does not find what it imports itself."""
    if error.name and f"{module}.".startswith(f"{error.name}."):
        return "install it, or, where its file lies: export PYTHONPATH=$PWD"
    return f"install what {module} needs"


def _is_env_class(found: Any) -> bool:
    return inspect.isclass(found) and all(callable(getattr(found, method, None)) for method in ("reset", "step"))


def _check_options(name: str, make: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raises ConfigError for options that do not fit the signature, where it can be read."""
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
            raise ConfigError(f"{name}: its constructor is {e}; give it: --set world.NAME=VALUE") from None
        raise _unknown_option(name, unknown[0], accepted) from None


def _refuse_unknown_option(name: str, error: BaseException, options: Mapping[str, Any]) -> None:
    """Raises ConfigError for a TypeError that says that a callee of `parallel_env(**options)` has no such option."""
    found = re.search(r"(\S+)\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if not (isinstance(error, TypeError) and found and found[2] in options):
        return
    accepted = _accepted_by(found[1], error)
    if accepted is not None and found[2] not in accepted:
        raise _unknown_option(name, found[2], accepted) from error
    raise ConfigError(f"{name} has no option {found[2]!r}: {error}") from error


def _accepted_by(callee: str, error: BaseException) -> list[str] | None:
    """Returns the options of the class or function that refused one; None where it cannot be found by its name."""
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


def _check_env(where: str, env: ParallelEnv, copy: int) -> None:
    """Raises ConfigError for another kind of environment, WorldError for one without a list of agents."""
    if env is None:
        raise WorldError(f"{where}: the constructor returned None; return the environment", copy)
    if hasattr(env, "agent_iter"):
        raise ConfigError(f"{where}: {type(env).__name__} is {_AEC}")
    if isinstance(getattr(env, "observation_space", None), Space):
        raise ConfigError(
            f"{where}: {type(env).__name__} is an environment of one agent (Gymnasium); wrap it in a ParallelEnv whose "
            "possible_agents names that agent"
        )
    for method in ("reset", "step", "observation_space", "action_space"):
        found = getattr(env, method, None)
        if not callable(found):
            came = f"is a {type(found).__name__}" if found is not None else "is missing"
            raise WorldError(
                f"{where}: {method} {came}; a PettingZoo ParallelEnv has a method {method}"
                f"({'' if method == 'reset' else 'actions' if method == 'step' else 'agent'})",
                copy,
            )
    try:
        found = env.possible_agents
        names = list(found)
    except BaseException as e:
        if isinstance(e, AttributeError | TypeError):
            raise WorldError(
                f"{where}: {type(env).__name__} has no list possible_agents; set it in the constructor: the names of "
                "all agents that may act",
                copy,
            ) from e
        raise raised(where, e, copy) from e
    if isinstance(found, set | frozenset):
        raise WorldError(f"{where}: possible_agents is a {type(found).__name__}, which has no order; give a list", copy)
    _check_possible_agents(where, names, copy)


def _check_possible_agents(where: str, names: Sequence[Any], copy: int) -> None:
    if not names:
        raise WorldError(f"{where}: possible_agents is empty", copy)
    try:
        different = set(names)
    except TypeError:
        raise WorldError(f"{where}: possible_agents {names} has names that cannot be keys of a dict", copy) from None
    texts = [str(agent) for agent in names]
    if len(different) != len(names) or len(set(texts)) != len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise WorldError(f"{where}: possible_agents names {twice} twice", copy)


def printable(name: str) -> str:
    """Returns a name on one line: control characters as Python writes them in a text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _space(where: str, env: ParallelEnv, kind: str, agent: Any) -> Space[Any]:
    try:
        space = getattr(env, kind)(agent)
    except BaseException as e:
        raise raised(f"{where}: {kind}({agent!r})", e) from e
    if not isinstance(space, Space):
        old = "; it is a space of the old package gym" if type(space).__module__.split(".")[0] == "gym" else ""
        raise ConfigError(f"{where}: {kind} is {type(space).__name__}, not a space of gymnasium.spaces{old}")
    return space
