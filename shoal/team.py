"""A trained team in Python: `shoal.load` reads a team, `Team.act` returns its actions. Needs numpy only, not torch.

team = shoal.load("runs/spread")
world = shoal.make_world("simple_spread", copies=64, seed=0)
step = world.step(team.act(world.reset()))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError
from common.history import HistoryStack, built_in_spaces, current_leaves, history_of, unstacked_spec
from common.policy.episodes import EpisodeMemory
from common.policy.file import PolicyFile, load_policy
from common.policy.heads import Floats
from common.policy.masks import flat_mask
from common.policy.network import Policy
from common.run.directory import RunDirectory
from common.run.run import Run
from common.run.spaces import MASK_KEY, AgentSpaces, Entry
from common.spec import AgentSpec, AgentsSpec, PlayerSpec

Decide = Callable[[Floats], Floats]
"""Returns joint actions `[copies, sum action]` for joint observations `[copies, sum obs]`."""


class Team:
    """A team of agents with decentralised policies: an agent's action depends on its own observation only.

    Example:
        >>> team = load("runs/spread")
        >>> actions = team.act({"agent_0": obs0, "agent_1": obs1, "agent_2": obs2})
    """

    def __init__(self, stored: PolicyFile) -> None:
        """Creates a team from stored policies; `shoal.load` reads them."""
        self._stored = stored
        run = stored.run
        self._policy = Policy(run.players, run.spec.network, stored.flat)
        spaces = run.spaces or built_in_spaces(run.joint, self.history)
        self._spaces: dict[str, AgentSpaces] = {one.agent: one for one in spaces}
        alone = unstacked_spec(run.joint, self.history)
        self._leaves = {
            agent.name: current_leaves(self._spaces[agent.name], agent, self.history)
            for agent in alone.agents
            if agent.name in self._spaces
        }
        """Leaves of each agent's observation without history."""
        self._memory = _Memory(alone, self.history)
        self._policy_memory = EpisodeMemory(self._policy.memory_dim)
        self._rng = np.random.default_rng()

    @property
    def scenario(self) -> str:
        """Name of the world in which the team was trained."""
        return self._stored.run.spec.scenario

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents, in the order of the joint vectors."""
        return tuple(agent.name for agent in self.spec.agents)

    @property
    def spec(self) -> AgentsSpec:
        """Observation and action sizes of each agent, and the agent's columns in the joint vectors."""
        return self._stored.run.joint

    @property
    def history(self) -> int:
        """Number of last observations and actions that each agent observes too (`world.history` of the run)."""
        return history_of(self._stored.run.spec.world)

    @property
    def run(self) -> Run:
        """The run that trained the team, with its settings in `run.spec`."""
        return self._stored.run

    @property
    def updates(self) -> int:
        """Number of updates that trained these policies."""
        return self._stored.updates

    @property
    def weights_hash(self) -> str:
        """Digest of the weights: equal for equal bits."""
        return self._stored.digest

    @property
    def sampled_choices(self) -> bool:
        """Whether Discrete actions were drawn from the policy's softmax in training, as `act(obs, sample=True)` does.

        False for a team without Discrete actions, which has nothing to draw.
        """
        return self.run.samples_choices

    @overload
    def act(
        self, obs: Mapping[str, Any], *, sample: bool = False, rng: np.random.Generator | None = None
    ) -> dict[str, Any]: ...

    @overload
    def act(
        self,
        obs: Sequence[Any] | npt.NDArray[Any],
        *,
        sample: bool = False,
        rng: np.random.Generator | None = None,
    ) -> Floats: ...

    def act(
        self,
        obs: Mapping[str, Any] | Sequence[Any] | npt.NDArray[Any],
        *,
        sample: bool = False,
        rng: np.random.Generator | None = None,
    ) -> dict[str, Any] | Floats:
        """Returns the actions of the agents without exploration, for one step of one episode or of many.

        obs as a mapping: observations by agent, as a PettingZoo environment returns them, or flat vectors `[obs_dim]`.
        Returns actions by agent, as the environment takes them: an array for Box, a number for Discrete, a tuple for an
        agent with several choices. Agents may be missing, except for single agents of a side that learnt by `joint`.
        obs as an array: joint observations `[copies, sum obs]` or `[sum obs]`, as a world of `make_world` returns them.
        Returns joint actions `[copies, sum action]` or `[sum action]`, as `World.step` takes them.
        A team that was trained with stacked history (`history` > 0) takes the observations of its environment and
        remembers the last ones itself: call `reset` when an episode starts. It also takes stacked observations, as a
        world with the option `history` returns them, and then remembers nothing. A recurrent team
        (`network.recurrent`) remembers its episodes in any case: call `reset` when an episode starts.
        sample: draw Discrete actions from the policy's softmax, as in the training of a team with `sampled_choices`,
        instead of taking the most probable one. Box actions are drawn too if the team learnt by masac, isac or hasac,
        from the policy's Gaussian, or with `network.head=soft`, with Gumbel noise; those of other teams are the same
        either way. rng: the source of the draws; None takes a generator of the team's own, which each `load` seeds
        differently.
        Raises ConfigError for an unknown agent, for a wrong shape, and for another number of copies without `reset`.
        """
        decide = self._sampler(rng) if sample else self._decide
        if isinstance(obs, Mapping):
            return self._act_by_agent(obs, decide)
        joint = np.asarray(obs, np.float32)
        if self.history and joint.ndim in (1, 2) and joint.shape[-1] == self._memory.spec.obs_dim:
            actions = self._act_from_memory(np.atleast_2d(joint), decide)
            return actions[0] if joint.ndim == 1 else actions
        if joint.ndim not in (1, 2) or joint.shape[-1] != self.spec.obs_dim:
            raise ConfigError(
                f"The joint observations have the shape {list(joint.shape)}. Pass [copies, {self.spec.obs_dim}] or "
                f"[{self.spec.obs_dim}]: {self._sizes}{self._history_text}."
            )
        actions = decide(np.atleast_2d(joint))
        return actions[0] if joint.ndim == 1 else actions

    def reset(self, copies: Sequence[int] | Sequence[bool] | npt.NDArray[Any] | None = None) -> None:
        """Starts episodes: the agents forget earlier steps. Without history or recurrent policies it has no effect.

        copies: indices of the copies whose episodes start, or one boolean for each copy, such as `step.episode_over`;
        None starts new episodes in all copies, whose number may then change. Raises ConfigError for an unknown copy.

        Example:
            >>> team.reset()
            >>> actions = team.act(obs)  # [64, sum obs]: the first observations of 64 episodes
            >>> step = world.step(actions)
            >>> team.reset(step.episode_over)
        """
        self._memory.reset(copies)
        self._policy_memory.reset(copies)

    def __repr__(self) -> str:
        """Returns scenario, agents and number of updates."""
        return f"Team({self.scenario}: {', '.join(self.agents)}; {self.updates:,} updates)"

    @property
    def _sizes(self) -> str:
        return ", ".join(f"{agent.name} {agent.obs_dim}" for agent in self.spec.agents)

    def _decide(self, obs: Floats) -> Floats:
        return self._policy.act(obs, self._policy_memory.rows(len(obs)))

    def _sampler(self, rng: np.random.Generator | None) -> Decide:
        """Returns a function that draws actions with random numbers of `rng`, or of the team's generator."""
        source = rng or self._rng

        def decide(obs: Floats) -> Floats:
            return self._policy.sample(
                obs,
                gumbel=lambda size: source.gumbel(size=(len(obs), size)),
                normal=lambda size: source.standard_normal((len(obs), size)),
                memory=self._policy_memory.rows(len(obs)),
            )

        return decide

    def _act_by_agent(self, obs: Mapping[str, Any], decide: Decide) -> dict[str, Any]:
        if unknown := [name for name in obs if name not in self.agents]:
            raise ConfigError(f"{unknown[0]!r} is not an agent of this team. Agents: {', '.join(self.agents)}.")
        self._refuse_incomplete_sides(obs)
        present = [agent for agent in self.spec.agents if agent.name in obs]
        if self.history and not self._are_stacked(obs):
            current, agents_present = self._current(obs)
            actions = self._act_from_memory(current, decide, agents_present)[0]
        else:
            joint = np.zeros((1, self.spec.obs_dim), np.float32)
            for agent in present:
                joint[0, agent.obs_slice] = _flat(obs[agent.name], agent, self._spaces[agent.name].observation)
            actions = decide(joint)[0]
        return {
            agent.name: _environment_action(actions[agent.action_slice], self._spaces[agent.name].action)
            for agent in present
        }

    @property
    def _history_text(self) -> str:
        if not self.history:
            return ""
        current = self._memory.spec
        sizes = ", ".join(f"{agent.name} {agent.obs_dim}" for agent in current.agents)
        return f"; or [copies, {current.obs_dim}] or [{current.obs_dim}] without history: {sizes}"

    def _act_from_memory(self, obs: Floats, decide: Decide, present: npt.NDArray[np.bool_] | None = None) -> Floats:
        """Returns joint actions `[copies, sum action]`, and remembers observations and actions.

        obs: joint observations without history `[copies, sum obs]`. decide: the policy. present: `[copies, agents]`;
        None means all agents.
        """
        if present is None:
            present = np.ones((len(obs), len(self.spec.agents)), np.bool_)
        actions = decide(self._memory.stack(obs, present))
        self._memory.actions = actions.copy()
        return actions

    def _are_stacked(self, obs: Mapping[str, Any]) -> bool:
        """Returns whether the observations by agent contain their history; ConfigError if only some of them do."""
        sizes = {agent.name: agent.obs_dim for agent in self.spec.agents}
        stacked = [
            name
            for name, one in obs.items()
            if not isinstance(one, Mapping | tuple) and np.shape(one) == (sizes[name],)
        ]
        if stacked and len(stacked) < len(obs):
            other = next(name for name in obs if name not in stacked)
            raise ConfigError(
                f"The observation of {stacked[0]} contains its history, that of {other} does not. Pass either all "
                "observations with their history or none."
            )
        return bool(stacked)

    def _current(self, obs: Mapping[str, Any]) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Returns the joint observation without history `[1, sum obs]`, and who is present `[1, agents]`."""
        agents = self._memory.spec.agents
        joint = np.zeros((1, self._memory.spec.obs_dim), np.float32)
        for agent in agents:
            if agent.name in obs:
                joint[0, agent.obs_slice] = _flat(obs[agent.name], agent, self._leaves[agent.name])
        return joint, np.array([[agent.name in obs for agent in agents]])

    def _refuse_incomplete_sides(self, obs: Mapping[str, Any]) -> None:
        for player in self._stored.run.players.agents:
            members = [agent.name for agent in self.spec.agents if _is_of(agent, player)]
            missing = [name for name in members if name not in obs]
            if missing and len(missing) < len(members):
                raise ConfigError(
                    f"The observation of {missing[0]} is missing. Pass the observations of {', '.join(members)} "
                    "together: these agents have one policy (algorithm joint)."
                )


class _Memory:
    """What a team with stacked history remembers of the episodes that it plays."""

    def __init__(self, spec: AgentsSpec, history: int) -> None:
        self.spec = spec
        """The agents without history."""
        self.actions: Floats = np.zeros((0, spec.action_dim), np.float32)
        """[copies, sum action]: the team's last actions."""
        self._history = history
        self._stack: HistoryStack | None = None
        self._present = np.zeros((0, len(spec.agents)), np.bool_)
        self._starting = np.zeros(0, np.bool_)

    def reset(self, copies: Sequence[int] | Sequence[bool] | npt.NDArray[Any] | None = None) -> None:
        """Starts episodes in all copies, or in those named by their indices or by booleans."""
        if copies is None or self._stack is None:
            self._stack = None
            return
        try:
            self._starting[np.asarray(copies) if len(copies) else []] = True
        except IndexError as e:
            raise ConfigError(
                f"reset({copies!r}): the team plays {len(self._starting)} copies ({e}). Pass their indices, one "
                "boolean for each, or nothing to start new episodes in all copies."
            ) from e

    def stack(self, obs: Floats, present: npt.NDArray[np.bool_]) -> Floats:
        """Returns the stacked observations; present: who acts now, `[copies, agents]`."""
        if self._stack is None:
            self._stack = HistoryStack(self.spec, self._history, len(obs))
            rows = self._stack.start(obs)
        elif len(obs) != len(self._stack.rows):
            raise ConfigError(
                f"The team remembers {len(self._stack.rows)} copies and is given observations of {len(obs)}. Call "
                "team.reset() before the first step of new episodes."
            )
        else:
            rows = self._stack.advance(obs, self.actions, self._present)
        forget = self._starting[:, None] | ~present if len(self._starting) == len(obs) else ~present
        if forget.any():
            rows = self._stack.replace(obs, forget)
        self._present, self._starting = present, np.zeros(len(obs), np.bool_)
        return rows


