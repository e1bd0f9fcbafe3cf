"""A Gymnasium environment as a PettingZoo ParallelEnv: one agent, or one for each entry of Tuple or list spaces.

    env = GymnasiumParallelEnv("gymnasium:Pendulum-v1", gymnasium.make("Pendulum-v1"))
    env.possible_agents == ["agent_0"]

| spaces of the environment                         | agents                                              |
|---------------------------------------------------|-----------------------------------------------------|
| one action space that is no Tuple                 | `agent_0`                                           |
| a Tuple or list of n action and n observation spaces | `agent_0` to `agent_{n-1}`, agent i has entry i   |

A reward that is one number is the reward of every agent; a list has one entry for each agent. The same holds for
`terminated` and `truncated`. The info is every agent's, but a list `info["action_mask"]` has one entry for each agent.
An agent that ended earlier than others acts no more: the environment receives its idle
action, which is 0 or the closest allowed value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from common.errors import ConfigError
from common.worlds.adapters.contract import ContractError, describe_result, short_repr

_RESET = "(observation, info)"
_STEP = "(observation, reward, terminated, truncated, info)"
_OLD = "an environment of Gym before 0.26: return"


class GymnasiumParallelEnv:
    """A ParallelEnv around a Gymnasium environment; its methods have PettingZoo's contract."""

    def __init__(self, name: str, env: Any) -> None:
        """Reads the agents from the spaces; ConfigError if observations and actions have other numbers of agents."""
        self.env = env
        self.metadata = getattr(env, "metadata", None) or {}
        observed, acted = env.observation_space, env.action_space
        self._is_team = _entries(acted) is not None
        if self._is_team:
            observed_entries, acted_entries = _entries(observed), _entries(acted)
            if observed_entries is None or len(observed_entries) != len(acted_entries or ()):
                raise ConfigError(
                    f"{name}: the action space has {len(acted_entries or ())} entries, the observation space"
                    f" {'is ' + type(observed).__name__ if observed_entries is None else len(observed_entries)}. Shoal"
                    " takes one entry of both for each agent. Wrap the environment in a PettingZoo ParallelEnv."
                )
        else:
            observed_entries, acted_entries = [observed], [acted]
        self.possible_agents = [f"agent_{i}" for i in range(len(acted_entries or ()))]
        self.agents: list[str] = []
        self._observed = dict(zip(self.possible_agents, observed_entries, strict=True))
        self._acted = dict(zip(self.possible_agents, acted_entries or (), strict=True))
        self._idle: dict[str, Any] = {}

    @property
    def unwrapped(self) -> Any:
        """The environment without Gymnasium's wrappers."""
        return getattr(self.env, "unwrapped", self.env)

    @property
    def render_mode(self) -> str | None:
        """What `render` returns."""
        mode: str | None = getattr(self.env, "render_mode", None)
        return mode

    def observation_space(self, agent: str) -> Any:
        """Returns an agent's entry of the observation space."""
        return self._observed[agent]

    def action_space(self, agent: str) -> Any:
        """Returns an agent's entry of the action space."""
        return self._acted[agent]

    def reset(self, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Starts an episode in which all agents act."""
        result = self.env.reset(seed=seed, options=options)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise ContractError(f"reset returned {describe_result(result)}, not {_RESET}; return {_RESET} from reset")
        observation, info = result
        self.agents = list(self.possible_agents)
        return self._observations_by_agent(observation), self._infos_by_agent(info)

    def step(self, actions: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """Steps the environment by the actions of the acting agents, and returns PettingZoo's five dicts."""
        acted = list(self.agents)
        result = self.env.step(self._env_action(actions))
        if not isinstance(result, tuple | list) or len(result) != 5:
            old = f"; {_OLD} {_STEP} from step" if isinstance(result, tuple | list) and len(result) == 4 else ""
            raise ContractError(f"step returned {describe_result(result)}, not {_STEP}{old}")
        observation, reward, terminated, truncated, info = result
        observations, infos = self._observations_by_agent(observation), self._infos_by_agent(info)
        rewards = self._values_by_agent(reward, "reward")
        terminations = self._values_by_agent(terminated, "terminated")
        truncations = self._values_by_agent(truncated, "truncated")
        self.agents = [agent for agent in acted if not (_is_set(terminations[agent]) or _is_set(truncations[agent]))]
        given: tuple[dict[str, Any], ...] = observations, rewards, terminations, truncations, infos
        if len(acted) == len(self.possible_agents):
            return given
        return tuple({agent: part[agent] for agent in acted} for part in given)

    def render(self) -> Any:
        """Returns the picture of the environment."""
        return self.env.render()

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def _env_action(self, actions: Mapping[str, Any]) -> Any:
        if not self._is_team:
            return actions[self.possible_agents[0]]
        joint = [actions[agent] if agent in actions else self._idle_action(agent) for agent in self.possible_agents]
        return joint if isinstance(self.env.action_space, list) else tuple(joint)

    def _idle_action(self, agent: str) -> Any:
        if agent not in self._idle:
            self._idle[agent] = idle_action(self._acted[agent])
        return self._idle[agent]

    def _observations_by_agent(self, observation: Any) -> dict[str, Any]:
        if not self._is_team:
            return {self.possible_agents[0]: observation}
        if not isinstance(observation, list | tuple | np.ndarray) or len(observation) != len(self.possible_agents):
            raise ContractError(
                f"the observation is {short_repr(observation)}, not {len(self.possible_agents)} entries, one per agent"
            )
        return dict(zip(self.possible_agents, observation, strict=True))

    def _values_by_agent(self, value: Any, what: str) -> dict[str, Any]:
        """Returns an entry for each agent; a single value is every agent's."""
        if not isinstance(value, list | tuple | np.ndarray) or np.size(value) == 1:
            return dict.fromkeys(self.possible_agents, value)
        if len(value) != len(self.possible_agents):
            raise ContractError(
                f"{what} is {short_repr(value)}: {len(value)} entries for {len(self.possible_agents)} agents"
            )
        return dict(zip(self.possible_agents, value, strict=True))

    def _infos_by_agent(self, info: Any) -> dict[str, Any]:
        if isinstance(info, list | tuple) and len(info) == len(self.possible_agents):
            return dict(zip(self.possible_agents, info, strict=True))
        shared = info if isinstance(info, Mapping) else {}
        masks = shared.get("action_mask")
        if self._is_team and isinstance(masks, list | tuple | np.ndarray) and len(masks) == len(self.possible_agents):
            return {
                agent: {**shared, "action_mask": mask} for agent, mask in zip(self.possible_agents, masks, strict=True)
            }
        return dict.fromkeys(self.possible_agents, shared)


def idle_action(space: spaces.Space[Any]) -> Any:
    """Returns the action that does least: 0, the first choice, or the closest value that the space allows."""
    if isinstance(space, spaces.Box):
        return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
    if isinstance(space, spaces.Discrete):
        return int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return np.array(space.start, space.dtype)
    return np.zeros(space.shape or (), space.dtype)


def _is_set(flag: Any) -> bool:
    """Returns whether a flag of any type is set; the two constants need no call of numpy."""
    return flag is True or (flag is not False and bool(np.any(flag)))


def _entries(space: Any) -> Sequence[Any] | None:
    """Returns the entries of a Tuple or list of spaces; None for any other space."""
    if isinstance(space, spaces.Tuple):
        return list(space.spaces)
    return list(space) if isinstance(space, list | tuple) else None
