"""Ablations: the drop in a team's return if one speaker's messages are zeroed or shuffled.

    Policy.act --> joint actions --> one speaker's message replaced --> world.step --> return of each episode

Every variant plays the same seeds, so returns are compared episode by episode, and the variance of the starts cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from actor_node.evaluation.evaluate import bootstrap_interval, play
from actor_node.evaluation.rollouts.episodes import ignore_progress
from common.policy.episodes import EpisodePolicy
from common.policy.heads import Floats
from common.policy.network import Policy
from common.run.run import NetworkSpec, Run
from common.spec import AgentsSpec, PlayersSpec
from common.worlds import REAL_MPE2, World, make_world, messages

Returns = npt.NDArray[np.float64]
Alter = Callable[[Floats], object]
"""Changes joint actions `[copies, sum action]` in place."""


class Ablation(msgspec.Struct, frozen=True):
    """The drop in one side's return, summed over its agents, without one speaker's messages."""

    speaker: str
    side: str
    return_with: float
    """Mean return with the messages unchanged."""
    zeroed_cost: float
    """Drop in mean return if every message is zeros (discrete worlds: the first symbol)."""
    zeroed_cost_ci95: tuple[float, float]
    shuffled_cost: float
    """Drop in mean return if each episode has the messages of another episode."""
    shuffled_cost_ci95: tuple[float, float]


class AlteredPolicy(Policy):
    """Policies whose joint actions a function changes before they are executed."""

    def __init__(self, players: PlayersSpec, network: NetworkSpec, flat: Floats, alter: Alter) -> None:
        super().__init__(players, network, flat)
        self._alter = alter

    def act(self, obs: Floats, memory: Floats | None = None) -> Floats:
        """Returns the changed joint actions `[copies, sum action]`."""
        actions = super().act(obs, memory)
        self._alter(actions)
        return actions


def batched_world(run: Run, copies: int, seed: int, **options: Any) -> World:
    """Makes the world of a run; a scenario played in mpe2 is made as its batched world. `options` replace the run's."""
    return make_world(
        run.spec.scenario.removeprefix(REAL_MPE2), copies, seed=seed, options={**run.spec.world, **options}
    )


def ablate(run: Run, flat: Floats, episodes: int, seed: int) -> list[Ablation]:
    """Plays with each speaker's messages unchanged, zeroed, and shuffled among the episodes.

    flat: the policies' weights. episodes: 2 or more. Returns an empty list if no agent observes another's messages.
    """
    spoken = messages(run.spec.scenario, run.spec.world)
    if not spoken:
        return []
    world = batched_world(run, episodes, seed)

    def returns(alter: Alter) -> Mapping[str, Returns]:
        policy = AlteredPolicy(run.players, run.spec.network, flat, alter)
        return _by_side(run.joint, play(world, EpisodePolicy(policy), episodes, seed, ignore_progress))

    unchanged = returns(lambda _: None)
    ablations = []
    for speaker, part in spoken.items():
        zeroed, shuffled = returns(_zero(part)), returns(_shuffle(part))
        ablations += [
            Ablation(
                speaker,
                side,
                float(unchanged[side].mean()),
                *_cost(unchanged[side] - zeroed[side], seed),
                *_cost(unchanged[side] - shuffled[side], seed),
            )
            for side in run.joint.sides
        ]
    return ablations


def _by_side(agents: AgentsSpec, returns: Returns) -> dict[str, Returns]:
    """Returns each side's returns `[episodes]`, summed over its agents."""
    sides = {side: [i for i, agent in enumerate(agents.agents) if agent.team == side] for side in agents.sides}
    return {side: returns[:, members].sum(axis=1) for side, members in sides.items()}


def _zero(part: slice) -> Alter:
    def alter(actions: Floats) -> None:
        actions[:, part] = 0.0

    return alter


def _shuffle(part: slice) -> Alter:
    """Gives each copy the message of its neighbour; starts are independent, so the neighbour stands for any copy."""

    def alter(actions: Floats) -> None:
        actions[:, part] = np.roll(actions[:, part], 1, axis=0)

    return alter


def _cost(differences: Returns, seed: int) -> tuple[float, tuple[float, float]]:
    return float(differences.mean()), bootstrap_interval(differences, seed)
