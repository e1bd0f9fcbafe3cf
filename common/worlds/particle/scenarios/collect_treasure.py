"""`collect_treasure`: collectors pick up treasures and bring them to the deposit of the treasure's type.

The position where a treasure reappears is drawn in the middle of an episode. In mpe2 those draws repeat the draws of
the episode's start; a seeded copy does the same here, and a copy that was reset automatically makes new draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.worlds.particle.geometry import blas_norm, in_order
from common.worlds.particle.physics import Agent, Landmark, Particles
from common.worlds.particle.scenario import Count, Drawn, Generators, ModernOptions, Scenario, ordered_sum
from common.worlds.world import BoolArray, Float64Array

REWARD = 5.0
"""Reward of a pick-up or delivery, and the penalty of a touch."""
BOUND = 0.95
NOTHING = -1
CARRIED_POSITION = -999.0
"""Coordinate of a treasure that is not on the ground."""
LAST = 1e6
"""Distance of such a treasure, so that it is sorted behind all others."""
COLLECTOR_SIZE, DEPOSIT_SIZE, TREASURE_SIZE = 0.05, 0.075, 0.025


class CollectTreasureOptions(ModernOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of collect_treasure."""

    num_collectors: Count = 6
    """Agents that carry treasures."""
    num_deposits: Annotated[int, msgspec.Meta(ge=1, le=6)] = 2
    """Agents that receive treasures, one for each type of treasure."""
    num_treasures: Count = 6
    """Treasures in the world."""


