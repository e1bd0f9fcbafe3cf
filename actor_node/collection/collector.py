"""The interaction loop of one worker: observation -> action -> transition, one block of records at a time.

    obs --policy--> logits --exploration--> action --world--> reward, discount, true next_obs, (reset) obs --> record

Shapes: C copies, T steps of a chunk. A block is [T, C] records, flattened to T * C rows, copies varying fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actor_node.collection.exploration import Exploration
from common.policy.network import Policy, memory_dim
from common.run.run import Run
from common.state import Restorable, State, copy_into, select_prefix, with_prefix
from common.transitions import transition_dtype
from common.wire.weights import WeightsHeader
from common.worlds import World, global_state


class Interrupted(KeyboardInterrupt):
    """Interrupts a call of the user's code when a worker ends, as Ctrl-C does; the user's code is not at fault."""


class FinishedEpisodes(NamedTuple):
    """The episodes that ended in one chunk."""

    ended: int
    """Number of episodes."""
    return_sums: npt.NDArray[np.float64]
    """Returns of these episodes, summed for each agent [agents]."""
    episode_over: npt.NDArray[np.bool_]
    """Whether the episode of a copy ended with a step [steps, C]."""
    shared_reward: bool = False
    """Whether all present agents received equal rewards in every step so far."""

    @property
    def copies(self) -> int:
        """Number of copies C."""
        return int(self.episode_over.shape[1])

    @property
    def ends(self) -> bytes:
        """`episode_over` in the format of `Chunk.ends`: one bit per record."""
        return np.packbits(self.episode_over).tobytes()


class Collector:
    """Steps the copies of a world with explored actions; episodes continue from one chunk to the next.

    Example:
        collector = Collector(run, make_world("simple_spread", copies=32, seed=0), np.random.default_rng(0))
        records, episodes = collector.collect(policy, weights.header, steps=8)      # 256 records
    """

    def __init__(
        self,
        run: Run,
        world: World,
        rng: np.random.Generator,
        scale_factors: npt.NDArray[np.float64] | None = None,
        first_episode_steps: Sequence[int] = (),
    ) -> None:
        """Makes the exploration for a run's actions, and resets the world.

        scale_factors: factor on the exploration scale that comes with the weights, for each copy [C]; None for 1.
        first_episode_steps: length at which the world truncates the first episode of each copy [C], 0 for none. An
        episode that was cut there does not count as finished, because its return is not that of a whole episode.
        """
        self._world = world
        self._dtype = transition_dtype(run.joint)
        spec = run.spec
        self._exploration = Exploration(
            run.joint,
            spec.exploration,
            world.copies,
            rng,
            spec.network.head,
            gaussian_columns=run.players.gaussian_columns,
            scale_factors=scale_factors,
        )
        self._obs = world.reset()
        self._memory = np.zeros((world.copies, memory_dim(run.players, spec.network)), np.float32)
        self._global_state = global_state(world)
        self._returns = np.zeros((world.copies, len(run.joint.agents)))
        self._shared_reward = True
        self._cut_at = np.array(first_episode_steps, np.int64)
        self._steps_done = 0

    def collect(
        self,
        policy: Policy,
        weights: WeightsHeader,
        steps: int,
        should_continue: Callable[[], bool] = lambda: True,
    ) -> tuple[npt.NDArray[np.void], FinishedEpisodes]:
        """Steps all copies up to `steps` times with these weights; returns records [T * C] and finished episodes.

        should_continue: called after each step but the last; False ends the chunk. Interrupted ends it too: the records
        contain the steps before the interrupted one, and the collector must not be used afterwards.
        """
        block = np.empty((steps, self._world.copies), self._dtype)
        block["policy_version"] = weights.version
        ended, return_sums = 0, np.zeros(self._returns.shape[1])
        episode_over = np.zeros(block.shape, np.bool_)
        steps_done = 0
        for step_records, over in zip(block, episode_over, strict=True):
            if steps_done and not should_continue():
                break
            logits, std = policy.outputs(self._obs, self._memory)
            actions = self._exploration.act(logits, weights.exploration_scale, weights.random_share, std)
            try:
                step = self._world.step(actions)
            except Interrupted:
                break
            steps_done += 1
            step_records["obs"], step_records["action"], step_records["next_obs"] = self._obs, actions, step.next_obs
            step_records["reward"], step_records["discount"] = step.reward, step.discount
            step_records["present"] = step.present
            if self._global_state is not None:
                step_records["state"], step_records["next_state"] = self._global_state, step.next_state
                self._global_state = global_state(self._world)
            self._obs = step.obs
            self._returns += step.reward
            over[:] = step.episode_over
            self._steps_done += 1
            if over.any():
                whole = over & ~self._is_cut(over) if len(self._cut_at) else over
                ended += int(whole.sum())
                return_sums += self._returns[whole].sum(axis=0)
                self._returns[over] = 0.0
                self._memory[over] = 0.0
                self._exploration.reset(over)
        records = block[:steps_done]
        # Once False it stays False: most worlds pay for this check in their first chunk only.
        self._shared_reward = self._shared_reward and _is_shared(records["reward"], records["present"] > 0)
        episodes = FinishedEpisodes(ended, return_sums, episode_over[:steps_done], self._shared_reward)
        return records.reshape(-1), episodes

    def _is_cut(self, over: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Returns whether the episode of a copy was its first and was cut [C]; over: the copies whose episode ended."""
        cut: npt.NDArray[np.bool_] = over & (self._cut_at == self._steps_done)
        self._cut_at[over] = 0
        return cut

    def state(self) -> State:
        """Returns the state of all episodes; without the state of a world that is not Restorable."""
        state: State = {"obs": self._obs.copy(), "returns": self._returns.copy()}
        if self._global_state is not None:
            state["global_state"] = self._global_state.copy()
        if self._memory.size:
            state["memory"] = self._memory.copy()
        state |= with_prefix("exploration", self._exploration.state())
        if isinstance(self._world, Restorable):
            state |= with_prefix("world", self._world.state())
        return state

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> bool:
        """Continues from the state of another collector of this run; returns whether its episodes continue too.

        A world that is not Restorable starts new episodes. KeyError or ValueError if the state is of another run.
        """
        self._exploration.restore(select_prefix("exploration", state))
        if not isinstance(self._world, Restorable):
            self._exploration.reset(np.ones(self._world.copies, bool))
            return False
        self._world.restore(select_prefix("world", state))
        self._obs = np.empty_like(self._obs)
        copy_into(self._obs, state["obs"])
        copy_into(self._returns, state["returns"])
        if self._memory.size:
            copy_into(self._memory, state["memory"])
        if self._global_state is not None:
            copy_into(self._global_state, state["global_state"])
        return True


def _is_shared(reward: npt.NDArray[np.float32], present: npt.NDArray[np.bool_]) -> bool:
    """Returns whether all present agents received equal rewards in every step; both arrays are [T, C, agents]."""
    highest = np.where(present, reward, -np.inf).max(axis=-1)
    lowest = np.where(present, reward, np.inf).min(axis=-1)
    return bool((highest <= lowest).all())
