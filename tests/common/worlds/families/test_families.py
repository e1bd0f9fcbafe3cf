"""Names of worlds: what each family makes of them, and what it says about names that mean nothing."""

import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import pytest

from common.errors import ConfigError
from common.worlds import is_foreign, make_world
from common.worlds.families import FAMILIES, family_of

has_mamujoco = pytest.mark.skipif(find_spec("gymnasium_robotics") is None, reason="gymnasium-robotics is not installed")


def play(name, steps=3, **options):
    world = make_world(name, seed=0, options=options)
    world.reset()
    for _ in range(steps):
        step = world.step(np.zeros((1, world.spec.action_dim), np.float32))
    world.close()
    return world.spec, step


def test_a_prefix_names_the_family():
    assert family_of("mamujoco:Ant-2x4").prefix == "mamujoco"
    for name in ("simple_spread", "mpe2:simple_spread", "foo:bar", "pettingzoo", "pettingzoox:a"):
        assert family_of(name) is None
        assert not is_foreign(name)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.prefix)
def test_an_example_belongs_to_its_family(family):
    assert family_of(family.example) is family
    assert not family.meaning.endswith(".")
    assert family.package or family.installed_version() == ""


def test_an_unknown_prefix_names_the_families():
    with pytest.raises(ConfigError, match=r"no scenario 'foo:bar'.*pettingzoo:NAME.*gymnasium:NAME.*shoal scenarios"):
        make_world("foo:bar")


@pytest.mark.parametrize("name", ["sisl/pursuit-v5", "sisl/pursuit_v5", "pettingzoo.sisl.pursuit_v5"])
@pytest.mark.slow
def test_a_registry_id_and_its_old_module_are_the_same_world_without_a_warning(name, recwarn):
    spec, _ = play(f"pettingzoo:{name}", n_pursuers=2)
    assert [agent.name for agent in spec.agents] == ["pursuer_0", "pursuer_1"]
    assert not [w for w in recwarn if "deprecated in favor of" in str(w.message)]


def test_the_ids_of_the_registry_are_known():
    names = family_of("pettingzoo:x").names()
    assert "pettingzoo:sisl/pursuit-v5" in names
    assert "pettingzoo:classic/tictactoe-v3" in names


def test_an_id_that_a_package_registers(monkeypatch):
    import pettingzoo

    from tests.common.worlds.adapters.test_pettingzoo_world import Falling

    monkeypatch.setitem(sys.modules, "falling_package", ModuleType("falling_package"))
    pettingzoo.register("parallel", "falling/hawk-v2", entry_point=Falling, kwargs={"fault": None})
    try:
        assert len(play("pettingzoo:falling_package:falling/hawk-v2", 1)[0].agents) == 3
        with pytest.raises(ConfigError, match="has no option 'colour'; known: fault"):
            play("pettingzoo:falling/hawk-v2", colour=1)
    finally:
        del pettingzoo.parallel_registry["falling/hawk-v2"]


def test_pendulum_is_a_world_of_one_agent():
    spec, step = play("gymnasium:Pendulum-v1", 4, max_episode_steps=4, g=9.0)
    assert [(a.name, a.obs_dim, a.action_dim) for a in spec.agents] == [("agent_0", 3, 1)]
    assert step.episode_over[0]
    assert step.discount[0, 0] == 1.0


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("Pendulum-v1", {"gg": 9}, "has no option 'gg'; did you mean g"),
        ("Pendulum-v0", {}, r"no environment 'Pendulum-v0' registered; did you mean Pendulum-v1\?$"),
        ("CartPole", {}, "did you mean CartPole-v0 or CartPole-v1"),
        ("Pendlum-v1", {}, r"did you mean .*Pendulum-v1.*gymnasium:my_package:MyEnv-v0\.$"),
        ("Zqzqzq-v0", {}, r"registered; name the package that registers it"),
        ("no_such_package:Env-v0", {}, "cannot import no_such_package"),
    ],
)
def test_what_gymnasium_does_not_have_is_refused_with_the_way_out(name, options, said):
    with pytest.raises(ConfigError, match=f"^gymnasium:{name}[: ].*{said}"):
        play(f"gymnasium:{name}", **options)


