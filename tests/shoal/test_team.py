"""`shoal.load` and `Team.act`: by agent and as joint arrays, the same actions as the policies give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import shoal
from common.errors import ConfigError
from common.policy.file import PolicyFile, save_policy
from common.policy.network import Policy
from common.run.directory import create
from common.run.run import Run, make_run_spec
from common.spec import AgentsSpec, Box, Categorical, joint_spec
from common.worlds import make_world, world_spaces, world_spec
from shoal.team import Team
from tests.common.examples import MIXED, random_weights
from tests.common.head_examples import MASKED
from tests.common.worlds.masked_channels import CHANNELS, parallel_env


def stored(scenario: str, joint: AgentsSpec | None = None, *, spaces: Any = (), **settings: Any) -> PolicyFile:
    spec = make_run_spec({"scenario": scenario, "network": {"policy_hidden": (16,)}, **settings})
    run = Run("a1b2c3d4", spec, joint or world_spec(scenario), spaces)
    return PolicyFile(run, 2, 200, random_weights(run))


def expected(file: PolicyFile, obs: Any) -> Any:
    return Policy(file.run.players, file.run.spec.network, file.flat).act(obs)


def test_joint_arrays_of_many_copies_and_of_one() -> None:
    file = stored("simple_tag")
    team, world = Team(file), make_world("simple_tag", copies=7, seed=3)
    obs = world.reset()
    actions = team.act(obs)
    np.testing.assert_array_equal(actions, expected(file, obs))
    np.testing.assert_allclose(team.act(obs[2]), actions[2], rtol=1e-6)
    assert world.step(actions).reward.shape == (7, 4)
    assert team.agents == ("adversary_0", "adversary_1", "adversary_2", "agent_0")
    assert (team.scenario, team.updates, team.spec) == ("simple_tag", 200, file.run.joint)
    assert "simple_tag" in repr(team)


def test_a_team_with_layer_norm_and_another_activation(tmp_path: Path) -> None:
    network = {"policy_hidden": (16, 8), "activation": "silu", "policy_layer_norm": True}
    file = stored("simple_tag", network=network, world={"history": 1}, joint=world_spec("simple_tag", {"history": 1}))
    save_policy(tmp_path / "policy.safetensors", file)
    team = shoal.load(tmp_path / "policy.safetensors")
    plain, stacked = make_world("simple_tag", copies=3, seed=3), make_world("simple_tag", copies=3, seed=3, history=1)
    obs, expected_obs = plain.reset(), stacked.reset()
    for _ in range(3):
        actions = team.act(obs)
        np.testing.assert_array_equal(actions, expected(file, expected_obs))
        obs, expected_obs = plain.step(actions).obs, stacked.step(actions).obs
    assert np.isfinite(actions).all()


def test_by_agent_each_acts_on_its_own_observation() -> None:
    file = stored("somewhere", MIXED)
    team, obs = Team(file), np.random.default_rng(1).normal(size=(1, MIXED.obs_dim)).astype(np.float32)
    joint = expected(file, obs)[0]
    by_agent = team.act({agent.name: obs[0, agent.obs_slice].tolist() for agent in MIXED.agents})
    assert list(by_agent) == [agent.name for agent in MIXED.agents]
    for agent in MIXED.agents:
        values = by_agent[agent.name] if len(agent.parts) > 1 else [by_agent[agent.name]]
        for value, columns in zip(values, agent.part_slices, strict=True):
            own = joint[agent.action_slice][columns]
            if isinstance(value, int):
                assert value == own.argmax()
            else:
                np.testing.assert_allclose(value, own, rtol=1e-6)
    first = MIXED.agents[0]
    alone = team.act({first.name: obs[0, first.obs_slice]})
    assert str(alone[first.name]) == str(by_agent[first.name])


@pytest.mark.slow
def test_an_episode_of_mpe2_as_pettingzoo_has_it() -> None:
    from mpe2 import simple_spread_v3

    team = Team(stored("simple_spread"))
    world = simple_spread_v3.parallel_env(continuous_actions=True)
    obs, _ = world.reset(seed=0)
    steps = 0
    while world.agents:
        actions = team.act(obs)
        assert all(world.action_space(name).contains(action) for name, action in actions.items())
        obs, *_ = world.step(actions)
        steps += 1
    assert steps == 25


@pytest.mark.slow
def test_an_environments_own_spaces_go_in_and_come_out() -> None:
    name = "pettingzoo:tests.shoal.structured_env"
    world = make_world(name, seed=0)
    file = stored(name, world.spec, spaces=world_spaces(world))
    team = Team(file)
    from tests.shoal.structured_env import parallel_env

    environment = parallel_env()
    seen, _ = environment.reset(seed=5)
    flat = world.reset(seeds=[5])
    actions = team.act(seen)
    for agent in environment.possible_agents:
        assert environment.action_space(agent).contains(actions[agent]), actions
    joint = expected(file, flat)[0]
    for agent in world.spec.agents:
        own = joint[agent.action_slice]
        if agent.name == "walker":
            np.testing.assert_allclose(actions["walker"].ravel(), own, rtol=1e-6)
        else:
            np.testing.assert_array_equal(actions["chooser"], [own[:3].argmax(), own[3:].argmax()])


@pytest.mark.parametrize("where", ["observation", "info"])
def test_action_masks_go_in_beside_observations(where: str) -> None:
    name = "pettingzoo:tests.common.worlds.masked_channels"
    world = make_world(name, seed=0, where=where)
    file = stored(name, world.spec, spaces=world_spaces(world))
    team = Team(file)
    environment = parallel_env(where=where)
    seen, infos = environment.reset(seed=5)
    flat = world.reset(seeds=[5])
    while environment.agents:
        if where == "info":
            seen = {a: {"observation": seen[a], "action_mask": infos[a]["action_mask"]} for a in environment.agents}
        actions = team.act(seen)  # a forbidden one raises
        joint = expected(file, flat)
        assert actions == {a.name: joint[0, a.action_slice].argmax() for a in world.spec.agents}
        flat = world.step(joint).next_obs
        seen, _, _, _, infos = environment.step(actions)
    own = np.zeros(CHANNELS)
    for wrong in (own, {"observation": own}, {"observation": own, "action_mask": [1]}):
        with pytest.raises(shoal.ConfigError, match=r'observation of player_0 .*"action_mask", or a vector of 12'):
            team.act({"player_0": wrong})


@pytest.mark.parametrize(
    ("obs", "words"),
    [
        ({"agent_9": [0.0] * 18}, "'agent_9' is not an agent of this team. Agents: agent_0, agent_1, agent_2"),
        ({"agent_0": [0.0] * 17}, "The observation of agent_0 has the shape \\[17\\].*a vector of 18 numbers"),
        (np.zeros((4, 53)), "joint observations have the shape \\[4, 53\\]. Pass \\[copies, 54\\] or \\[54\\]"),
        (np.zeros((2, 2, 54)), "shape \\[2, 2, 54\\]"),
    ],
)
def test_what_does_not_fit_is_named(obs: Any, words: str) -> None:
    with pytest.raises(shoal.ConfigError, match=words):
        Team(stored("simple_spread")).act(obs)


def test_a_side_that_acts_as_one_is_asked_as_one() -> None:
    team = Team(stored("simple_spread", algorithm={"name": "joint"}))
    with pytest.raises(shoal.ConfigError, match=r"The observation of agent_2 is missing.* have one policy"):
        team.act({"agent_0": [0.0] * 18, "agent_1": [0.0] * 18})
    assert len(team.act({f"agent_{i}": [0.0] * 18 for i in range(3)})) == 3


def test_a_directory_or_a_file_is_loaded_and_anything_else_refused(tmp_path: Path) -> None:
    directory, run = create(tmp_path / "run", make_run_spec({"scenario": "simple"}), world_spec("simple"))
    with pytest.raises(shoal.ConfigError, match=f"contains no policies of its run {run.id} yet"):
        shoal.load(directory.path)
    save_policy(directory.policy_file, PolicyFile(run, 1, 10, random_weights(run)))
    for given in (directory.path, str(directory.path), directory.policy_file, str(directory.policy_file)):
        assert shoal.load(given).run == run
    (tmp_path / "other").mkdir()
    (tmp_path / "text").write_text("no policies", "utf-8")
    for name, words in (("other", "no run.toml"), ("none", "does not exist"), ("text", "is not a policy file")):
        with pytest.raises(shoal.ConfigError, match=words) as error:
            shoal.load(tmp_path / name)
        assert "\n" not in str(error.value)
        assert "os error" not in str(error.value)


def test_a_stored_run_without_spaces_is_played_by_its_flat_ones() -> None:
    discrete = {"continuous_actions": False}
    file = stored("simple_reference", world_spec("simple_reference", discrete), world=discrete)
    assert not file.run.spaces
    actions = Team(file).act({"agent_0": [0.0] * 21, "agent_1": [0.0] * 21})
    parts = [part for action in actions.values() for part in (action if isinstance(action, tuple) else (action,))]
    assert {type(part) for part in parts} == {int}


def with_history(scenario: str = "simple_tag", **options: Any) -> PolicyFile:
    world = {"history": 2, **options}
    return stored(scenario, world_spec(scenario, world), world=world)


def test_a_team_remembers_what_it_observed_and_did() -> None:
    file = with_history(max_cycles=5)
    team, stacking = Team(file), Team(file)
    plain, stacked = (
        make_world("simple_tag", 4, seed=3, options={"max_cycles": 5, **more}) for more in ({}, {"history": 2})
    )
    assert team.history == 2
    obs, stacked_obs = plain.reset([1, 2, 3, 4]), stacked.reset([1, 2, 3, 4])
    for _ in range(12):
        actions = team.act(obs)
        np.testing.assert_array_equal(actions, stacking.act(stacked_obs))
        step, stacked_step = plain.step(actions), stacked.step(actions)
        team.reset(step.episode_over)
        obs, stacked_obs = step.obs, stacked_step.obs


def test_a_team_remembers_each_agent_of_a_mapping() -> None:
    file = with_history()
    team, plain, stacked = Team(file), make_world("simple_tag", 1), make_world("simple_tag", 1, history=2)
    for seed in (5, 6):
        team.reset()
        obs, stacked_obs = plain.reset([seed]), stacked.reset([seed])
        for _ in range(4):
            own = {agent.name: obs[0, agent.obs_slice] for agent in plain.spec.agents}
            actions = expected(file, stacked_obs)
            given = team.act(own)
            # Agents act in five numbers, a Box of the built-in worlds.
            np.testing.assert_array_equal(np.concatenate(list(given.values())), actions[0])
            contained = {agent.name: stacked_obs[0, agent.obs_slice] for agent in stacked.spec.agents}
            np.testing.assert_array_equal(np.concatenate(list(Team(file).act(contained).values())), actions[0])
            obs, stacked_obs = plain.step(actions).obs, stacked.step(actions).obs


def test_an_agent_that_left_is_forgotten() -> None:
    team, other = Team(with_history()), Team(with_history())
    rng = np.random.default_rng(0)
    first, second, third = (
        {agent.name: rng.normal(size=agent.obs_dim) for agent in world_spec("simple_tag").agents} for _ in range(3)
    )
    team.act(first)
    team.act({name: obs for name, obs in second.items() if name != "agent_0"})
    again = team.act(third)
    np.testing.assert_array_equal(again["agent_0"], other.act(third)["agent_0"])
    assert not np.array_equal(again["adversary_0"], other.act(third)["adversary_0"])


def test_other_copies_need_a_reset() -> None:
    team, sizes = Team(with_history()), world_spec("simple_tag").obs_dim
    team.reset()
    team.act(np.zeros((4, sizes)))
    with pytest.raises(shoal.ConfigError, match=r"remembers 4 copies and is given observations of 3. Call team.reset"):
        team.act(np.zeros((3, sizes)))
    for copies in ([4], [True, False]):
        with pytest.raises(shoal.ConfigError, match=r"reset\(.*: the team plays 4 copies"):
            team.reset(copies)
    team.reset([])
    team.reset()
    assert team.act(np.zeros((3, sizes))).shape == (3, 20)
    assert team.act(np.zeros((9, team.spec.obs_dim))).shape == (9, 20)


def test_observations_with_and_without_history_do_not_mix() -> None:
    team = Team(with_history())
    own = {agent.name: np.zeros(agent.obs_dim) for agent in world_spec("simple_tag").agents}
    mixed = {**own, "agent_0": np.zeros(team.spec.agents[-1].obs_dim)}
    with pytest.raises(shoal.ConfigError, match="of agent_0 contains its history, that of adversary_0 does not"):
        team.act(mixed)
    with pytest.raises(shoal.ConfigError, match=r"The observation of agent_0 has the shape \[3\].*14 numbers"):
        team.act({**own, "agent_0": np.zeros(3)})
    with pytest.raises(shoal.ConfigError, match=r"or \[copies, 62\] or \[62\] without history: adversary_0 16"):
        team.act(np.zeros((2, 61)))


@pytest.mark.slow
def test_a_team_remembers_an_environments_own_values() -> None:
    name = "pettingzoo:tests.shoal.structured_env"
    world = make_world(name, seed=0, history=2)
    file = stored(name, world.spec, spaces=world_spaces(world), world={"history": 2})
    team = Team(file)
    from tests.shoal.structured_env import parallel_env

    environment = parallel_env()
    seen, _ = environment.reset(seed=5)
    flat = world.reset(seeds=[5])
    for _ in range(2):
        joint, actions = expected(file, flat), team.act(seen)
        assert list(actions["chooser"]) == [
            joint[0, world.spec.agents[1].action_slice][:3].argmax(),
            joint[0, world.spec.agents[1].action_slice][3:].argmax(),
        ]
        np.testing.assert_allclose(actions["walker"].ravel(), joint[0, world.spec.agents[0].action_slice], rtol=1e-5)
        seen, *_ = environment.step(actions)
        flat = world.step(joint).next_obs


@pytest.mark.parametrize("where", ["observation", "info"])
def test_a_team_remembers_observations_with_action_masks(where: str) -> None:
    name, options = "pettingzoo:tests.common.worlds.masked_channels", {"where": where, "history": 2}
    world = make_world(name, options=options)
    file = stored(name, world.spec, spaces=world_spaces(world), world=options)
    team, environment = Team(file), parallel_env(where=where)
    seen, infos = environment.reset(seed=5)
    flat = world.reset([5])
    for _ in range(4):
        if where == "info":
            seen = {a: {"observation": seen[a], "action_mask": infos[a]["action_mask"]} for a in environment.agents}
        actions, joint = team.act(seen), expected(file, flat)
        assert list(actions.values()) == [int(own.argmax()) for own in np.split(joint[0], 2)]
        seen, _, _, _, infos = environment.step(actions)  # raises an exception for a forbidden action
        flat = world.step(joint).next_obs


def softmax(logits: Any) -> Any:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def test_sampled_choices_follow_the_softmax_and_boxes_do_not_change() -> None:
    file = stored("somewhere", MIXED)
    team, one = Team(file), np.random.default_rng(1).normal(size=MIXED.obs_dim).astype(np.float32)
    obs = np.repeat(one[None], 20_000, axis=0)
    drawn, greedy = team.act(obs, sample=True, rng=np.random.default_rng(2)), team.act(obs)
    logits = Policy(file.run.players, file.run.spec.network, file.flat).logits(one[None])[0]
    kinds = set()
    for agent in MIXED.agents:
        for part, columns in zip(agent.parts, agent.part_slices, strict=True):
            own = slice(agent.action_start + columns.start, agent.action_start + columns.stop)
            kinds.add(type(part))
            if isinstance(part, Categorical):
                assert set(drawn[:, own].sum(axis=1)) == {1.0}
                # The standard deviation of a frequency of 20,000 draws is at most 0.0036.
                np.testing.assert_allclose(drawn[:, own].mean(axis=0), softmax(logits[own]), atol=0.018)
            else:
                np.testing.assert_array_equal(drawn[:, own], greedy[:, own])
    assert kinds == {Box, Categorical}


def test_a_stochastic_teams_boxes_are_drawn_too(tmp_path: Path) -> None:
    file = stored("simple_spread", algorithm={"name": "masac"})
    file = msgspec.structs.replace(file, flat=file.flat * np.float32(0.1))
    save_policy(tmp_path / "policy.safetensors", file)
    team = shoal.load(tmp_path / "policy.safetensors")
    obs = np.repeat(make_world("simple_spread", copies=1, seed=3).reset(), 2_000, axis=0)
    np.testing.assert_array_equal(team.act(obs), expected(file, obs))
    drawn = team.act(obs, sample=True, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, team.act(obs, sample=True, rng=np.random.default_rng(0)))
    logits, std = Policy(file.run.players, file.run.spec.network, file.flat).outputs(obs[:1])
    assert std is not None
    # Half of the draws are below the median, the action without noise; the deviation of the count is 22.
    below = (drawn < 0.5 + 0.5 * np.tanh(logits)).sum(axis=0)
    np.testing.assert_allclose(below, 1_000, atol=5 * 22)


def test_the_draws_repeat_with_a_seeded_generator_and_go_on_without_one() -> None:
    team = Team(stored("somewhere", MIXED))
    obs = np.random.default_rng(1).normal(size=(500, MIXED.obs_dim)).astype(np.float32)
    first, second = (team.act(obs, sample=True, rng=np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (team.act(obs, sample=True) != team.act(obs, sample=True)).any()
    by_agent = team.act(
        {agent.name: obs[0, agent.obs_slice] for agent in MIXED.agents}, sample=True, rng=np.random.default_rng(7)
    )
    alone = team.act(obs[0], sample=True, rng=np.random.default_rng(7))
    for agent in MIXED.agents:
        if agent.parts == (Categorical(agent.action_dim),):
            assert by_agent[agent.name] == alone[agent.action_slice].argmax()


def test_sampled_soft_vectors_have_gumbels_distribution() -> None:
    """Of two numbers with logits a and b, log(x / (1 - x)) - (a - b) is then logistic, so its sigmoid is uniform."""
    pair = joint_spec([("a", "a", 3, (Box((0.0, 0.0), (1.0, 1.0)),))])
    file = stored("somewhere", pair, network={"policy_hidden": (16,), "head": "soft"})
    one = np.array([[0.3, -0.4, 1.1]], np.float32)
    drawn = Team(file).act(np.repeat(one, 20_000, axis=0), sample=True, rng=np.random.default_rng(2))
    np.testing.assert_allclose(drawn.sum(axis=1), 1.0, rtol=1e-6)
    first, second = Policy(file.run.players, file.run.spec.network, file.flat).logits(one)[0].astype(float)
    odds = np.log(drawn[:, 0].astype(float) / drawn[:, 1]) - (first - second)
    uniform = np.sort(1 / (1 + np.exp(-odds)))
    # The Kolmogorov-Smirnov distance of 20,000 uniform numbers exceeds 0.0138 with a probability of 0.001.
    assert abs(uniform - (np.arange(20_000) + 0.5) / 20_000).max() < 0.0138


def test_forbidden_choices_are_not_drawn() -> None:
    file = stored("somewhere", MASKED)
    obs = np.random.default_rng(3).normal(size=(2_000, MASKED.obs_dim)).astype(np.float32)
    seen = [column for column, _ in MASKED.mask_columns]
    obs[:, seen] = np.random.default_rng(3).random((len(obs), len(seen))) < 0.5
    obs[:, seen[0]] = 1.0  # something is allowed to the first agent
    actions = Team(file).act(obs, sample=True)
    for obs_column, action_column in MASKED.mask_columns[: MASKED.agents[0].parts[0].n]:
        assert not actions[obs[:, obs_column] == 0.0, action_column].any()


@pytest.mark.parametrize(("joint", "choices", "expected"), [(MIXED, "gumbel", True), (MIXED, "epsilon", False)])
def test_a_team_says_whether_it_learnt_by_sampling(joint: AgentsSpec, choices: str, expected: bool) -> None:
    assert Team(stored("somewhere", joint, exploration={"choices": choices})).sampled_choices is expected
    assert not Team(stored("simple_spread")).sampled_choices


def recurrent_team(scenario: str = "simple_spread", **settings: Any) -> PolicyFile:
    return stored(scenario, network={"policy_hidden": (16, 8), "recurrent": "gru"}, **settings)


def replayed(file: PolicyFile, rows: list[Any]) -> Any:
    """Returns the actions after one episode's observations `[copies, sum obs]`, step by step."""
    policy = Policy(file.run.players, file.run.spec.network, file.flat)
    memory = np.zeros((len(rows[0]), policy.memory_dim), np.float32)
    return [policy.act(obs, memory) for obs in rows][-1]


