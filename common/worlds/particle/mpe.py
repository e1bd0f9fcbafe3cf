"""The batched MPE world: the physics and one scenario, with episodes that start, end, and restart.

    actions -> Controls -> force, message -> Particles.step -> after_physics
            -> reward, termination -> observation -> new starts of the ended episodes

Internal arrays are float64 with copies on the last axis; actions and observations are float32 with copies on the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.spec import AgentsSpec, joint_spec
from common.state import State, copy_into, generator_state, restore_generator, select_prefix, with_prefix
from common.worlds.particle.actions import Controls, action_parts
from common.worlds.particle.physics import Particles
from common.worlds.particle.scenario import Drawn, Generators, Scenario
from common.worlds.world import (
    DEFAULT_EPISODE_RULES,
    BoolArray,
    EpisodeRules,
    Float32Array,
    Float64Array,
    Step,
    check_actions,
)


class MpeWorld:
    """Copies of one scenario as arrays, each equal to an mpe2 environment bit for bit."""

    def __init__(
        self,
        name: str,
        scenario: Scenario[Any],
        copies: int,
        seed: int | None,
        episodes: EpisodeRules = DEFAULT_EPISODE_RULES,
    ) -> None:
        self.name = name
        self.copies = copies
        self.scenario = scenario
        options = scenario.options
        self.particles = Particles(
            scenario.agents, scenario.landmarks, scenario.utterance, copies, legacy=scenario.legacy
        )
        self.rewards: Float64Array = np.zeros((len(scenario.agents), copies))
        """[agents, copies]: the last step's rewards before the conversion to float32."""
        self._rng = np.random.default_rng(seed)
        self._generators = Generators(self._rng)
        self._controls = Controls(scenario.agents, scenario.utterance, continuous=options.continuous_actions)
        self._force = np.zeros((len(scenario.agents), 2, copies))
        self._age = np.full(copies, -1)
        cycles = scenario.options.max_cycles
        self._max_steps = min(cycles, episodes.max_steps) if episodes.max_steps else cycles
        self._restart_ended = episodes.restart_ended
        self._ended = np.zeros(copies, np.bool_)
        self._ones = np.ones((copies, len(scenario.agents)), np.float32)
        self._ones.flags.writeable = False  # one array serves every step
        self.particles.start_episodes(slice(None), scenario.draw(np.random.default_rng(0), copies))
        self.spec = self._measure_spec()
        self._action_shape = (copies, self.spec.action_dim)

    def reset(self, seeds: Sequence[int] | None = None) -> Float32Array:
        """Starts a new episode in every copy, copy c like mpe2's `reset(seed=seeds[c])`."""
        drawn = self.scenario.draw(self._rng, self.copies) if seeds is None else self._draw_seeded(seeds)
        self.particles.start_episodes(slice(None), drawn)
        self._age[:] = 0
        self._ended[:] = False
        # Draws in the middle of an episode: mpe2 uses a copy of the generator made before the start was drawn.
        midway = seeds if seeds is not None and self.scenario.draws_midway else []
        self._generators.seeded = {copy: np.random.default_rng(int(seed)) for copy, seed in enumerate(midway)}
        return self._observe()

    def step(self, actions: Float32Array) -> Step:
        """Steps every copy; a copy whose episode ended starts its next episode."""
        check_actions(self, actions, self._action_shape, self._age)
        self._force[:] = 0.0
        self._controls.execute(actions, self._force, self.particles.said)
        self.particles.step(self._force)
        self.scenario.after_physics(self.particles, self._generators)
        self.rewards = self.scenario.reward(self.particles)
        self._age += 1
        over = self._age >= self._max_steps
        discount = self._ones
        terminated = self.scenario.terminated(self.particles)
        if terminated is not None:
            terminated &= ~over  # for mpe2 a success in the last step is a truncation
            discount = np.where(terminated[:, None], np.float32(0.0), self._ones)
            over |= terminated
        metrics = self._metrics()
        next_obs = self._observe()
        if not self._restart_ended:
            step = Step(next_obs, _by_copy(self.rewards), discount, self._ones, next_obs, over, metrics)
            return self._without_ended(step)
        obs = self._start_again(over, next_obs) if over.any() else next_obs
        return Step(obs, _by_copy(self.rewards), discount, self._ones, next_obs, over, metrics)

    def state(self) -> State:
        """Returns everything that determines the next steps: bodies, drawn values, ages and generators."""
        seeded = {str(copy): generator_state(rng) for copy, rng in self._generators.seeded.items()}
        state = {**self.particles.state(), "age": self._age.copy(), "rng": generator_state(self._rng)}
        return state | with_prefix("own", seeded)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restores a state and continues exactly from it; KeyError or ValueError for a state of another world."""
        self.particles.restore(state)
        copy_into(self._age, state["age"])
        restore_generator(self._rng, state["rng"])
        self._generators.seeded = {}
        for copy, stored in select_prefix("own", state).items():
            self._generators.seeded[int(copy)] = np.random.default_rng(0)
            restore_generator(self._generators.seeded[int(copy)], stored)

    def messages(self) -> dict[str, slice]:
        """Returns speaker -> slice of the joint action with its message, for messages that another agent observes.

        The actions of eve and bob in simple_crypto are answers that no agent observes, so they are not messages.
        """
        observed = [(agent, part) for agent, part in self._controls.messages if self._is_observed(agent)]
        return {self.spec.agents[agent].name: part for agent, part in observed}

    def close(self) -> None:
        """Does nothing, since the world consists of arrays."""

    def _is_observed(self, agent: int) -> bool:
        """Returns whether any other agent's observation changes with this agent's message."""
        said, before = self.particles.said[agent].copy(), self._observe()
        self.particles.said[agent] = said + 1.0
        changed = (self._observe() != before).any(axis=0)
        self.particles.said[agent] = said
        changed[self.spec.agents[agent].obs_slice] = False
        return bool(changed.any())

    def _draw_seeded(self, seeds: Sequence[int]) -> Drawn:
        if len(seeds) != self.copies:
            raise ValueError(f"{self.name}: {len(seeds)} seeds for {self.copies} copies")
        draws = [self.scenario.draw(np.random.default_rng(int(seed)), 1) for seed in seeds]
        return {key: np.concatenate([drawn[key] for drawn in draws], axis=-1) for key in draws[0]}

    def _start_again(self, over: BoolArray, next_obs: Float32Array) -> Float32Array:
        """Resets the copies whose episode is over and returns the observations for the next actions."""
        ended = np.flatnonzero(over)
        self.particles.start_episodes(ended, self.scenario.draw(self._rng, len(ended)))
        self._age[ended] = 0
        for copy in ended if self._generators.seeded else ():
            self._generators.seeded.pop(int(copy), None)
        obs = next_obs.copy()
        obs[ended] = self._observe()[ended]
        return obs

    def _without_ended(self, step: Step) -> Step:
        """Returns the step with the copies absent whose episode ended in an earlier step."""
        gone = self._ended
        here = np.where(gone[:, None], np.float32(0.0), self._ones)
        over = step.episode_over & ~gone
        self._ended = gone | over
        discount = np.where(gone[:, None], np.float32(1.0), step.discount)
        return step._replace(reward=step.reward * here, discount=discount, present=here, episode_over=over)

    def _observe(self) -> Float32Array:
        """Returns the joint observations, [copies, sum obs]."""
        rows = [
            block.reshape(-1, self.copies)
            for agent in range(len(self.scenario.agents))
            for block in self.scenario.observation(self.particles, agent)
        ]
        return np.ascontiguousarray(np.concatenate(rows, dtype=np.float32).T)

    def _metrics(self) -> dict[str, Float64Array]:
        if not self.scenario.options.benchmark_data:
            return {}
        return {key: np.ascontiguousarray(rows.T) for key, rows in self.scenario.metrics(self.particles).items()}

    def _measure_spec(self) -> AgentsSpec:
        """Returns the agents' spec, with the sizes of the observations that the scenario makes."""
        scenario = self.scenario
        continuous = scenario.options.continuous_actions
        return joint_spec(
            [
                (
                    agent.name,
                    agent.side,
                    sum(block.size // self.copies for block in scenario.observation(self.particles, i)),
                    action_parts(agent, scenario.utterance, continuous=continuous),
                )
                for i, agent in enumerate(scenario.agents)
            ]
        )


def _by_copy(rows: Float64Array) -> Float32Array:
    """Returns [agents, copies] float64 as [copies, agents] float32."""
    return rows.T.astype(np.float32, order="C")