def test_an_id_of_a_package_that_registers_it(tmp_path, monkeypatch):
    (tmp_path / "rowers.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Rowers-v0', 'tests.common.worlds.adapters.test_conversion:Rowing', max_episode_steps=2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import gymnasium

    try:
        spec, step = play("gymnasium:rowers:Rowers-v0", 2)
    finally:
        gymnasium.registry.pop("Rowers-v0", None)
        sys.modules.pop("rowers", None)
    assert len(spec.agents) == 2
    assert step.episode_over[0]


def test_an_old_version_of_a_module_of_pettingzoo_names_the_new_one():
    with pytest.raises(ConfigError, match=r"no 'sisl/pursuit_v4'; did you mean sisl/pursuit-v5\?$"):
        make_world("pettingzoo:pettingzoo.sisl.pursuit_v4")


@pytest.mark.skipif(find_spec("mujoco") is not None, reason="mujoco is installed")
def test_a_missing_dependency_of_gymnasium_is_its_own_words():
    with pytest.raises(ConfigError, match=r"MuJoCo is not installed, run `pip install \"gymnasium\[mujoco\]\"`$"):
        make_world("gymnasium:HalfCheetah-v5")


@pytest.mark.skipif(find_spec("lbforaging") is not None, reason="lbforaging is installed")
def test_a_known_package_that_is_missing_is_named():
    with pytest.raises(ConfigError, match=r"install it with: pip install lbforaging$"):
        play("gymnasium:Foraging-8x8-2p-3f-v3")


@pytest.mark.skipif(find_spec("lbforaging") is None, reason="lbforaging is not installed")
def test_foraging():
    spec, _ = play("gymnasium:Foraging-8x8-2p-3f-v3")
    assert [agent.obs_dim for agent in spec.agents] == [15, 15]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("HalfCheetah-2x7", r"HalfCheetah is divided as HalfCheetah-2x3, HalfCheetah-6x1\.$"),
        ("Hopper", r"Hopper is divided as Hopper-3x1\.$"),
        ("Cheetah-2x3", "did you mean HalfCheetah-2x3"),
        ("Zzz", "known: Ant-2x4, Ant-2x4d"),
        ("ManySegmentAnt", "write ManySegmentAnt-AGENTSxSEGMENTS"),
    ],
)
def test_what_mamujoco_does_not_have_is_refused_with_the_list(name, said):
    with pytest.raises(ConfigError, match=f"^mamujoco:{name}: .*{said}"):
        make_world(f"mamujoco:{name}")


@pytest.mark.skipif(find_spec("gymnasium_robotics") is not None, reason="gymnasium-robotics is installed")
def test_mamujoco_that_is_missing_says_how_to_install_it():
    with pytest.raises(ConfigError, match=r"install it with: pip install 'shoal\[mamujoco\]'$"):
        make_world("mamujoco:HalfCheetah-2x3")


@has_mamujoco
@pytest.mark.parametrize(
    ("name", "sizes"),
    [("HalfCheetah-2x3", [12, 12]), ("HalfCheetah-6x1", [9, 9, 8, 9, 9, 8]), ("Hopper-3x1", [8, 9, 8])],
)
def test_mamujoco(name, sizes):
    assert [agent.obs_dim for agent in play(f"mamujoco:{name}")[0].agents] == sizes


@has_mamujoco
def test_options_of_mamujoco():
    assert [agent.obs_dim for agent in play("mamujoco:HalfCheetah-2x3", agent_obsk=0)[0].agents] != [12, 12]
    with pytest.raises(ConfigError, match="decides 'scenario'"):
        make_world("mamujoco:HalfCheetah-2x3", scenario="Ant")


def test_the_table_needs_no_environment_to_be_imported():
    code = (
        "import sys, common.worlds, common.worlds.families as f\n"
        "[family.installed_version() for family in f.FAMILIES]\n"
        "assert not {'pettingzoo', 'gymnasium', 'mujoco'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
