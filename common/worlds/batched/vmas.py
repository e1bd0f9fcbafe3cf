"""VMAS' scenarios, `vmas:balance`: all copies are the batch of one VMAS environment (Bettini et al. 2022, 2207.03530).

    actions [copies, sum action] -> a tensor for each agent -> VMAS -> one tensor of observations -> numpy

VMAS computes in torch. torch is imported when a `vmas:` world is made, in the processes of such runs alone.

An episode ends truly where VMAS terminates it, and is truncated after `max_steps` steps. VMAS resets one copy at a time
(`reset_at`), or all of them at once when all episodes end together.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError
from common.run.validation_errors import suggest
from common.spec import AgentSpec, AgentsSpec, Box, Categorical, Part, joint_spec
from common.worlds.adapters.construction import team_of
from common.worlds.families import Constructor
from common.worlds.families.imports import import_path
from common.worlds.world import BoolArray, Float32Array, Step

PREFIX = "vmas"
MAX_STEPS = 100
"""Default length of an episode, as in BenchMARL; VMAS itself sets no limit."""
_UNUSED = "passed but not used by the scenario"


def find_constructor(name: str, path: str) -> Constructor:
    """Returns what makes the copies of a scenario; ConfigError for an unknown one, or without VMAS."""
    known = _scenarios(name)
    if path not in known:
        raise ConfigError(f"{name}: VMAS has no scenario {path!r}; {suggest(path, known)}")
    return partial(VmasWorld, name, path)


def names() -> Sequence[str]:
    """Returns the scenarios of the installed VMAS; ConfigError if it is not installed."""
    return _scenarios(PREFIX)


def install_command(path: str) -> str:  # noqa: ARG001  (VMAS itself is all that its scenarios need)
    """Returns an empty text: no scenario needs another package."""
    return ""


class VmasWorld:
    """The copies of one scenario, as the batch of one VMAS environment.

    Example: make_world("vmas:balance", copies=256, seed=0, n_agents=4)
    """

    metadata: Mapping[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        name: str,
        scenario: str,
        copies: int,
        seed: int,
        *,
        max_steps: int | None = MAX_STEPS,
        continuous_actions: bool = True,
        multidiscrete_actions: bool = False,
        device: str = "cpu",
        **options: Any,
    ) -> None:
        """Takes VMAS' own options, and those of the scenario.

        max_steps: an episode that is still running after this number of steps is truncated; 0 or None sets no limit.
        Raises ConfigError for an option that the scenario does not have.
        """
        self._torch: Any = import_module("torch")
        vmas: Any = import_module("vmas")
        self.copies = copies
        # All VMAS environments of a process share one generator: each world swaps its own state in.
        self._shared_randomness: list[Any] = vmas.simulator.environment.Environment.vmas_random_state
        self._randomness = list(self._shared_randomness)
        with self._isolated(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._env = vmas.make_env(
                scenario=scenario,
                num_envs=copies,
                device=device,
                continuous_actions=continuous_actions,
                multidiscrete_actions=multidiscrete_actions,
                max_steps=max_steps or None,
                seed=seed,
                terminated_truncated=True,
                **options,
            )
            observations = self._env.get_from_scenario(True, False, False, False)
        for warning in caught:
            if _UNUSED in str(warning.message):
                raise ConfigError(f"{name}: the scenario does not use an option. VMAS: {warning.message}")
        self.spec = _spec(self._env, observations[0])
        self._columns = [(agent.action_slice, _choices(agent)) for agent in self.spec.agents]
        self._low, self._high = _bounds(self.spec)
        self._ones = np.ones((copies, len(self.spec.agents)), np.float32)

    def reset(self, seeds: Sequence[int] | None = None) -> Float32Array:
        """Starts a new episode in every copy; copy c with the generator seeded by `seeds[c]`."""
        with self._isolated():
            self._env.reset(return_observations=False)
            for copy, seed in enumerate(seeds or ()):
                self._env.seed(seed)
                self._env.reset_at(copy, return_observations=False)
            if seeds:
                self._env.seed(seeds[0])  # for what later steps and resets draw
            return self._observe()

    def reset_copies(self, copies: NDArray[np.intp]) -> Float32Array:
        """Starts new episodes in some copies and returns their first observations `[len(copies), sum obs]`."""
        with self._isolated():
            self._reset(copies)
            return self._observe()[copies]

    def step(self, actions: Float32Array) -> Step:
        """Steps every copy, and resets the copies whose episode ended."""
        np.clip(actions, self._low, self._high, out=actions)
        with self._isolated():
            obs, rewards, terminated, truncated, _ = self._env.step(self._as_tensors(actions))
            next_obs = self._joined(obs)
            over: BoolArray = (terminated | truncated).cpu().numpy()
            reward: Float32Array = self._torch.stack(rewards, dim=1).cpu().numpy()
            if over.any():
                self._reset(np.flatnonzero(over))
                obs = np.where(over[:, None], self._observe(), next_obs)
            else:
                obs = next_obs
        ended = terminated.cpu().numpy()
        discount = np.where(ended[:, None], np.float32(0.0), self._ones) if over.any() else self._ones
        return Step(obs, reward, discount, self._ones, next_obs, over)

    def render(self) -> NDArray[np.uint8]:
        """Returns the picture of the first copy `[height, width, 3]`."""
        with self._isolated():
            return np.asarray(self._env.render(mode="rgb_array", env_index=0), np.uint8)

    @contextmanager
    def _isolated(self) -> Iterator[None]:
        """Lets VMAS draw from this world's generator, and compute in one thread.

        VMAS' operations are small: on a busy machine a second thread made steps of 32 copies ten times as slow.
        """
        shared, others = self._shared_randomness, list(self._shared_randomness)
        shared[:] = self._randomness
        threads = self._torch.get_num_threads()
        self._torch.set_num_threads(1)
        try:
            yield
        finally:
            self._torch.set_num_threads(threads)
            self._randomness = list(shared)
            shared[:] = others

    def _reset(self, copies: NDArray[np.intp]) -> None:
        if len(copies) == self.copies:
            self._env.reset(return_observations=False)
            return
        for copy in copies.tolist():
            self._env.reset_at(copy, return_observations=False)

    def _observe(self) -> Float32Array:
        return self._joined(self._env.get_from_scenario(True, False, False, False)[0])

    def _joined(self, observations: Sequence[Any]) -> Float32Array:
        leaves = [leaf.reshape(self.copies, -1) for obs in observations for leaf in _leaves(obs)]
        joined: Float32Array = self._torch.cat(leaves, dim=1).to(self._torch.float32).cpu().numpy()
        return joined

    def _as_tensors(self, actions: Float32Array) -> list[Any]:
        """Returns each agent's actions `[copies, numbers]` as VMAS takes them."""
        rows = self._torch.from_numpy(actions)
        tensors = []
        for action_slice, choices in self._columns:
            columns = rows[:, action_slice]
            if choices:
                chosen = [columns[:, part].argmax(dim=1, keepdim=True) for part in choices]
                columns = self._torch.cat(chosen, dim=1)
            tensors.append(columns)
        return tensors