def load(run: str | Path) -> Team:
    """Reads a trained team within half a second and without torch.

    run: the directory of a run or of a milestone, or a `policy.safetensors`. Raises ConfigError for another path, and
    for a run whose learner has not stored policies yet.

    Example:
        >>> team = load("runs/spread")
        >>> team.agents
        ('agent_0', 'agent_1', 'agent_2')
    """
    path = Path(run)
    if not path.exists():
        raise ConfigError(f"{path} does not exist. Pass a run's directory or a policy.safetensors.")
    if not path.is_dir():
        return Team(load_policy(path))
    directory = RunDirectory(path)
    if not directory.policy_file.exists():
        run_id = directory.run.id  # raises ConfigError if this is not a run's directory
        raise ConfigError(
            f"{path} contains no policies of its run {run_id} yet. Wait for the learner's first checkpoint."
        )
    return Team(load_policy(directory.policy_file))


def _is_of(agent: AgentSpec, player: PlayerSpec) -> bool:
    columns = player.action_slice
    return bool(columns.start <= agent.action_start < columns.stop)


def _flat(obs: Any, agent: AgentSpec, entries: tuple[Entry, ...]) -> Floats:
    """Returns an agent's observation as the vector `[obs_dim]` that its policy reads."""
    shape = np.shape(obs) if not isinstance(obs, Mapping | tuple) else None
    if shape == (agent.obs_dim,):
        return np.asarray(obs, np.float32)
    flat = np.zeros(agent.obs_dim, np.float32)
    try:
        for entry in entries:
            value = obs
            for key in entry.key:
                value = value[key]
            start, stop = entry.columns
            if agent.masked and entry.key == MASK_KEY:
                flat[start:stop] = flat_mask(value, agent.parts)
                continue
            flat[start:stop] = np.ravel(value) if entry.encoding == "values" else _one_hot(value, entry, stop - start)
    except (KeyError, IndexError, TypeError, ValueError) as e:
        problem = f"has the shape {list(shape)}" if shape is not None else f"does not fit its space ({e!r})"
        needed = 'a mapping that contains "action_mask"' if agent.masked else "the observation of this agent alone"
        raise ConfigError(
            f"The observation of {agent.name} {problem}. Pass {needed}, or a vector of {agent.obs_dim} numbers."
        ) from e
    return flat


