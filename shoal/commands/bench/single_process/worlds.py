"""Environment steps per second of the batched worlds against the real mpe2, on one core with random actions."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from actor_node.evaluation.task import reference_world
from actor_node.evaluation.teams import RandomTeam
from common.worlds import World, make_world, scenarios
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.measurements import BenchRow, compare, rate, row

COPIES = (1, 8, 64, 256, 2048)
GOAL_AT = 256
_GOALS = {"simple_spread": 300.0}
_OTHER_GOAL = 100.0


def rows(_config: BenchConfig) -> Iterator[BenchRow]:
    """Yields the rows worlds/SCENARIO/COPIES for every scenario."""
    for scenario in scenarios():
        reference = make_world(reference_world(scenario.name), 1, seed=0, continuous_actions=True)
        baseline = stepping(reference)
        for copies in COPIES:
            ours = stepping(make_world(scenario.name, copies, seed=0))
            value, mpe2 = compare(lambda ours=ours: rate(ours), lambda baseline=baseline: rate(baseline))  # type: ignore[misc]
            goal = _GOALS.get(scenario.name, _OTHER_GOAL) if copies == GOAL_AT else 0.0
            yield row(f"worlds/{scenario.name}/{copies}", "env steps/s", value, ("mpe2", mpe2), goal)
        reference.close()


def stepping(world: World) -> Callable[[], int]:
    """Returns a function that steps a world once with random actions and returns the number of steps.

    The actions are precomputed, unless action masks say at each step which ones are allowed.
    """
    team = RandomTeam(world.spec, 0)
    obs = world.reset()
    actions = [team.act(obs) for _ in range(16)]
    step_count, is_masked = 0, bool(world.spec.mask_columns)

    def step() -> int:
        nonlocal step_count, obs
        chosen = team.act(obs) if is_masked else actions[step_count % len(actions)]
        obs = world.step(chosen).obs
        step_count += 1
        return world.copies

    return step
