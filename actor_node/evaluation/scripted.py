"""Scripted teams: controllers that know how a scenario works, as the upper end of a scale for trained teams.

| scenario                                     | each agent                                                           |
|----------------------------------------------|----------------------------------------------------------------------|
| simple                                       | goes to the landmark                                                 |
| simple_spread, up to six agents              | goes to its landmark in the assignment with the least total distance |
| simple_speaker_listener, simple_reference    | says the number of the goal; the listener goes there                 |

Like a policy, an agent decides by its own observation alone. The scripts are good, not the best possible: they do not
avoid collisions, and a trained team can be better.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actor_node.evaluation.task import short_name
from common.errors import ConfigError
from common.policy.heads import Floats
from common.run.run import Run
from common.spec import AgentsSpec, Box
from common.worlds.particle.actions import MOVES

MAX_ASSIGNED = 6
"""Largest number of agents whose assignments to landmarks are all compared: 720."""
_STIFFNESS, _DAMPING = 8.0, 2.0
"""Thrust for a distance of 1, and against a speed of 1. Of 20 pairs, the best on the four scenarios together."""
_LEAST_THRUST = 0.5
"""A choice of a direction thrusts by 1; below this thrust, staying is nearer."""

Float32s = npt.NDArray[np.float32]


class Intent(NamedTuple):
    """What an agent wants to do, in every copy."""

    thrust: Float32s | None = None
    """[copies, 2], each within -1 and 1; None for an agent that does not move."""
    symbol: npt.NDArray[np.intp] | None = None
    """[copies]: the symbol to say; None for an agent that does not speak."""


Script = Callable[[int, Floats], Intent]
"""Returns the intent of an agent, given its index and its observations `[copies, obs]`."""


class ScriptedTeam:
    """A team that follows a script.

    Example: scripted_team(run).act(obs)
    """

    def __init__(self, agents: AgentsSpec, script: Script) -> None:
        self._agents, self._script = agents, script

    def act(self, obs: Floats) -> Floats:
        """Returns joint actions `[copies, sum action]`."""
        columns: list[Floats] = []
        for i, agent in enumerate(self._agents.agents):
            intent = self._script(i, obs[:, agent.obs_start : agent.obs_start + agent.obs_dim])
            parts = list(agent.parts)
            if intent.thrust is not None:
                part = parts.pop(0)
                columns.append(_directions(intent.thrust, soft=isinstance(part, Box)))
            if intent.symbol is not None:
                columns.append(np.eye(parts.pop(0).size, dtype=np.float32)[intent.symbol])
        return np.concatenate(columns, axis=1)


def scripted_team(run: Run) -> ScriptedTeam:
    """Returns the scripted team of a run's world; ConfigError if there is none for it."""
    name, agents = short_name(run.spec.scenario), run.joint
    count = len(agents.agents)
    scripts: dict[str, tuple[Script, list[int]]] = {
        "simple": (_approach, [4]),
        "simple_spread": (partial(_spread, count), [4 * count + 2 + 2 * (count - 1)] * count),
        "simple_speaker_listener": (_speak_or_listen, [3, 11]),
        "simple_reference": (_refer, [21, 21]),
    }
    if name not in scripts:
        raise ConfigError(f"{run.spec.scenario} has no scripted team. Leave out `scripted`.")
    script, obs_dims = scripts[name]
    fits = [agent.obs_dim for agent in agents.agents] == obs_dims
    if not fits or (name == "simple_spread" and count > MAX_ASSIGNED):
        raise ConfigError(f"the scripted team of {name} does not know the world's options. Leave out `scripted`.")
    return ScriptedTeam(agents, script)


def _approach(_agent: int, obs: Floats) -> Intent:
    velocity, landmark = obs[:, 0:2], obs[:, 2:4]
    return Intent(_towards(landmark, velocity))


def _spread(count: int, agent: int, obs: Floats) -> Intent:
    """Assigns the landmarks from this agent's view; all agents see the same distances, so they agree."""
    velocity = obs[:, 0:2]
    landmarks = obs[:, 4 : 4 + 2 * count].reshape(-1, count, 2)
    others = obs[:, 4 + 2 * count : 2 + 4 * count].reshape(-1, count - 1, 2)
    agents = np.insert(others, agent, 0.0, axis=1)
    distances = np.linalg.norm(landmarks[:, None] - agents[:, :, None], axis=3)
    assignments = np.array(list(itertools.permutations(range(count))))
    totals = distances[:, np.arange(count), assignments].sum(axis=2)
    chosen = assignments[totals.argmin(axis=1), agent]
    return Intent(_towards(landmarks[np.arange(len(obs)), chosen], velocity))


def _speak_or_listen(agent: int, obs: Floats) -> Intent:
    if agent == 0:
        return Intent(symbol=obs.argmax(axis=1))
    return Intent(_listen(obs[:, 2:8], obs[:, 8:11], obs[:, 0:2]))


def _refer(_agent: int, obs: Floats) -> Intent:
    return Intent(_listen(obs[:, 2:8], obs[:, 11:21], obs[:, 0:2]), obs[:, 8:11].argmax(axis=1))


def _listen(landmarks: Floats, message: Floats, velocity: Floats) -> Float32s:
    """Returns the thrust towards the landmark of the message; towards their middle before there is a message."""
    positions = landmarks.reshape(-1, 3, 2)
    goal = positions[np.arange(len(positions)), np.minimum(message.argmax(axis=1), 2)]
    has_spoken = message.max(axis=1, keepdims=True) > 0.0
    return _towards(np.where(has_spoken, goal, positions.mean(axis=1)), velocity)


def _towards(goal: Floats, velocity: Floats) -> Float32s:
    """Returns the thrust towards a relative position."""
    return np.clip(_STIFFNESS * goal - _DAMPING * velocity, -1.0, 1.0).astype(np.float32)


def _directions(thrust: Float32s, *, soft: bool) -> Floats:
    """Returns thrusts as [stay, left, right, down, up]; soft: as numbers, else as the direction of the larger one."""
    found = np.zeros((len(thrust), MOVES), np.float32)
    for axis in (0, 1):
        found[:, 1 + 2 * axis] = np.maximum(-thrust[:, axis], 0.0)
        found[:, 2 + 2 * axis] = np.maximum(thrust[:, axis], 0.0)
    if soft:
        return found
    found[:, 0] = _LEAST_THRUST
    chosen: Floats = np.eye(MOVES, dtype=np.float32)[found.argmax(axis=1)]
    return chosen