def _one_hot(value: Any, entry: Entry, width: int) -> Floats:
    """Returns choices as the one-hot vector `[width]` that a policy reads."""
    sizes, starts = np.atleast_1d(entry.n), np.atleast_1d(entry.start)
    columns = np.concatenate([[0], np.cumsum(sizes)[:-1]]) + (np.ravel(value) - starts)
    row = np.zeros(width, np.float32)
    row[columns.astype(int)] = 1.0
    return row


def _environment_action(action: Floats, entries: tuple[Entry, ...]) -> Any:
    """Returns an agent's columns of the joint action as the value that its environment takes."""
    values = [_value(action[slice(*entry.columns)], entry) for entry in entries]
    return values[0] if len(values) == 1 and not entries[0].key else tuple(values)


def _value(row: Floats, entry: Entry) -> Any:
    if entry.encoding == "values":
        low, high = (np.asarray(bound, np.float32) for bound in (entry.low, entry.high))
        return np.clip(row, low, high).reshape(entry.shape).astype(entry.dtype)
    if isinstance(entry.n, int):
        assert isinstance(entry.start, int)  # noqa: S101  (for the type checker: `start` has the type of `n`)
        return entry.start + int(row.argmax())
    ends = np.cumsum(entry.n)
    chosen = [int(row[end - n : end].argmax()) for n, end in zip(entry.n, ends, strict=True)]
    return (np.reshape(chosen, entry.shape) + np.reshape(entry.start, entry.shape)).astype(entry.dtype)
