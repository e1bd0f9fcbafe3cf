"""Any PettingZoo ParallelEnv as a World: slower than the batched worlds, and complete.

Copies are independent environments stepped one after the other. Agents may differ in what they see and do, and may end
before the others do: from then on they are absent (`present` 0, observation 0, reward 0). What an environment does
against PettingZoo's contract is a WorldError that names world, copy, step and agent, and yields no transition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from common.errors import ConfigError, WorldError
from common.spaces import AgentSpaces
from common.spec import AgentsSpec, joint_spec
from common.worlds.spaces import Decode, Encode, action_codec, describe_spaces, observation_codec
from common.worlds.world import AS_THE_WORLD_SAYS, EpisodeRules, Float32Array, Step, check_actions

ParallelEnv = Any  # PettingZoo's own class is generic in three ways and says no more


class Codec(NamedTuple):
    """How one agent's observations and actions are laid into the joint vectors."""

    encode: Encode
    decode: Decode


class _Copy:
    """One environment, who acts in it now, and who has left its episode."""

    def __init__(self, env: ParallelEnv) -> None:
        self.env = env
        self.age = -1
        self.acting: list[Any] = []
        self.left: set[Any] = set()
        self.ended = False


class PettingZooWorld:
    """Copies of a ParallelEnv, each stepped by itself."""

    def __init__(
        self,
        name: str,
        envs: Sequence[ParallelEnv],
        seed: int | None,
        layout: tuple[AgentsSpec, list[Codec]],
        episodes: EpisodeRules = AS_THE_WORLD_SAYS,
    ) -> None:
        self.name = name
        self.copies = len(envs)
        self.spec, codecs = layout
        self.infos: list[Mapping[Any, Any]] = [{} for _ in envs]
        """The last step's infos of each copy, as its environment gave them."""
        self._copies = [_Copy(env) for env in envs]
        self._episodes = episodes
        agents = list(envs[0].possible_agents)
        self._index = {agent: i for i, agent in enumerate(agents)}
        self._codecs = dict(zip(agents, codecs, strict=True))
        self._rng = np.random.default_rng(seed)
        self._discount = np.ones((self.copies, len(agents)), np.float32)

    @classmethod
    def of_module(
        cls,
        name: str,
        module: str,
        copies: int,
        *,
        seed: int | None,
        options: Mapping[str, Any],
        episodes: EpisodeRules,
        on_made: Callable[[int], object],
    ) -> PettingZooWorld:
        """Makes copies of `module.parallel_env(**options)`."""
        envs = make_copies(name, parallel_env_of(name, module), copies, options, on_made)
        return cls(name, envs, seed, _layout(name, envs[0]), episodes)

    @property
    def spaces(self) -> tuple[AgentSpaces, ...]:
        """The agents' own spaces as plain data, in the order of the joint vectors."""
        env = self._copies[0].env
        return tuple(
            describe_spaces(str(agent), env.observation_space(agent), env.action_space(agent)) for agent in self._index
        )

    def reset(self, seeds: Sequence[int] | None = None) -> Float32Array:
        """Starts every copy anew, copy c by `reset(seed=seeds[c])`; without seeds the world's generator draws them."""
        if seeds is not None and len(seeds) != self.copies:
            raise ValueError(f"{self.name}: {len(seeds)} seeds for {self.copies} copies")
        obs = np.zeros((self.copies, self.spec.obs_dim), np.float32)
        for c in range(self.copies):
            self._reset_copy(c, obs, None if seeds is None else int(seeds[c]))
        self._check_finite(obs, "observation")
        return obs

    def step(self, actions: Float32Array) -> Step:
        """Steps every copy by its joint action; agents that are absent are not acted for."""
        check_actions(self, actions, (self.copies, self.spec.action_dim), [copy.age for copy in self._copies])
        next_obs = np.zeros((self.copies, self.spec.obs_dim), np.float32)
        reward = np.zeros((self.copies, len(self.spec.agents)), np.float32)
        present = np.zeros_like(reward)
        over = np.zeros(self.copies, np.bool_)
        for c, copy in enumerate(self._copies):
            if copy.ended:
                continue
            over[c] = self._step_copy(c, actions[c], next_obs[c], reward[c], present[c])
        self._check_finite(next_obs, "observation")
        self._check_finite(reward, "reward")
        discount = self._discount.copy()
        obs = next_obs.copy()
        for c, copy in enumerate(self._copies):
            if over[c]:
                obs[c] = 0.0
                if self._episodes.restart_ended:
                    self._reset_copy(c, obs, None)
                else:
                    copy.ended = True
            else:
                for agent in copy.left:
                    obs[c, self._agent(agent).obs_slice] = 0.0
        self._check_finite(obs, "observation")
        return Step(obs, reward, discount, present, next_obs, over)

    def wrap(self, around: Callable[[ParallelEnv], ParallelEnv]) -> None:
        """Puts something around every environment, such as what films it."""
        for copy in self._copies:
            copy.env = around(copy.env)

    def close(self) -> None:
        """Closes every environment."""
        for copy in self._copies:
            copy.env.close()

    def _agent(self, agent: Any) -> Any:
        return self.spec.agents[self._index[agent]]

    def _reset_copy(self, c: int, obs: Float32Array, seed: int | None) -> None:
        copy = self._copies[c]
        seen, _ = copy.env.reset(seed=int(self._rng.integers(2**31)) if seed is None else seed)
        copy.age, copy.acting, copy.left = 0, list(copy.env.agents), set()
        copy.ended = False
        self._discount[c] = 1.0
        for agent in copy.acting:
            self._see(c, agent, seen, obs[c])

    def _step_copy(
        self, c: int, action: Float32Array, next_obs: Float32Array, reward: Float32Array, present: Float32Array
    ) -> bool:
        """Steps one copy, fills its rows, and returns whether its episode is over."""
        copy = self._copies[c]
        copy.age += 1
        acts = {agent: self._codecs[agent].decode(action[self._agent(agent).action_slice]) for agent in copy.acting}
        seen, rewards, terminations, truncations, self.infos[c] = copy.env.step(acts)
        for agent in copy.acting:
            i = self._index[agent]
            if agent not in rewards:
                raise self._broken(c, agent, "acted and was given no reward")
            reward[i], present[i] = rewards[agent], 1.0
            if terminations.get(agent, False):
                self._discount[c, i] = 0.0
            if agent in seen or not terminations.get(agent, False):
                self._see(c, agent, seen, next_obs)
        ended = {a for a in copy.acting if terminations.get(a, False) or truncations.get(a, False)}
        joined = self._carry_on(c, ended)
        for agent in joined:
            self._see(c, agent, seen, next_obs)
        return not copy.acting or copy.age == self._episodes.max_steps

    def _carry_on(self, c: int, ended: set[Any]) -> list[Any]:
        """Takes over who acts next, checks it against who acted, and returns who joined."""
        copy = self._copies[c]
        before = set(copy.acting)
        # An environment that leaves its list of agents as it is once all have ended is over all the same.
        now = [] if before == ended else list(copy.env.agents)
        for agent in now:
            if agent in copy.left or agent in ended:
                raise self._broken(c, agent, "has ended in this episode and is among the acting agents again")
        for agent in before - ended - set(now):
            raise self._broken(c, agent, "vanished without a termination or truncation")
        copy.left |= ended
        copy.acting = now
        return [agent for agent in now if agent not in before]

    def _see(self, c: int, agent: Any, seen: Mapping[Any, Any], row: Float32Array) -> None:
        """Writes one agent's observation into a joint row."""
        if agent not in self._index:
            raise self._broken(c, agent, "is not among the environment's possible_agents")
        if agent not in seen:
            raise self._broken(c, agent, "was given no observation")
        part = self._agent(agent).obs_slice
        values = self._codecs[agent].encode(seen[agent])
        if len(values) != part.stop - part.start:
            raise self._broken(c, agent, f"was given {len(values)} numbers to observe, not {part.stop - part.start}")
        row[part] = values

    def _check_finite(self, rows: Float32Array, what: str) -> None:
        """Raises WorldError for a NaN or infinity in [copies, sum obs] or [copies, agents]."""
        if np.isfinite(rows).all():
            return
        c, column = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        agents = self.spec.agents
        i = column if what == "reward" else next(i for i, a in enumerate(agents) if column < a.obs_slice.stop)
        raise self._broken(c, list(self._index)[i], f"was given {rows[c, column]} as {what}")

    def _broken(self, c: int, agent: Any, what: str) -> WorldError:
        return WorldError(f"{self.name}: step {self._copies[c].age} of copy {c}: agent {agent} {what}", c)


