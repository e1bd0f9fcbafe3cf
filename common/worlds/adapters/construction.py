"""Makes the copies of an environment, and reads the agents with their spaces from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from gymnasium.spaces import Space

from common.errors import ConfigError, ShoalError, WorldError
from common.spec import AgentsSpec, Part, joint_spec
from common.user_code import shorten
from common.worlds.adapters.constructor_options import check_options, refuse_unknown_option
from common.worlds.adapters.contract import ContractError
from common.worlds.adapters.conversion import as_parallel_env
from common.worlds.adapters.faults import (
    MAX_NAME_CHARACTERS,
    agent_text,
    copy_text,
    environment_error,
    printable,
)
from common.worlds.adapters.masks import (
    ReadMask,
    can_be_masked,
    check_mask_space,
    drop_mask,
    gives_mask,
    has_mask,
    mask_reader,
    without_mask,
)
from common.worlds.adapters.spaces import Decode, Encode, action_codec, observation_codec

ParallelEnv = Any  # PettingZoo's own class has three type parameters and adds no information


class Codec(NamedTuple):
    """Encodes one agent's observations and decodes its actions, between its spaces and the joint vectors."""

    encode: Encode
    decode: Decode
    observed: Space[Any] | None = None
    acted: Space[Any] | None = None
    read_mask: ReadMask | None = None
    """Reads the action mask, which follows the encoded observation; None without a mask."""


class _AgentReading(NamedTuple):
    """What one agent observes, without its mask, and how it acts."""

    obs_dim: int
    parts: tuple[Part, ...]
    codec: Codec


class Layout(NamedTuple):
    """All possible agents of an environment, in the order of the joint vectors."""

    spec: AgentsSpec
    codecs: list[Codec]


def make_copies(
    name: str,
    make: Callable[..., ParallelEnv],
    copies: int,
    options: Mapping[str, Any],
    on_made: Callable[[int], object],
    *,
    on_fault: Callable[[BaseException], object],
) -> list[ParallelEnv]:
    """Makes copies of an environment and calls `on_made` after each.

    If one fails, calls `on_fault` and closes the copies made so far. Raises ConfigError for options that `make` does
    not accept, WorldError for an exception of the constructor.
    """
    check_options(name, make, options)
    envs: list[ParallelEnv] = []
    with close_on_fault(name, envs, on_fault):
        for copy in range(copies):
            try:
                envs.append(as_parallel_env(name, make(**options)))
            except BaseException as e:
                refuse_unknown_option(name, e, options)
                raise environment_error(f"{name}: making {copy_text(copy, copies)}", e, copy) from e
            _check_env(f"{name}: {copy_text(copy, copies)}", envs[-1], copy)
            on_made(copy)
    return envs


@contextmanager
def close_on_fault(
    name: str, envs: Sequence[ParallelEnv], on_fault: Callable[[BaseException], object]
) -> Iterator[None]:
    """Closes the environments if the body fails, after a call of `on_fault`, because a close() may never return."""
    try:
        yield
    except BaseException as e:
        on_fault(e)
        with suppress(Exception):
            close_all(name, envs)
        raise


def close_all(name: str, envs: Sequence[ParallelEnv]) -> None:
    """Closes every environment, also after one that fails; then raises the first failure."""
    first: ShoalError | None = None
    for copy, env in enumerate(envs):
        try:
            env.close()
        except BaseException as e:  # noqa: BLE001  (raised once all are closed; Ctrl-C at once)
            error = environment_error(f"{name}: closing {copy_text(copy, len(envs))}", e, copy)
            first = first or error
    if first is not None:
        raise first


def make_layout(name: str, envs: Sequence[ParallelEnv]) -> Layout:
    """Returns all possible agents in the order of the joint vectors; WorldError if the copies differ."""
    names = list(envs[0].possible_agents)
    readings = [_read_agent(name, envs[0], agent) for agent in names]
    _check_alike(name, envs, names, [reading.codec for reading in readings])
    unmasked = [
        agent
        for agent, reading in zip(names, readings, strict=True)
        if can_be_masked(reading.parts) and reading.codec.read_mask is None
    ]
    in_info = _masked_in_info(name, envs, unmasked)
    agents, codecs, masked = [], [], set()
    for agent, reading in zip(names, readings, strict=True):
        shown, (obs_dim, parts, codec) = printable(str(agent)), reading
        if agent in in_info:
            codec = codec._replace(read_mask=mask_reader(parts, in_info=True))
        if codec.read_mask is not None:
            obs_dim += sum(part.size for part in parts)
            masked.add(shown)
        agents.append((shown, team_of(shown), obs_dim, parts))
        codecs.append(codec)
    return Layout(joint_spec(agents, masked), codecs)


