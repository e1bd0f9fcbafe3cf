"""Teams of simple_speaker_listener made by hand: the speaker names its landmark; the listener listens, or is deaf."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from actor_node.evaluation.evaluate import play
from common.policy.heads import Floats
from common.policy.network import Policy, layer_shapes
from common.run.run import Run, make_run_spec
from common.worlds import make_world, world_spec

SCENARIO = "simple_speaker_listener"
SHARP = 20.0
GAIN, DAMPING = 4.0, 1.0


def run_of(*, continuous: bool = True, **settings: object) -> Run:
    """Returns a run whose policies have one hidden layer, wide enough for what is made by hand here."""
    world = {} if continuous else {"continuous_actions": False}
    network = {"policy_hidden": (96,), "critic_hidden": (16, 16)}
    spec = make_run_spec({"scenario": SCENARIO, "world": world, "network": network}, settings)
    return Run("talkers", spec, world_spec(SCENARIO, **world))


def talkers(run: Run, *, listens: bool) -> Floats:
    """Returns flat weights of a team in which the speaker names its landmark."""
    # The colour of landmark i is 0.65 in entry i and 0.15 elsewhere: above 0.4 or below.
    naming = np.eye(3, dtype=np.float32) * SHARP
    speaker = linear_policy(run, 0, naming, np.full(3, -0.4 * SHARP, np.float32))
    return np.concatenate([speaker, _listener(run, listens=listens)])


def returns_of(run: Run, flat: Floats, episodes: int, seed: int) -> npt.NDArray[np.float64]:
    """Returns what a team earns in plain play `[episodes, agents]`."""
    world = make_world(run.spec.scenario, episodes, seed=0, **run.spec.world)
    return play(world, Policy(run.players, run.spec.network, flat), episodes, seed, int)


def linear_policy(run: Run, player: int, weight: Floats, bias: Floats | None = None) -> Floats:
    """Returns a player's flat weights so that its logits are `obs @ weight + bias`: x = relu(x) - relu(-x)."""
    (inputs, hidden), (_, outputs) = layer_shapes(run.players.agents[player], run.spec.network)
    first, last = np.zeros((inputs, hidden), np.float32), np.zeros((hidden, outputs), np.float32)
    first[:, :inputs], first[:, inputs : 2 * inputs] = np.eye(inputs), -np.eye(inputs)
    last[:inputs], last[inputs : 2 * inputs] = weight, -weight
    offset = np.zeros(outputs, np.float32) if bias is None else bias
    return np.concatenate([first.ravel(), np.zeros(hidden, np.float32), last.ravel(), offset])


def pushes(wish: Floats) -> Floats:
    """Returns columns for stay, left, right, down, up from those of a wish along x and y `[inputs, 2]`."""
    x, y = wish[:, 0], wish[:, 1]
    return np.stack([0 * x, -x, x, -y, y], axis=1).astype(np.float32)


def _listener(run: Run, *, listens: bool) -> Floats:
    """Makes a listener that goes to the landmark it is told of, or, deaf, to the middle of the three.

    It observes its velocity (2), three landmarks from where it stands (2 each), and the message m (3), in [0, 1]. What
    it wants is the sum of m_i * landmark_i: with |landmark| <= 4 that is relu(x + 4m - 4) - relu(-x + 4m - 4), exact
    for m of 0 and 1.
    """
    (inputs, hidden), (_, outputs) = layer_shapes(run.players.agents[1], run.spec.network)
    first, bias = np.zeros((inputs, hidden), np.float32), np.zeros(hidden, np.float32)
    wish = np.zeros((hidden, 2), np.float32)
    unit = 0
    for axis in range(2):
        for sign in (1.0, -1.0):
            first[axis, unit], wish[unit, axis] = sign, -DAMPING * sign
            unit += 1
            for landmark in range(3):
                first[2 + 2 * landmark + axis, unit] = sign
                if listens:
                    first[8 + landmark, unit], bias[unit] = 4.0, -4.0
                wish[unit, axis] = sign * GAIN / (1.0 if listens else 3.0)
                unit += 1
    return np.concatenate([first.ravel(), bias, pushes(wish).ravel(), np.zeros(outputs, np.float32)])