def test_a_recurrent_team_remembers_its_episodes_until_they_end(tmp_path: Path) -> None:
    file = recurrent_team()
    save_policy(tmp_path / "policy.safetensors", file)
    team, world = shoal.load(tmp_path / "policy.safetensors"), make_world("simple_spread", copies=3, seed=3)
    rows = [world.reset()]
    for _ in range(4):
        actions = team.act(rows[-1])
        np.testing.assert_array_equal(actions, replayed(file, rows))
        rows.append(world.step(actions).obs)
    team.reset([1])
    actions = team.act(rows[-1])
    np.testing.assert_array_equal(actions[[0, 2]], replayed(file, rows)[[0, 2]])
    np.testing.assert_array_equal(actions[1], replayed(file, rows[-1:])[1])
    team.reset()
    np.testing.assert_array_equal(team.act(rows[0][:2]), replayed(file, [rows[0][:2]]))
    with pytest.raises(ConfigError, match=r"remembers 2 copies and is given observations of 3"):
        team.act(rows[0])
    with pytest.raises(ConfigError, match=r"reset\(\[5\]\): the team plays 2 copies"):
        team.reset([5])


def test_a_recurrent_team_acts_by_agent_and_draws_its_choices() -> None:
    joint = world_spec("simple_spread", {"continuous_actions": False})
    file = recurrent_team(joint=joint, world={"continuous_actions": False})
    one, other = Team(file), Team(file)
    rows = np.random.default_rng(0).normal(size=(3, joint.obs_dim)).astype(np.float32)
    for row in rows:
        by_agent = one.act({agent.name: row[agent.obs_slice] for agent in joint.agents})
        flat = other.act(row)
        assert list(by_agent.values()) == [int(flat[agent.action_slice].argmax()) for agent in joint.agents]
    drawn = [other.act(rows[0], sample=True, rng=np.random.default_rng(i)) for i in range(40)]
    assert len({action.tobytes() for action in drawn}) > 10
