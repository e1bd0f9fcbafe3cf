"""Measures a world in the current process: contract, and episodes with random and constant actions."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from actor_node.collection.exploration import Exploration
from common.policy.heads import Floats, GreedyHeads
from common.policy.masks import ActionMasks
from common.process.monitoring.resources import private_bytes
from common.run.run import ExplorationSpec
from common.spec import AgentsSpec, Box
from common.worlds import World
from learner_node.run_checks.inputs import nonzero_rms
from shoal.commands.check.figures import Actions, ContractTest, ObservationColumn, PlayFigures, StepRate

MAX_STEPS = 10_000
"""Most steps of play with one kind of actions."""
MAX_EPISODES = 1_000
MIN_MEMORY_STEPS = 200
"""Fewest steps between two readings of the memory for a growth rate."""
MAX_STORED_NUMBERS = 2**22
"""Most stored numbers of observations; when the limit is reached, every second stored step is dropped."""
SEED_STEPS = 20
"""Steps of the comparison of two copies with the same seed."""
API_TEST_STEPS = 30
SEED_TEST, API_TEST = "reset(seed) determines an episode", "PettingZoo's parallel_api_test"
BATCHED_COPIES = 32

ChooseActions = Callable[[Floats], Floats]
"""Joint observations `[copies, O]` -> joint actions `[copies, A]`."""


def play(
    world: World, actions: Actions, *, seconds: float, max_steps: int = MAX_STEPS, seed: int = 0, columns: bool = False
) -> PlayFigures:
    """Plays one copy for a limited time and number of steps, and returns the figures.

    columns: whether to measure the observations.
    """
    choose = chooser(world.spec, actions, seed)
    count = len(world.spec.agents)
    returns: list[float] = []
    lengths: list[int] = []
    rewards: list[npt.NDArray[np.float32]] = []
    rows = _ObservationSample(world.spec.obs_dim)
    terminated = left_early = steps = age = 0
    total, is_common, always_present = 0.0, True, True
    memory_at, memory_before = 0, 0  # without the sample of the observations, which is this function's own
    spent = 0.0
    start = time.monotonic()
    obs = world.reset([seed])
    while steps < max_steps and len(lengths) < MAX_EPISODES and time.monotonic() - start < seconds:
        chosen = choose(obs)
        called_at = time.perf_counter()
        step = world.step(chosen)
        spent += time.perf_counter() - called_at
        steps, age, obs = steps + 1, age + 1, step.obs
        present = step.present[0] > 0
        reward = step.reward[0]
        total += float(reward.sum())
        is_common = is_common and bool(np.ptp(reward[present]) == 0.0 if present.any() else True)
        always_present = always_present and bool(present.all())
        rewards.append(np.where(present, reward, np.nan))
        if columns:
            rows.add(step.next_obs[0], present)
        if not memory_at and (steps >= max_steps // 10 or time.monotonic() - start >= seconds / 10):
            memory_at, memory_before = steps, private_bytes(os.getpid()) - rows.stored_bytes
        if step.episode_over[0]:
            returns.append(total)
            lengths.append(age)
            terminated += int((step.discount[0] == 0.0).all())
            left_early += int(not always_present)
            total, age, always_present = 0.0, 0, True
    growth = 0.0
    if steps >= memory_at + MIN_MEMORY_STEPS:
        growth = (private_bytes(os.getpid()) - rows.stored_bytes - memory_before) / (steps - memory_at)
    table = np.array(rewards, np.float64).reshape(-1, count)
    return PlayFigures(
        actions=actions,
        steps=steps,
        seconds=spent,
        returns=tuple(returns),
        lengths=tuple(lengths),
        terminated=terminated,
        left_early=left_early,
        common_reward=count > 1 and is_common,
        reward_size=tuple(nonzero_rms(column[~np.isnan(column)]) for column in table.T),
        observations=rows.figures(world.spec) if columns else (),
        memory_growth=growth,
    )


def measure_rate(world: World, seconds: float, seed: int) -> StepRate:
    """Returns how fast the copies of a world step together with random actions."""
    choose = chooser(world.spec, "random", seed, world.copies)
    obs = world.reset()
    steps, spent = 0, 0.0
    while spent < seconds:
        actions = choose(obs)
        called_at = time.perf_counter()
        obs = world.step(actions).obs
        spent += time.perf_counter() - called_at
        steps += world.copies
    return StepRate(world.copies, steps, spent)


class _ObservationSample:
    """A thinned sample of the observations of random play, bounded in memory."""

    def __init__(self, obs_dim: int) -> None:
        self._limit = max(MAX_STORED_NUMBERS // max(obs_dim, 1), 8)
        self._rows: list[npt.NDArray[np.float32]] = []
        self._stride, self._seen = 1, 0

    @property
    def stored_bytes(self) -> int:
        """Memory of the sample [bytes]."""
        return sum(row.nbytes for row in self._rows)

    def add(self, obs: Floats, present: npt.NDArray[np.bool_]) -> None:
        self._seen += 1
        if self._seen % self._stride:
            return
        self._rows.append(np.concatenate([obs, present.astype(np.float32)]))
        if len(self._rows) > self._limit:
            del self._rows[::2]
            self._stride *= 2

    def figures(self, spec: AgentsSpec) -> tuple[tuple[ObservationColumn, ...], ...]:
        """Returns each agent's columns, over the steps in which the agent acted."""
        if not self._rows:
            return tuple(() for _ in spec.agents)
        table = np.array(self._rows, np.float64)
        found: list[tuple[ObservationColumn, ...]] = []
        for i, agent in enumerate(spec.agents):
            values = table[table[:, spec.obs_dim + i] > 0, agent.obs_slice]
            if not len(values):
                found.append(())
                continue
            low, high, mean, std = values.min(0), values.max(0), values.mean(0), values.std(0)
            found.append(tuple(ObservationColumn(*map(float, each)) for each in zip(low, high, mean, std, strict=True)))
        return tuple(found)