def _read_agent(name: str, env: ParallelEnv, agent: Any) -> _AgentReading:
    where = f"{name}: agent {agent_text(agent)}"
    observed, acted = (_space(where, env, kind, agent) for kind in ("observation_space", "action_space"))
    parts, decode = action_codec(acted, where)
    if not (has_mask(observed) and can_be_masked(parts)):
        obs_dim, encode = observation_codec(observed, where)
        return _AgentReading(obs_dim, parts, Codec(encode, decode, observed, acted))
    check_mask_space(observed, parts, where)
    obs_dim, encode = observation_codec(without_mask(observed), where)
    read_mask = mask_reader(parts, in_info=False)
    codec = Codec(lambda obs: encode(drop_mask(obs)), decode, observed, acted, read_mask)
    return _AgentReading(obs_dim, parts, codec)


def _check_alike(name: str, envs: Sequence[ParallelEnv], names: Sequence[Any], codecs: Sequence[Codec]) -> None:
    """Raises WorldError if the copies have other agents or spaces than the first one."""
    for copy, env in enumerate(envs[1:], 1):
        which = copy_text(copy, len(envs))
        if list(env.possible_agents) != names:
            raise WorldError(
                f"{name}: {which} has the agents {_agent_list(env.possible_agents)}, copy 1 has {_agent_list(names)}",
                copy,
            )
        for agent, codec in zip(names, codecs, strict=True):
            for kind, first in (("observation_space", codec.observed), ("action_space", codec.acted)):
                other = _space(f"{name}: {which}: agent {agent_text(agent)}", env, kind, agent)
                if other is not first and other != first:
                    text = f"{name}: {which}: {kind} of agent {agent_text(agent)} is {other}, in copy 1 it is {first}"
                    raise WorldError(f"{text}; all copies must be alike", copy)


def _masked_in_info(name: str, envs: Sequence[ParallelEnv], choosing: Sequence[Any]) -> set[Any]:
    """Returns those of the choosing agents whose infos contain action masks, by one reset of the first copy.

    An agent that does not act yet counts as masked if all that act are. A result that violates PettingZoo's contract is
    ignored here, because the world's own reset reports it.
    """
    if not choosing:
        return set()
    try:
        result = envs[0].reset(seed=0)
        acting = list(envs[0].agents)
    except ContractError:
        return set()
    except BaseException as e:
        raise environment_error(f"{name}: reset of {copy_text(0, len(envs))}", e, 0) from e
    infos = result[1] if isinstance(result, tuple | list) and len(result) == 2 else None
    found = {agent for agent in choosing if gives_mask(infos, agent)}
    if found and found.issuperset(agent for agent in choosing if agent in acting):
        return set(choosing)
    return found


def team_of(agent: str) -> str:
    """Returns an agent's side: its name without the last underscore and number."""
    return re.sub(r"_\d+$", "", agent)


def _check_env(where: str, env: ParallelEnv, copy: int) -> None:
    """Raises ConfigError for another kind of environment, WorldError for one without the methods or agents it needs."""
    if env is None:
        raise WorldError(f"{where}: the constructor returned None; return the environment", copy)
    for method in ("reset", "step", "observation_space", "action_space"):
        found = getattr(env, method, None)
        if not callable(found):
            problem = f"is a {type(found).__name__}" if found is not None else "is missing"
            raise WorldError(
                f"{where}: {method} {problem}; a PettingZoo ParallelEnv has a method {method}"
                f"({'' if method == 'reset' else 'actions' if method == 'step' else 'agent'})",
                copy,
            )
    try:
        found = env.possible_agents
        names = list(found)
    except BaseException as e:
        if isinstance(e, AttributeError | TypeError):
            raise WorldError(
                f"{where}: {type(env).__name__} has no list possible_agents; set it in the constructor to the "
                "names of all agents that may act",
                copy,
            ) from e
        raise environment_error(where, e, copy) from e
    if isinstance(found, set | frozenset):
        raise WorldError(f"{where}: possible_agents is a {type(found).__name__}, which has no order; give a list", copy)
    _check_possible_agents(where, names, copy)


def _check_possible_agents(where: str, names: Sequence[Any], copy: int) -> None:
    if not names:
        raise WorldError(f"{where}: possible_agents is empty", copy)
    try:
        different = set(names)
    except TypeError:
        raise WorldError(
            f"{where}: possible_agents {_agent_list(names)} has names that cannot be keys of a dict", copy
        ) from None
    texts = [str(agent) for agent in names]
    if len(different) != len(names) or len(set(texts)) != len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise WorldError(f"{where}: possible_agents names {agent_text(twice)} twice", copy)


def _agent_list(agents: Any) -> str:
    return f"[{', '.join(agent_text(agent) for agent in agents)}]"


def _space(where: str, env: ParallelEnv, kind: str, agent: Any) -> Space[Any]:
    try:
        space = getattr(env, kind)(agent)
    except BaseException as e:
        raise environment_error(f"{where}: {kind}({shorten(repr(agent), MAX_NAME_CHARACTERS)})", e) from e
    if not isinstance(space, Space):
        old = "; it is a space of the outdated package gym" if type(space).__module__.split(".")[0] == "gym" else ""
        raise ConfigError(f"{where}: {kind} is {type(space).__name__}, not a space of gymnasium.spaces{old}")
    return space