def make_copies(
    name: str,
    make: Callable[..., ParallelEnv],
    copies: int,
    options: Mapping[str, Any],
    on_made: Callable[[int], object],
) -> list[ParallelEnv]:
    """Makes copies of an environment and reports each. Raises ConfigError for options that `make` does not take."""
    envs = []
    for copy in range(copies):
        try:
            envs.append(make(**options))
        except TypeError as e:
            raise ConfigError(f"{name}: parallel_env does not take the options {dict(options)}: {e}") from e
        on_made(copy)
    return envs


def parallel_env_of(name: str, module: str) -> Callable[..., ParallelEnv]:
    """Returns a module's `parallel_env`. Raises ConfigError where there is none."""
    try:
        found = import_module(module)
    except ImportError as e:
        raise ConfigError(f"{name}: cannot import {module}: {e}; {_way_out(module, e)}") from e
    make = getattr(found, "parallel_env", None)
    if not callable(make):
        raise ConfigError(f"{name}: {module} has no parallel_env(); name a module that makes a PettingZoo ParallelEnv")
    made: Callable[..., ParallelEnv] = make
    return made


def _way_out(module: str, error: ImportError) -> str:
    """Returns what to do where a module is not found, or does not find what it imports itself."""
    if error.name and f"{module}.".startswith(f"{error.name}."):
        return "install it, or, where its file lies: export PYTHONPATH=$PWD"
    return f"install what {module} needs"


def team_of(agent: str) -> str:
    """Returns the side an agent's name tells: what stands before the last underscore and number."""
    return re.sub(r"_\d+$", "", agent)


def _layout(name: str, env: ParallelEnv) -> tuple[AgentsSpec, list[Codec]]:
    """Lays all possible agents of an environment side by side."""
    agents, codecs = [], []
    for agent in env.possible_agents:
        where = f"{name}: agent {agent}"
        obs_dim, encode = observation_codec(env.observation_space(agent), where)
        parts, decode = action_codec(env.action_space(agent), where)
        agents.append((str(agent), team_of(str(agent)), obs_dim, parts))
        codecs.append(Codec(encode, decode))
    return joint_spec(agents), codecs