def chooser(spec: AgentsSpec, actions: Actions, seed: int, copies: int = 1) -> ChooseActions:
    """Returns a function that chooses the joint actions of the next step, among the choices that masks allow."""
    masks = ActionMasks(spec.mask_columns)
    if actions == "random":
        exploration = Exploration(spec, ExplorationSpec(), copies, np.random.default_rng(seed))
        zeros = np.zeros((copies, spec.action_dim), np.float32)
        return lambda obs: exploration.act(masks.lower(zeros.copy(), obs), 0.0, 1.0)
    boxes = np.zeros((copies, spec.action_dim), np.float32)
    is_box = np.zeros(spec.action_dim, bool)
    scores = np.zeros_like(boxes)
    at = 0
    for part in (part for agent in spec.agents for part in agent.parts):
        columns = slice(at, at + part.size)
        at += part.size
        if isinstance(part, Box):
            low, high = np.array(part.low), np.array(part.high)
            boxes[:, columns] = {"zero": np.clip(0.0, low, high), "lowest": low, "highest": high}[actions]
            is_box[columns] = True
        else:
            scores[:, columns] = np.arange(part.n) if actions == "highest" else -np.arange(part.n)
    heads = GreedyHeads(spec)
    return lambda obs: np.where(is_box, boxes, heads(masks.lower(scores.copy(), obs)))


def constant_kinds(spec: AgentsSpec) -> tuple[Actions, ...]:
    """Returns the constant actions that differ: without continuous actions, zero equals the lowest choice."""
    has_box = any(isinstance(part, Box) for agent in spec.agents for part in agent.parts)
    return ("zero", "lowest", "highest") if has_box else ("lowest", "highest")


def seed_test(make: Callable[[], World], seed: int) -> ContractTest:
    """Tests that a seed determines an episode: two copies with the same seed and actions must observe the same."""
    test = SEED_TEST
    seen: list[list[Any]] = []
    for _ in range(2):
        world = make()
        try:
            choose = chooser(world.spec, "random", seed)
            obs = world.reset([seed])
            observed: list[Any] = [obs]
            for _ in range(SEED_STEPS):
                step = world.step(choose(obs))
                obs = step.obs
                observed.append(step.next_obs)
                if step.episode_over[0]:
                    break
            seen.append(observed)
        finally:
            world.close()
    first, second = seen
    for at, (one, other) in enumerate(zip(first, second, strict=False)):
        if one.shape != other.shape or not np.array_equal(one, other):
            where = "after reset" if at == 0 else f"in step {at}"
            return ContractTest(
                test, f"two copies with seed {seed} and the same actions observe different numbers {where}"
            )
    if len(first) != len(second):
        return ContractTest(
            test, f"two copies with seed {seed} and the same actions end after different numbers of steps"
        )
    return ContractTest(test)


def pettingzoo_test(env: Any) -> ContractTest:
    """Runs PettingZoo's test of a ParallelEnv."""
    test = API_TEST
    try:
        from pettingzoo.test import parallel_api_test  # noqa: PLC0415  (a slow import)
    except ImportError as e:
        return ContractTest(test, skipped=f"cannot import it: {e}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parallel_api_test(env, num_cycles=API_TEST_STEPS)
    except AssertionError as e:
        return ContractTest(test, problem=" ".join(str(e).split())[:500] or "an assertion failed")
    except Exception as e:  # noqa: BLE001  (the user's code, and a test that other packages change)
        return ContractTest(test, problem=f"{type(e).__name__}: {' '.join(str(e).split())[:500]}")
    return ContractTest(test)


def mean_with_error(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the half width of its 95 % interval (normal approximation); NaN for too few values."""
    if not values:
        return float("nan"), float("nan")
    array = np.array(values, np.float64)
    half = 1.96 * array.std(ddof=1) / np.sqrt(len(array)) if len(array) > 1 else float("nan")
    return float(array.mean()), float(half)


def interval_of(plays: Mapping[str, PlayFigures], kind: str) -> tuple[float, float]:
    """Returns mean and half width of the returns of one kind of actions."""
    return mean_with_error(plays[kind].returns) if kind in plays else (float("nan"), float("nan"))