def _scenarios(name: str) -> list[str]:
    vmas = import_path(name, "vmas", "pip install 'shoal[vmas]'")
    return sorted({*vmas.scenarios, *vmas.mpe_scenarios, *vmas.debug_scenarios})


def _spec(env: Any, observations: Sequence[Any]) -> AgentsSpec:
    return joint_spec(
        [
            (agent.name, team_of(agent.name), sum(leaf[0].numel() for leaf in _leaves(obs)), _parts(space))
            for agent, obs, space in zip(env.agents, observations, env.action_space, strict=True)
        ]
    )


def _leaves(obs: Any) -> Iterator[Any]:
    """Yields the tensors of an agent's observation, which is a tensor or a dict."""
    if isinstance(obs, Mapping):
        for part in obs.values():
            yield from _leaves(part)
    else:
        yield obs


def _parts(space: Any) -> tuple[Part, ...]:
    """Returns the parts of a space of the package gym, which Gymnasium does not recognise."""
    if hasattr(space, "nvec"):
        return tuple(Categorical(int(n)) for n in np.ravel(space.nvec))
    if hasattr(space, "n"):
        return (Categorical(int(space.n)),)
    return (Box(tuple(map(float, space.low)), tuple(map(float, space.high))),)


def _choices(agent: AgentSpec) -> tuple[slice, ...]:
    """Returns the columns of each choice within the agent's action; empty for a continuous action."""
    return agent.part_slices if isinstance(agent.parts[0], Categorical) else ()


def _bounds(spec: AgentsSpec) -> tuple[Float32Array, Float32Array]:
    """Returns the bounds of each number of the joint action; those of choices do not cut anything off."""
    low, high = np.full(spec.action_dim, -np.inf, np.float32), np.full(spec.action_dim, np.inf, np.float32)
    for agent in spec.agents:
        for part, columns in zip(agent.parts, agent.part_slices, strict=True):
            if isinstance(part, Box):
                low[agent.action_slice][columns], high[agent.action_slice][columns] = part.low, part.high
    return low, high
