"""Every batched world goes on from a kept state exactly as the world it was taken from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from common.state import Restorable
from common.worlds import World, make_world, scenarios
from common.worlds.world import Float32Array, Step

COPIES = 5


def actions_for(world: World, rng: np.random.Generator) -> Float32Array:
    """Draws joint actions, one-hot where an agent chooses."""
    actions = rng.random((world.copies, world.spec.action_dim)).astype(np.float32)
    for agent in world.spec.agents:
        for part, columns in zip(agent.parts, agent.part_slices, strict=True):
            if hasattr(part, "n"):
                own = actions[:, agent.action_slice][:, columns]
                own[:] = np.eye(part.n, dtype=np.float32)[rng.integers(part.n, size=world.copies)]
    return actions


def bits(step: Step) -> list[bytes]:
    return [array.tobytes() for array in step[:6]]


@pytest.mark.parametrize("seeds", [None, range(COPIES)], ids=["own starts", "seeded"])
@pytest.mark.parametrize("continuous", [True, False], ids=["continuous", "discrete"])
@pytest.mark.parametrize("scenario", [row.name for row in scenarios()])
def test_a_restored_world_goes_on_bit_for_bit(scenario: str, continuous: bool, seeds: Sequence[int] | None) -> None:
    options: dict[str, Any] = {"continuous_actions": continuous, "max_cycles": 9}
    world = make_world(scenario, COPIES, seed=3, **options)
    world.reset(seeds)
    rng = np.random.default_rng(0)
    # Into the second episode of every copy, or midway in a seeded one's first.
    for _ in range(4 if seeds else 13):
        world.step(actions_for(world, rng))
    assert isinstance(world, Restorable)
    state = world.state()
    later = [actions_for(world, rng) for _ in range(25)]
    expected = [bits(world.step(actions)) for actions in later]

    other = make_world(scenario, COPIES, seed=8, **options)
    other.reset()
    assert isinstance(other, Restorable)
    other.restore(state)
    assert [bits(other.step(actions)) for actions in later] == expected


def test_a_state_of_other_copies_is_refused() -> None:
    world, other = make_world("simple_spread", 3, seed=0), make_world("simple_spread", 4, seed=0)
    assert isinstance(world, Restorable)
    assert isinstance(other, Restorable)
    with pytest.raises(ValueError, match="the stored array is"):
        other.restore(world.state())


def test_a_foreign_world_has_no_state() -> None:
    world = make_world("mpe2:simple", 1, seed=0)
    assert not isinstance(world, Restorable)
    world.close()
