"""Any PettingZoo ParallelEnv as a World.

Copies are independent environments that step one after the other. Agents may differ in their spaces, and may leave an
episode before the others; then they are absent (`present` 0, observation 0, reward 0). An environment that breaks
PettingZoo's contract raises a WorldError that names world, copy, step and agent, and yields no transition.
An agent's action mask, from its observation or its info (masks.py), is the end of its flat observation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
import numpy as np

from common.errors import ConfigError, WorldError
from common.run.spaces import AgentSpaces
from common.spec import MAX_JOINT_NUMBERS, AgentSpec
from common.worlds.adapters.construction import (
    Codec,
    Layout,
    ParallelEnv,
    close_all,
    close_on_fault,
    make_copies,
    make_layout,
)
from common.worlds.adapters.contract import (
    ContractError,
    is_outside,
    read_flag,
    read_number,
    read_reset,
    read_step,
    short_repr,
    space_mismatch,
)
from common.worlds.adapters.faults import agent_text, copy_text, environment_error, printable
from common.worlds.adapters.info_metrics import InfoMetrics
from common.worlds.adapters.masks import can_be_masked, gives_mask
from common.worlds.adapters.spaces import describe_spaces
from common.worlds.world import (
    DEFAULT_EPISODE_RULES,
    NO_METRICS,
    BoolArray,
    EpisodeRules,
    Float32Array,
    Step,
    check_actions,
)

_log = logging.getLogger(__name__)
_CHECKED_EPISODES = 2
"""First episodes of each copy in which every value is checked; later episodes have the cheap checks only."""
_LATE_MASK = (
    "the infos contain an action mask (action_mask) of agent {}, but those of the first copy's reset did not: the mask "
    "is not used. Return it from reset on"
)


class _AgentSlot(NamedTuple):
    """One agent's index, its slices of the joint vectors, and its codec."""

    agent_index: int
    obs: slice
    """Columns of the observation without its action mask."""
    mask: slice
    """Columns of the action mask; empty without one."""
    action: slice
    codec: Codec


class _Copy:
    """One environment, its acting agents, and the agents that have left its episode."""

    def __init__(self, env: ParallelEnv) -> None:
        self.env = env
        self.age = -1
        self.acting: list[Any] = []
        self.departed: set[Any] = set()
        self.ended = False
        self.episodes = 0


