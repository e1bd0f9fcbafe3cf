"""The physics of the Multi-Agent Particle Environment, for many copies of a world at once.

Entities are the agents, then the landmarks. Copies are on the last axis, so every operation runs over contiguous memory
for any number of agents. Each formula has mpe2's order of floating-point operations, in float64, so that a copy equals
mpe2 bit for bit; an algebraically equal rearrangement would not.

For two entities at exactly the same point, mpe2 divides zero by zero and the episode becomes NaN; here they exert no
force on each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.state import State, copy_into, select_prefix, with_prefix
from common.worlds.world import Float64Array

TIME_STEP = 0.1
DAMPING = 0.25
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
# Smaller than every distance but zero, because a distance is the square root of a float64.
_MIN_DISTANCE = 1e-162


@dataclass(frozen=True)
class Landmark:
    """A round body that does not move."""

    size: float = 0.05
    collides: bool = False


@dataclass(frozen=True)
class Agent:
    """A round body that acts."""

    name: str
    side: str = "agent"
    size: float = 0.05
    collides: bool = False
    moves: bool = True
    speaks: bool = False
    accel: float = 5.0
    max_speed: float = np.inf
    mass: float = 1.0


class Particles:
    """The state of all copies, and the physics that changes it."""

    def __init__(
        self, agents: Sequence[Agent], landmarks: Sequence[Landmark], utterance: int, copies: int, *, legacy: bool
    ) -> None:
        entities = len(agents) + len(landmarks)
        self.agents = len(agents)
        self.copies = copies
        self.pos = np.zeros((entities, 2, copies))
        self.vel = np.zeros((self.agents, 2, copies))
        self.said = np.zeros((self.agents, utterance, copies))
        self.rel = np.zeros((self.agents, entities, 2, copies))
        """[i, j]: position of entity j relative to agent i."""
        self.dist = np.zeros((self.agents, entities, copies))
        """[i, j]: distance from agent i to entity j."""
        self.drawn: dict[str, NDArray[Any]] = {}
        """Other values that a scenario draws for each copy's episode, name -> array with copies on the last axis."""
        self._squares = np.zeros_like(self.rel)
        self._legacy = legacy
        self._mass = np.array([agent.mass for agent in agents])[:, None, None]
        self._max_speed = np.array([agent.max_speed for agent in agents])[:, None]
        self._has_speed_limits = bool(np.isfinite(self._max_speed).any())
        self._contacts, self._reach = _contact_pairs(agents, landmarks)
        self._contact_rows = np.array([a * entities + b for a, b, _ in self._contacts], dtype=np.intp)

    def start_episodes(self, copies: slice | NDArray[np.intp], drawn: Mapping[str, NDArray[Any]]) -> None:
        """Sets these copies to the starts that a scenario drew, with zero velocities and messages."""
        for key, values in drawn.items():
            if key == "pos":
                self.pos[..., copies] = values
                continue
            if key not in self.drawn:
                self.drawn[key] = np.zeros((*values.shape[:-1], self.copies), values.dtype)
            self.drawn[key][..., copies] = values
        self.vel[..., copies] = 0.0
        self.said[..., copies] = 0.0
        self.measure()

    def state(self) -> State:
        """Returns positions, velocities, messages and drawn values, which determine everything else."""
        bodies = {"pos": self.pos.copy(), "vel": self.vel.copy(), "said": self.said.copy()}
        return bodies | with_prefix("drawn", {key: values.copy() for key, values in self.drawn.items()})

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restores a state; KeyError or ValueError for a state of other bodies."""
        for name, into in {"pos": self.pos, "vel": self.vel, "said": self.said}.items():
            copy_into(into, state[name])
        drawn = select_prefix("drawn", state)
        for key, into in self.drawn.items():
            copy_into(into, drawn[key])
        self.measure()

    def step(self, force: Float64Array) -> None:
        """Moves all bodies by one time step under the agents' forces `[agents, 2, copies]`; overwrites the forces."""
        self._push_apart(force)
        if self._legacy:
            self._accelerate(force)
            self._drift()
        else:
            # mpe2 moves by the old velocity, so an action changes the position one step later.
            self._drift()
            self._accelerate(force)
        self.measure()

    def measure(self) -> None:
        """Recomputes `rel` and `dist` after positions have changed."""
        np.subtract(self.pos[None], self.pos[: self.agents, None], out=self.rel)
        np.multiply(self.rel, self.rel, out=self._squares)
        np.add(self._squares[:, :, 0], self._squares[:, :, 1], out=self.dist)
        np.sqrt(self.dist, out=self.dist)

    def _push_apart(self, force: Float64Array) -> None:
        """Adds the contact forces: pairs repel each other, softly before contact, stiffly after."""
        if not self._contacts:
            return
        gap = self.dist.reshape(-1, self.copies).take(self._contact_rows, axis=0)
        np.maximum(gap, _MIN_DISTANCE, out=gap)
        penetration = self._reach - gap
        penetration /= CONTACT_MARGIN
        np.logaddexp(0.0, penetration, out=penetration)
        penetration *= CONTACT_MARGIN
        push = self.rel.reshape(-1, 2, self.copies).take(self._contact_rows, axis=0)
        push *= CONTACT_FORCE
        push /= gap[:, None]
        push *= penetration[:, None]
        for (a, b, moved), pair_push in zip(self._contacts, push, strict=True):
            if moved[0]:
                force[a] -= pair_push
            if moved[1]:
                force[b] += pair_push

    def _drift(self) -> None:
        self.pos[: self.agents] += self.vel * TIME_STEP

    def _accelerate(self, force: Float64Array) -> None:
        force /= self._mass
        force *= TIME_STEP
        self.vel *= 1.0 - DAMPING
        self.vel += force
        if self._has_speed_limits:
            self._limit_speed()

    def _limit_speed(self) -> None:
        squares = self.vel * self.vel
        speed = np.sqrt(squares[:, 0] + squares[:, 1])
        fast = (speed > self._max_speed)[:, None]
        if fast.any():
            np.divide(self.vel, speed[:, None], out=self.vel, where=fast)
            np.multiply(self.vel, self._max_speed[:, None], out=self.vel, where=fast)


Contact = tuple[int, int, tuple[bool, bool]]


def _contact_pairs(agents: Sequence[Agent], landmarks: Sequence[Landmark]) -> tuple[list[Contact], Float64Array]:
    """Returns the pairs that can push each other, as (a, b, (a moves, b moves)), and their contact distances.

    The pairs are in mpe2's order.
    """
    bodies: list[Agent | Landmark] = [*agents, *landmarks]
    moves = [agent.moves for agent in agents] + [False] * len(landmarks)
    contacts = [
        (a, b, (moves[a], moves[b]))
        for a in range(len(agents))
        for b in range(a + 1, len(bodies))
        if bodies[a].collides and bodies[b].collides and (moves[a] or moves[b])
    ]
    reach = np.array([bodies[a].size + bodies[b].size for a, b, _ in contacts])
    return contacts, reach[:, None]
