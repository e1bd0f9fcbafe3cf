"""dynamics="legacy" is the environment of the published tables: the literal original, and the scales' conversions."""

import numpy as np
import pytest

from common.errors import ConfigError
from common.worlds import make_world
from common.worlds.particle.scenarios.simple_adversary import SimpleAdversary, SimpleAdversaryOptions
from common.worlds.particle.scenarios.simple_reference import SimpleReference, SimpleReferenceOptions
from common.worlds.particle.scenarios.simple_speaker_listener import SimpleSpeakerListener, SimpleSpeakerListenerOptions
from common.worlds.particle.scenarios.simple_spread import SimpleSpread, SimpleSpreadOptions
from tests.common.worlds.particle.legacy_oracle import REWARDS, OneCopy

COPIES = 6


def thrusts(world, actions):
    """[copies, agents, 2] in [-1, 1], as the agents' first parts have it."""
    controls = np.zeros((len(actions), len(world.spec.agents), 2))
    for i, agent in enumerate(world.scenario.agents):
        if agent.moves:
            own = actions[:, world.spec.agents[i].action_slice]
            controls[:, i] = np.stack([own[:, 2] - own[:, 1], own[:, 4] - own[:, 3]], axis=1)
    return controls


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REWARDS))
def test_a_legacy_world_equals_the_literal_original(name):
    world = make_world(name, copies=COPIES, dynamics="legacy", max_cycles=100)
    world.reset(range(COPIES))
    copies = [OneCopy(world, c) for c in range(COPIES)]
    rng = np.random.default_rng(4)
    for _ in range(40):
        actions = rng.uniform(0, 1, (COPIES, world.spec.action_dim)).astype(np.float32)
        world.step(actions)
        for c, (one, controls) in enumerate(zip(copies, thrusts(world, actions), strict=True)):
            one.step(controls)
            np.testing.assert_allclose(world.particles.pos[..., c], one.pos, rtol=0, atol=1e-12)
            np.testing.assert_allclose(world.particles.vel[..., c], one.vel[: len(one.agents)], rtol=0, atol=1e-12)
            np.testing.assert_allclose(world.rewards[:, c], REWARDS[name](one), rtol=0, atol=1e-10)


def played(name, **options):
    """Yields a legacy world after each step of an episode of random actions."""
    world = make_world(name, copies=50, dynamics="legacy", **options)
    world.reset(range(50))
    rng = np.random.default_rng(5)
    for _ in range(25):
        world.step(rng.uniform(0, 1, (50, world.spec.action_dim)).astype(np.float32))
        if not (world.particles.vel == 0.0).all():  # else it has just been reset
            yield world


def test_spreads_published_scale_is_twice_the_sum_less_three_a_step():
    modern = SimpleSpread(SimpleSpreadOptions())
    for world in played("simple_spread", max_cycles=26):
        summed = modern.reward(world.particles).sum(axis=0)
        for published in world.rewards:
            np.testing.assert_allclose(published, 2 * summed - 3, atol=1e-12)


def test_a_legacy_episode_of_spread_returns_2s_minus_75():
    modern = SimpleSpread(SimpleSpreadOptions())
    published, summed = np.zeros(50), np.zeros(50)
    for world in played("simple_spread", max_cycles=26):
        published += world.rewards[0]
        summed += modern.reward(world.particles).sum(axis=0)
    np.testing.assert_allclose(published, 2 * summed - 75, atol=1e-10)


def test_speaker_listeners_published_scale_is_the_sum_over_agents():
    modern = SimpleSpeakerListener(SimpleSpeakerListenerOptions())
    for world in played("simple_speaker_listener"):
        summed = modern.reward(world.particles).sum(axis=0)
        np.testing.assert_allclose(world.rewards, [summed, summed])


def test_references_published_scale_is_the_sum_of_squares():
    modern = SimpleReference(SimpleReferenceOptions(local_ratio=1.0))
    for world in played("simple_reference"):
        own = modern.reward(world.particles)
        np.testing.assert_allclose(world.rewards, [-(own**2).sum(axis=0)] * 2)


def test_the_adversarys_published_scale_is_squared_and_the_agents_is_not():
    modern = SimpleAdversary(SimpleAdversaryOptions())
    for world in played("simple_adversary"):
        own = modern.reward(world.particles)
        np.testing.assert_allclose(world.rewards[0], -(own[0] ** 2))
        np.testing.assert_allclose(world.rewards[1:], own[1:])


def test_the_first_action_moves_a_legacy_world_at_once_and_mpe2_a_step_late():
    for dynamics, moved in (("legacy", 0.05), ("mpe2", 0.0)):
        world = make_world("simple_adversary", dynamics=dynamics)
        world.reset([3])
        before = world.particles.pos.copy()
        right = np.zeros((1, 15), np.float32)
        right[:, 2::5] = 1.0
        world.step(right)
        np.testing.assert_allclose(world.particles.pos[:3, 0] - before[:3, 0], moved, atol=1e-12)


def test_both_dynamics_start_alike_and_what_never_was_legacy_is_refused():
    worlds = [make_world("simple_tag", copies=3, dynamics=dynamics) for dynamics in ("mpe2", "legacy")]
    np.testing.assert_array_equal(*(world.reset([1, 2, 3]) for world in worlds))
    with pytest.raises(ConfigError, match="dynamics='legacy' is not allowed; give 'mpe2'"):
        make_world("simple_line", dynamics="legacy")