class PettingZooWorld:
    """Copies of a ParallelEnv, each stepped by itself.

    Example: make_world("pettingzoo:sisl/pursuit-v5", copies=4, seed=0)
    """

    def __init__(
        self,
        name: str,
        envs: Sequence[ParallelEnv],
        seed: int | None,
        layout: Layout,
        episodes: EpisodeRules = DEFAULT_EPISODE_RULES,
    ) -> None:
        self.name = name
        self.copies = len(envs)
        self.spec, codecs = layout.spec, layout.codecs
        self.infos: list[Mapping[Any, Any]] = [{} for _ in envs]
        """Each copy's infos of the last step, as its environment returned them."""
        self._copies = [_Copy(env) for env in envs]
        self._episodes = episodes
        agents = list(envs[0].possible_agents)
        self._index = {agent: i for i, agent in enumerate(agents)}
        self._slots = {
            agent: _slot_of(i, spec, codec)
            for i, (agent, spec, codec) in enumerate(zip(agents, self.spec.agents, codecs, strict=True))
        }
        self._rng = np.random.default_rng(seed)
        self._discount = np.ones((self.copies, len(agents)), np.float32)
        # A spec adds its sizes up at each access, which every step would pay for.
        self._obs_shape = (self.copies, self.spec.obs_dim)
        self._action_shape = (self.copies, self.spec.action_dim)
        self._info_metrics: InfoMetrics | None = None
        self._state = np.zeros((self.copies, 0), np.float32)

    @classmethod
    def of_constructor(
        cls,
        name: str,
        make: Callable[..., ParallelEnv],
        copies: int,
        *,
        seed: int | None,
        options: Mapping[str, Any],
        episodes: EpisodeRules,
        on_made: Callable[[int], object],
        on_fault: Callable[[BaseException], object],
    ) -> PettingZooWorld:
        """Makes copies of what `make(**options)` returns."""
        envs = make_copies(name, make, copies, options, on_made, on_fault=on_fault)
        with close_on_fault(name, envs, on_fault):
            return cls(name, envs, seed, make_layout(name, envs), episodes)

    @property
    def spaces(self) -> tuple[AgentSpaces, ...]:
        """The agents' spaces as plain data, in the order of the joint vectors."""
        env = self._copies[0].env
        return tuple(
            describe_spaces(
                printable(str(agent)),
                env.observation_space(agent),
                env.action_space(agent),
                mask_dim=slot.mask.stop - slot.mask.start,
            )
            for agent, slot in self._slots.items()
        )

    @property
    def environments(self) -> Sequence[ParallelEnv]:
        """The environments in the order of the copies."""
        return [copy.env for copy in self._copies]

    @property
    def departed(self) -> BoolArray:
        """Which agents have left the current episode before the others, [copies, agents]."""
        left = np.zeros(self._discount.shape, np.bool_)
        for c, copy in enumerate(self._copies):
            for agent in copy.departed:
                left[c, self._index[agent]] = True
        return left

    def reset(self, seeds: Sequence[int] | None = None) -> Float32Array:
        """Starts a new episode in every copy, copy c by `reset(seed=seeds[c])`; without seeds the world draws them."""
        if seeds is not None and len(seeds) != self.copies:
            raise ValueError(f"{self.name}: {len(seeds)} seeds for {self.copies} copies")
        obs = np.zeros(self._obs_shape, np.float32)
        for c in range(self.copies):
            self._reset_copy(c, obs, None if seeds is None else int(seeds[c]))
        self._check_finite(obs)
        return obs

    def step(self, actions: Float32Array) -> Step:
        """Steps every copy by its joint action; the actions of absent agents are ignored."""
        check_actions(self, actions, self._action_shape, [copy.age for copy in self._copies])
        next_obs = np.zeros(self._obs_shape, np.float32)
        reward = np.zeros(self._discount.shape, np.float32)
        present = np.zeros(self._discount.shape, np.float32)
        over = np.zeros(self.copies, np.bool_)
        next_state = np.zeros_like(self._state) if self.spec.state_dim else None
        decoded = [slot.codec.decode(actions[:, slot.action]) for slot in self._slots.values()]
        for c, (copy, copy_actions) in enumerate(zip(self._copies, zip(*decoded, strict=True), strict=True)):
            if copy.ended:
                continue
            if self._step_copy(c, copy_actions, next_obs[c], reward[c], present[c]):
                over[c] = True
            if next_state is not None:
                next_state[c] = self._state[c] = self._read_state(c)
        self._check_finite(next_obs)
        discount = self._discount.copy()
        metrics = self._info_metrics.of_step(self.infos, present) if self._info_metrics else NO_METRICS
        obs = next_obs.copy()
        for c, copy in enumerate(self._copies):
            if over[c]:
                obs[c] = 0.0
                if self._episodes.restart_ended:
                    self._reset_copy(c, obs, None)
                    self._check_finite(obs)
                else:
                    copy.ended = True
            elif copy.departed:
                for agent in copy.departed:
                    obs[c, self._slots[agent].obs] = 0.0
        return Step(obs, reward, discount, present, next_obs, over, metrics, next_state)

    def add_metrics(self) -> None:
        """Adds the numbers in the infos to the metrics of every step."""
        self._info_metrics = InfoMetrics(list(self._index))

    def add_global_state(self, state_dim: int) -> None:
        """Adds the environment's `state()`, of this length, to the spec and to every step."""
        self.spec = msgspec.structs.replace(self.spec, state_dim=state_dim)
        self._state = np.zeros((self.copies, state_dim), np.float32)

    def find_state_dim(self) -> int:
        """Returns the length of the environment's `state()` after a reset of the first copy.

        Raises ConfigError for an environment without it.
        """
        missing = ConfigError(
            f"algorithm.critic_sees: {self.name} has no state(). Add a method state() that returns a vector to the "
            "environment, or set algorithm.critic_sees=observations."
        )
        copy = self._copies[0]
        if not callable(getattr(copy.env, "state", None)):
            raise missing
        self._reset_copy(0, np.zeros((1, self.spec.obs_dim), np.float32), 0)
        copy.episodes = 0
        try:
            return len(_flat_state(copy.env.state()))
        except NotImplementedError as e:
            raise missing from e
        except ContractError as e:
            raise self._copy_error(0, e) from None
        except BaseException as e:
            raise environment_error(self._where(0), e, 0) from e

    def global_state(self) -> Float32Array:
        """Returns a copy of the states for the next actions `[copies, state]`."""
        return self._state.copy()

    def wrap(self, around: Callable[[ParallelEnv], ParallelEnv]) -> None:
        """Replaces every environment by `around(environment)`, for example a wrapper that films it."""
        for copy in self._copies:
            copy.env = around(copy.env)

    def close(self) -> None:
        """Closes every environment."""
        close_all(self.name, self.environments)

    def _reset_copy(self, c: int, obs: Float32Array, seed: int | None) -> None:
        copy = self._copies[c]
        copy.age, copy.departed, copy.ended = 0, set(), False
        try:
            result = copy.env.reset(seed=int(self._rng.integers(2**31)) if seed is None else seed)
            copy.acting = list(copy.env.agents)
        except ContractError as e:
            raise self._copy_error(c, e) from None
        except BaseException as e:
            raise environment_error(self._where(c), e, c) from e
        copy.episodes += 1
        try:
            seen = read_reset(result)
        except ContractError as e:
            raise self._copy_error(c, e) from None
        infos = result[1] or {}
        self._discount[c] = 1.0
        if not copy.acting:
            raise self._copy_error(c, "reset left env.agents empty; it must contain the agents that act")
        if copy.episodes <= _CHECKED_EPISODES:
            self._check_agents(c, copy.acting)
            self._check_names(c, seen, "observations")
            self._check_spaces(c)
        for agent in copy.acting:
            self._write_observation(c, agent, seen, infos, obs[c])
        if self.spec.state_dim:
            self._state[c] = self._read_state(c)

    def _step_copy(
        self, c: int, actions: Sequence[Any], next_obs: Float32Array, reward: Float32Array, present: Float32Array
    ) -> bool:
        """Steps one copy, fills its rows of the arrays, and returns whether its episode is over.

        actions: those of all agents in spec order, as the environment takes them.
        """
        copy, slots = self._copies[c], self._slots
        copy.age += 1
        seen, rewards, terminations, truncations = self._step_env(c, actions)
        ended = set()
        for agent in copy.acting:
            i = slots[agent].agent_index
            if agent not in rewards:
                raise self._agent_error(c, agent, "acted and was given no reward")
            terminated, truncated = terminations.get(agent), truncations.get(agent)
            try:
                reward[i] = read_number(rewards[agent], "reward")
                if terminated is not False:
                    terminated = read_flag(terminations, agent, "terminations")
                if truncated is not False:
                    truncated = read_flag(truncations, agent, "truncations")
            except ContractError as e:
                raise self._agent_error(c, agent, e) from None
            present[i] = 1.0
            if terminated:
                self._discount[c, i] = 0.0
            if terminated or truncated:
                ended.add(agent)
            if agent in seen or not terminated:
                self._write_observation(c, agent, seen, self.infos[c], next_obs)
        for agent in self._update_agents(c, ended):
            self._write_observation(c, agent, seen, self.infos[c], next_obs)
        return not copy.acting or copy.age in self._limits(c)

    def _limits(self, c: int) -> tuple[int, ...]:
        """Returns the ages at which the episode of a copy is truncated."""
        rules = self._episodes
        is_first = rules.first_steps and self._copies[c].episodes == 1
        return (rules.max_steps, rules.first_steps[c]) if is_first else (rules.max_steps,)

    def _step_env(self, c: int, actions: Sequence[Any]) -> tuple[Mapping[Any, Any], ...]:
        """Steps one environment, stores its infos, and returns the other four dicts."""
        copy, slots = self._copies[c], self._slots
        try:
            result = copy.env.step({agent: actions[slots[agent].agent_index] for agent in copy.acting})
        except ContractError as e:
            raise self._copy_error(c, e) from None
        except BaseException as e:
            raise environment_error(self._where(c), e, c) from e
        try:
            *given, self.infos[c] = read_step(result)
        except ContractError as e:
            raise self._copy_error(c, e) from None
        if copy.episodes <= _CHECKED_EPISODES:
            for what, part in zip(("observations", "rewards", "terminations", "truncations"), given, strict=True):
                self._check_names(c, part, what)
        return tuple(given)

    def _read_state(self, c: int) -> Float32Array:
        """Returns the global state of one copy, checked."""
        try:
            state = _flat_state(self._copies[c].env.state())
        except ContractError as e:
            raise self._copy_error(c, e) from None
        except BaseException as e:
            raise environment_error(self._where(c), e, c) from e
        if len(state) != self.spec.state_dim:
            raise self._copy_error(c, f"state() returned {len(state)} numbers, not {self.spec.state_dim} as before")
        if not np.isfinite(state).all():
            i = int(np.flatnonzero(~np.isfinite(state))[0])
            raise self._copy_error(c, f"state() returned {state[i]} at index {i}")
        return state

    def _update_agents(self, c: int, ended: set[Any]) -> list[Any]:
        """Reads the agents that act next, checks them against those that acted, and returns the agents that joined."""
        copy = self._copies[c]
        try:
            agents = copy.env.agents
        except BaseException as e:
            raise environment_error(self._where(c), e, c) from e
        if not ended and type(agents) is list and agents == copy.acting:
            return []
        before = set(copy.acting)
        # The episode is over once all agents have ended, even if the environment does not empty its list of agents.
        now: list[Any] = []
        if before != ended:
            try:
                now = list(agents)
            except TypeError:
                raise self._copy_error(c, f"env.agents is {short_repr(agents)}, not a list of names") from None
            self._check_agents(c, now)
        for agent in now:
            if agent in copy.departed or agent in ended:
                raise self._agent_error(c, agent, "has ended in this episode and is among the acting agents again")
        for agent in before - ended - set(now):
            raise self._agent_error(c, agent, "vanished without a termination or truncation")
        copy.departed |= ended
        copy.acting = now
        return [agent for agent in now if agent not in before]

    def _write_observation(
        self, c: int, agent: Any, seen: Mapping[Any, Any], infos: Mapping[Any, Any], row: Float32Array
    ) -> None:
        """Writes one agent's observation and action mask into a row of joint observations."""
        slot = self._slots[agent]
        if agent not in seen:
            raise self._agent_error(c, agent, "was given no observation")
        value = seen[agent]
        if self._copies[c].episodes <= _CHECKED_EPISODES:
            self._check_observation(c, agent, value)
        try:
            row[slot.obs] = slot.codec.encode(value)
        except Exception as e:  # noqa: BLE001  (numpy, gymnasium or the user's array)
            space = slot.codec.observed
            wrong = (space and space_mismatch(space, value)) or f"{short_repr(value)}: {type(e).__name__}: {e}"
            raise self._agent_error(c, agent, f"was given as observation {wrong}") from None
        if slot.codec.read_mask is not None:
            try:
                row[slot.mask] = slot.codec.read_mask(value, infos.get(agent))
            except ValueError as e:
                raise self._agent_error(c, agent, e) from None
        elif self._copies[c].episodes <= _CHECKED_EPISODES and gives_mask(infos, agent):
            self._warn_of_late_mask(agent)

    def _check_observation(self, c: int, agent: Any, value: Any) -> None:
        space = self._slots[agent].codec.observed
        if space is None:
            return
        if wrong := space_mismatch(space, value):
            raise self._agent_error(c, agent, f"was given as observation {wrong}")
        if is_outside(space, value):
            _warn_once(self.name, f"observations of agent {agent_text(agent)} leave the bounds of its space {space}")

    def _check_agents(self, c: int, agents: Sequence[Any]) -> None:
        for agent in agents:
            try:
                known = agent in self._slots
            except TypeError:
                known = False
            if not known:
                raise self._agent_error(c, agent, "is not among the environment's possible_agents")
        if len(set(agents)) != len(agents):
            twice = next(agent for agent in agents if agents.count(agent) > 1)
            raise self._agent_error(c, twice, "is twice in env.agents")

    def _check_names(self, c: int, given: Mapping[Any, Any], what: str) -> None:
        for agent in given:
            if agent not in self._slots:
                raise self._agent_error(c, agent, f"has {what} and is not among the environment's possible_agents")

    def _check_spaces(self, c: int) -> None:
        """Raises WorldError if an agent's spaces differ from those that the environment had when it was made."""
        env = self._copies[c].env
        for agent, slot in self._slots.items():
            try:
                now = env.observation_space(agent), env.action_space(agent)
            except BaseException as e:
                raise environment_error(
                    f"{self.name}: the spaces of agent {agent_text(agent)} in {copy_text(c, self.copies)}", e, c
                ) from e
            before = slot.codec.observed, slot.codec.acted
            for what, space, was in zip(("observes", "acts in"), now, before, strict=True):
                if space is not was and was is not None and space != was:
                    raise self._agent_error(c, agent, f"{what} {space}, but {what} {was} when it was made")

    def _warn_of_late_mask(self, agent: Any) -> None:
        if can_be_masked(self.spec.agents[self._slots[agent].agent_index].parts):
            _warn_once(self.name, _LATE_MASK.format(agent_text(agent)))

    def _check_finite(self, rows: Float32Array) -> None:
        """Raises WorldError for a NaN or an infinity in joint observations `[copies, sum obs]`."""
        if np.isfinite(rows).all():
            return
        c, column = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        i = next(i for i, agent in enumerate(self.spec.agents) if column < agent.obs_slice.stop)
        raise self._agent_error(c, list(self._index)[i], f"was given {rows[c, column]} as observation")

    def _agent_error(self, c: int, agent: Any, what: object) -> WorldError:
        return self._copy_error(c, f"agent {agent_text(agent)} {what}")

    def _copy_error(self, c: int, what: object) -> WorldError:
        return WorldError(f"{self._where(c)}: {what}", c)

    def _where(self, c: int) -> str:
        age = self._copies[c].age
        which = copy_text(c, self.copies)
        return f"{self.name}: step {age} of {which}" if age else f"{self.name}: reset of {which}"


def _flat_state(value: Any) -> Float32Array:
    """Returns the value of `state()` as a vector; ContractError for anything but numbers."""
    try:
        with np.errstate(over="ignore"):
            state = np.asarray(value, np.float32).reshape(-1)
    except (TypeError, ValueError, OverflowError):
        raise ContractError(f"state() returned {short_repr(value)}, not a vector of numbers") from None
    if not 0 < len(state) <= MAX_JOINT_NUMBERS:
        raise ContractError(f"state() returned {len(state)} numbers; 1 to {MAX_JOINT_NUMBERS} are allowed")
    return state


def _slot_of(index: int, spec: AgentSpec, codec: Codec) -> _AgentSlot:
    seen = spec.obs_slice
    mask = slice(seen.stop - spec.mask_dim, seen.stop)
    return _AgentSlot(index, slice(seen.start, mask.start), mask, spec.action_slice, codec)


@cache
def _warn_once(name: str, text: str) -> None:
    """Logs a warning about a world, once a process."""
    _log.warning("%s: %s", name, text)
