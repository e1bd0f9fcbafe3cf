"""Playing to find out what is wrong with a team: with its messages tampered with, and for longer than it trained.

    Policy.act --> joint actions --> one speaker's message replaced --> world.step --> returns, episode by episode

Every variant starts from the same seeds, so that the differences of returns are compared episode by episode: what the
starts add to the spread of returns is not in them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from actor_node.evaluation.evaluate import bootstrap_interval, play
from common.policy.heads import Floats
from common.policy.network import Policy
from common.run.run import NetworkSpec, Run
from common.spec import AgentsSpec, PlayersSpec
from common.worlds import REAL_MPE2, World, make_world, messages

Bools = npt.NDArray[np.bool_]
Returns = npt.NDArray[np.float64]
Alter = Callable[[Floats], object]
"""Changes joint actions `[copies, sum action]` in place."""


class Ablation(msgspec.Struct, frozen=True):
    """What one speaker's messages are worth to one side: returns of that side, summed over its agents."""

    speaker: str
    side: str
    return_with: float
    """Mean return with messages as they are."""
    zeroed_cost: float
    """By how much the mean return falls when every message is zeros (discrete worlds: the first symbol)."""
    zeroed_cost_ci95: tuple[float, float]
    shuffled_cost: float
    """By how much it falls when each episode's messages are those of another one."""
    shuffled_cost_ci95: tuple[float, float]


class Played(NamedTuple):
    """What was seen and done. T steps, W the first of them that were watched, E episodes side by side."""

    obs: Floats
    """`[W, E, sum obs]`."""
    action: Floats
    """`[W, E, sum action]`."""
    reward: Floats
    """`[T, E, agents]`, as are the two below."""
    discount: Floats
    present: Floats
    """0.0 also in all steps after an episode's end."""


class AlteredPolicy(Policy):
    """Policies whose joint actions are changed before they are executed."""

    def __init__(self, players: PlayersSpec, network: NetworkSpec, flat: Floats, alter: Alter) -> None:
        super().__init__(players, network, flat)
        self._alter = alter

    def act(self, obs: Floats) -> Floats:
        """Returns the changed joint actions `[copies, sum action]`."""
        actions = super().act(obs)
        self._alter(actions)
        return actions


def batched_world(run: Run, copies: int, seed: int, **options: Any) -> World:
    """Makes the world of a run, batched where there is one, with some of its options changed."""
    return make_world(
        run.spec.scenario.removeprefix(REAL_MPE2), copies, seed=seed, options={**run.spec.world, **options}
    )


def ablate(run: Run, flat: Floats, episodes: int, seed: int) -> list[Ablation]:
    """Plays with each speaker's messages as they are, zeroed, and shuffled among episodes (at least two).

    flat: the policies' weights. Empty where nobody hears anybody.
    """
    spoken = messages(run.spec.scenario, run.spec.world)
    if not spoken:
        return []
    world = batched_world(run, episodes, seed)

    def returns(alter: Alter) -> Mapping[str, Returns]:
        policy = AlteredPolicy(run.players, run.spec.network, flat, alter)
        return _by_side(run.joint, play(world, policy, episodes, seed, int))

    whole = returns(lambda _: None)
    found = []
    for speaker, part in spoken.items():
        zeroed, shuffled = returns(_zero(part)), returns(_shuffle(part))
        found += [
            Ablation(
                speaker,
                side,
                float(whole[side].mean()),
                *_cost(whole[side] - zeroed[side], seed),
                *_cost(whole[side] - shuffled[side], seed),
            )
            for side in run.joint.teams
        ]
    return found


def record(
    world: World, policy: Policy, seed: int, steps: int, watched: int, *, patience_s: float = math.inf
) -> Played:
    """Plays one episode in each copy, without exploration, for so many steps at most, and keeps what happened.

    patience_s: steps beyond the watched ones are played only while all of them take no longer than this.
    """
    began_at = time.monotonic()
    seen: list[tuple[Floats, Floats]] = []
    told: list[tuple[Floats, Floats, Floats]] = []
    obs = world.reset(range(seed, seed + world.copies))
    running: Bools = np.ones(world.copies, np.bool_)
    while running.any() and len(told) < steps:
        if len(told) >= watched and time.monotonic() - began_at > patience_s:
            break
        action = policy.act(obs)
        step = world.step(action)
        if len(seen) < watched:
            seen.append((obs, action))
        alive = running[:, None]
        told.append((step.reward * alive, step.discount, step.present * alive))
        running = running & ~step.episode_over
        obs = step.obs
    obs_seen, actions = (np.stack(column) for column in zip(*seen, strict=True))
    reward, discount, present = (np.stack(column).astype(np.float32) for column in zip(*told, strict=True))
    return Played(obs_seen, actions, reward, discount, present)


def _by_side(joint: AgentsSpec, returns: Returns) -> dict[str, Returns]:
    """Returns each side's returns `[episodes]`, summed over its agents."""
    sides = {side: [i for i, agent in enumerate(joint.agents) if agent.team == side] for side in joint.teams}
    return {side: returns[:, members].sum(axis=1) for side, members in sides.items()}


def _zero(part: slice) -> Alter:
    def alter(actions: Floats) -> None:
        actions[:, part] = 0.0

    return alter


def _shuffle(part: slice) -> Alter:
    """Gives each copy the message of its neighbour: starts are drawn independently, so one neighbour is like any."""

    def alter(actions: Floats) -> None:
        actions[:, part] = np.roll(actions[:, part], 1, axis=0)

    return alter


def _cost(differences: Returns, seed: int) -> tuple[float, tuple[float, float]]:
    return float(differences.mean()), bootstrap_interval(differences, seed)
