"""The loop of a worker's worlds: observation -> action -> transition, a block of records at a time.

    obs --policy--> logits --exploration--> action --world--> reward, discount, true next_obs, (reset) obs --> record

Shapes: C copies, T steps of a chunk; a block is [T, C] records, flattened copy-fastest to T * C rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actor_node.exploration import Exploration
from common.policy.network import Policy
from common.run.run import Run
from common.state import Restorable, State, copy_into, select_prefix, with_prefix
from common.transitions import transition_dtype
from common.wire.weights import WeightsHeader
from common.worlds import World


class Interrupted(KeyboardInterrupt):
    """Breaks off a call of the user's code at the end of a worker, as Ctrl-C does: it is no fault of that code."""


class FinishedEpisodes(NamedTuple):
    """FinishedEpisodes that ended in a chunk."""

    ended: int
    return_sums: npt.NDArray[np.float64]
    """[agents]: sums of their returns, agent by agent."""
    over: npt.NDArray[np.bool_]
    """[steps, C]: whether a copy's episode ended with a step."""
    shared_reward: bool = False
    """Whether all agents that were present received equal rewards in every step so far."""

    @property
    def copies(self) -> int:
        """C."""
        return int(self.over.shape[1])

    @property
    def ends(self) -> bytes:
        """`over` as a chunk tells it: one bit a record."""
        return np.packbits(self.over).tobytes()


class Collector:
    """Steps a world's copies with explored actions; keeps where every episode stands between chunks."""

    def __init__(self, run: Run, world: World, rng: np.random.Generator, scale_share: float = 1.0) -> None:
        """Explores with `scale_share` of the scale that comes with the weights."""
        self._joint, self._world = run.joint, world
        self._dtype = transition_dtype(run.joint)
        self._exploration = Exploration(run.joint, run.spec.exploration, world.copies, rng, run.spec.network.head)
        self._scale_share = scale_share
        self._obs = world.reset()
        self._returns = np.zeros((world.copies, len(run.joint.agents)))
        self._shared_reward = True

    def collect(
        self,
        policy: Policy,
        weights: WeightsHeader,
        steps: int,
        go_on: Callable[[], bool] = lambda: True,
    ) -> tuple[npt.NDArray[np.void], FinishedEpisodes]:
        """Steps all copies up to `steps` times with these weights; returns the records [T * C] and the episodes ended.

        go_on: asked after each step but the last whether another one shall follow. A step that is broken off by
        Interrupted is not in the records; those before it are, and the collector cannot be used afterwards.
        """
        block = np.empty((steps, self._world.copies), self._dtype)
        block["policy_version"] = weights.version
        ended, return_sums = 0, np.zeros(len(self._joint.agents))
        over_at = np.zeros(block.shape, np.bool_)
        scale = weights.exploration_scale * self._scale_share
        done = 0
        for row, over in zip(block, over_at, strict=True):
            if done and not go_on():
                break
            actions = self._exploration.act(policy.logits(self._obs), scale, weights.random_share)
            try:
                step = self._world.step(actions)
            except Interrupted:
                break
            done += 1
            row["obs"], row["action"], row["next_obs"] = self._obs, actions, step.next_obs
            row["reward"], row["discount"], row["present"] = step.reward, step.discount, step.present
            self._obs = step.obs
            self._returns += step.reward
            over[:] = step.episode_over
            if over.any():
                ended += int(over.sum())
                return_sums += self._returns[over].sum(axis=0)
                self._returns[over] = 0.0
                self._exploration.forget(over)
        # Looked at until it is seen to be false: most worlds pay nothing for it after their first chunk.
        self._shared_reward = self._shared_reward and _is_shared(block["reward"][:done], block["present"][:done] > 0)
        return block[:done].reshape(-1), FinishedEpisodes(ended, return_sums, over_at[:done], self._shared_reward)

    def state(self) -> State:
        """Returns where all episodes stand; without what goes on in a world that cannot tell its state."""
        state: State = {"obs": self._obs.copy(), "returns": self._returns.copy()}
        state |= with_prefix("exploration", self._exploration.state())
        if isinstance(self._world, Restorable):
            state |= with_prefix("world", self._world.state())
        return state

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> bool:
        """Goes on where another collector of this run stood; returns whether its episodes go on too.

        They begin anew in a world that cannot take a state over. KeyError or ValueError for a state of another run.
        """
        self._exploration.restore(select_prefix("exploration", state))
        if not isinstance(self._world, Restorable):
            self._exploration.forget(np.ones(self._world.copies, bool))
            return False
        self._world.restore(select_prefix("world", state))
        self._obs = np.empty_like(self._obs)
        copy_into(self._obs, state["obs"])
        copy_into(self._returns, state["returns"])
        return True


def _is_shared(reward: npt.NDArray[np.float32], present: npt.NDArray[np.bool_]) -> bool:
    """Says whether those present were paid alike in every step: [T, C, agents]; an absent agent's 0 is no reward."""
    highest = np.where(present, reward, -np.inf).max(axis=-1)
    lowest = np.where(present, reward, np.inf).min(axis=-1)
    return bool((highest <= lowest).all())