class CollectTreasure(Scenario[CollectTreasureOptions]):
    """Collectors pick up treasures and bring them to the deposit of the treasure's type."""

    options_type = CollectTreasureOptions
    mpe2_module = "collect_treasure_v1"
    reward_meaning = (
        "shared: +5 for each pick-up and each delivery; own: -0.1 distance to the next goal, "
        "-5 for each collector a collector touches"
    )
    draws_midway = True

    def __init__(self, options: CollectTreasureOptions) -> None:
        super().__init__(options)
        self.agents = [
            Agent(f"collector_{i}", side="team", size=COLLECTOR_SIZE, accel=1.5, max_speed=1.0)
            for i in range(options.num_collectors)
        ] + [
            Agent(f"deposit_{i}", side="team", size=DEPOSIT_SIZE, accel=1.5, max_speed=1.0, mass=2.25)
            for i in range(options.num_deposits)
        ]
        self.landmarks = [Landmark(size=TREASURE_SIZE) for _ in range(options.num_treasures)]

    def draw(self, rng: np.random.Generator, copies: int) -> Drawn:
        """Draws agents uniformly from the square [-1, 1], then each treasure's type and position in [-0.95, 0.95]."""
        options = self.options
        pos = [rng.uniform(-1.0, 1.0, (len(self.agents), 2, copies))]
        kinds = []
        for _ in range(options.num_treasures):
            kinds.append(rng.integers(options.num_deposits, size=copies))
            pos.append(rng.uniform(-BOUND, BOUND, (1, 2, copies)))
        return {
            "pos": np.concatenate(pos),
            "kind": np.stack(kinds),
            "alive": np.ones((options.num_treasures, copies), np.bool_),
            "holding": np.full((options.num_collectors, copies), NOTHING),
            "shared": np.zeros(copies),
        }

    def after_physics(self, world: Particles, generators: Generators) -> None:
        """Lets collectors pick up and deliver treasures, lets treasures reappear, and sets the shared reward."""
        picked = self._pick_up(world, generators)
        delivered = self._deliver(world)
        world.drawn["shared"][:] = REWARD * picked + REWARD * delivered
        world.measure()

    def reward(self, world: Particles) -> Float64Array:
        """Returns the shared reward, plus closeness to the next goal, minus touches of collectors."""
        collectors, alive = self.options.num_collectors, world.drawn["alive"]
        holding = world.drawn["holding"]
        to_treasure = np.where(alive, world.dist[:collectors, world.agents :], np.inf).min(axis=1)
        to_treasure = np.where(alive.any(axis=0), to_treasure, 0.0)
        to_deposits = world.dist[:collectors, collectors : world.agents]
        to_deposit = np.take_along_axis(to_deposits, np.maximum(holding, 0)[:, None], axis=1)[:, 0]
        touching = world.dist[:collectors, :collectors] < 2 * COLLECTOR_SIZE
        touched = touching.sum(axis=1) - 1
        local = -REWARD * touched - 0.1 * np.where(holding == NOTHING, to_treasure, to_deposit)
        waiting = [-0.1 * self._to_carriers(world, deposit) for deposit in range(self.options.num_deposits)]
        rewards: Float64Array = np.concatenate([local, np.stack(waiting)]) + world.drawn["shared"]
        return rewards

    def observation(self, world: Particles, agent: int) -> list[Float64Array]:
        """Returns position, velocity, a collector's load; the other agents, then the treasures, each nearest first."""
        other = [i for i in range(world.agents) if i != agent]
        kinds = np.eye(self.options.num_deposits)
        known = np.concatenate([world.rel[agent, : world.agents], world.vel, self._types(world)], axis=1)[other]
        by_distance = np.argsort(world.dist[agent, other], axis=0, kind="stable")
        alive = world.drawn["alive"]
        treasures = np.concatenate(
            [world.rel[agent, world.agents :], np.moveaxis(kinds[world.drawn["kind"]], -1, 1)], axis=1
        )
        treasures = np.where(alive[:, None], treasures, 0.0)
        distance = np.where(alive, world.dist[agent, world.agents :], LAST)
        load = self._loads(world)[agent : agent + 1]
        return [
            world.pos[agent],
            world.vel[agent],
            *load,
            in_order(known, by_distance),
            in_order(treasures, np.argsort(distance, axis=0, kind="stable")),
        ]

    def metrics(self, world: Particles) -> Mapping[str, Float64Array]:
        """Returns a collector's load (-1: none) or a deposit's number of carriers, and the number of treasures."""
        holding = world.drawn["holding"]
        carried = [(holding == deposit).sum(axis=0) for deposit in range(self.options.num_deposits)]
        alive = np.tile(world.drawn["alive"].sum(axis=0), (world.agents, 1))
        return {"holding": np.concatenate([holding, carried]).astype(float), "alive": alive.astype(float)}

    def _pick_up(self, world: Particles, generators: Generators) -> NDArray[np.intp]:
        """Gives each touched treasure to the first free collector; returns the number of pick-ups `[copies]`."""
        collectors, holding, alive = self.options.num_collectors, world.drawn["holding"], world.drawn["alive"]
        picked = np.zeros(world.copies, np.intp)
        for treasure in range(self.options.num_treasures):
            entity = world.agents + treasure
            lost = ~alive[treasure]
            touched = alive[treasure] & (world.dist[:collectors, entity] < COLLECTOR_SIZE + TREASURE_SIZE)
            for collector in np.flatnonzero(touched.any(axis=1)):
                takes = touched[collector] & alive[treasure] & (holding[collector] == NOTHING)
                holding[collector][takes] = world.drawn["kind"][treasure][takes]
                alive[treasure][takes] = False
                world.pos[entity][:, takes] = CARRIED_POSITION
                picked += takes
            for rng, copies in generators.split(np.flatnonzero(lost).tolist()):
                self._reappear(world, treasure, copies, rng)
        return picked

    def _reappear(self, world: Particles, treasure: int, copies: list[int], rng: np.random.Generator) -> None:
        rng.uniform(size=len(copies))  # mpe2 draws whether it reappears, with probability 1
        world.pos[world.agents + treasure][:, copies] = rng.uniform(-BOUND, BOUND, (2, len(copies)))
        world.drawn["kind"][treasure, copies] = rng.integers(self.options.num_deposits, size=len(copies))
        world.drawn["alive"][treasure, copies] = True

    def _deliver(self, world: Particles) -> NDArray[np.intp]:
        """Removes each load that reaches the deposit of its type; returns the number of deliveries `[copies]`."""
        collectors, holding = self.options.num_collectors, world.drawn["holding"]
        types = np.arange(self.options.num_deposits)[:, None]
        reached = world.dist[:collectors, collectors : world.agents] < COLLECTOR_SIZE + DEPOSIT_SIZE
        delivered: BoolArray = (reached & (holding[:, None] == types)).any(axis=1)
        holding[delivered] = NOTHING
        count: NDArray[np.intp] = delivered.sum(axis=0)
        return count

    def _to_carriers(self, world: Particles, deposit: int) -> Float64Array:
        """Returns a deposit's distance to the nearest carrier of its type, or else to the middle of all collectors."""
        collectors = self.options.num_collectors
        agent = collectors + deposit
        carries = world.drawn["holding"] == deposit
        to_carrier = np.where(carries, world.dist[agent, :collectors], np.inf).min(axis=0)
        middle = ordered_sum(world.pos[:collectors]) / collectors
        return np.where(carries.any(axis=0), to_carrier, blas_norm(middle - world.pos[agent]))

    def _loads(self, world: Particles) -> Float64Array:
        """Returns the type of treasure that each collector carries, one-hot `[collectors, types, copies]`."""
        types = np.arange(self.options.num_deposits)[:, None]
        loads: Float64Array = (world.drawn["holding"][:, None] == types).astype(np.float64)
        return loads

    def _types(self, world: Particles) -> Float64Array:
        """Returns each deposit's type, then each collector's load, both one-hot `[agents, 2 types, copies]`."""
        types, collectors = self.options.num_deposits, self.options.num_collectors
        found = np.zeros((world.agents, 2 * types, world.copies))
        found[collectors:, :types] = np.eye(types)[..., None]
        found[:collectors, types:] = self._loads(world)
        return found
