import datetime as dt
import json
import math
import re

import msgspec
import pytest
from hypothesis import given, settings

from common.errors import ConfigError
from common.run.presets import PRESETS
from common.run.run import Run, from_toml, make_run_spec, parse_assignments, to_toml
from common.spec import Categorical, joint_spec
from common.worlds import world_spec
from tests.common.examples import CHOICES, MIXED, make_run
from tests.common.strategies import run_specs, runs


def spec(*assignments):
    return make_run_spec({"scenario": "somewhere"}, parse_assignments(assignments))


# ---- layers -------------------------------------------------------------------------------------------------------


def test_later_layers_win_key_by_key():
    made = make_run_spec(
        {"scenario": "a", "seed": 1, "replay": {"batch": 8, "min_size": 9}, "world": {"N": 3}},
        {"replay": {"batch": 16, "capacity": 99}, "world": {"local_ratio": 0.5}},
        {"seed": 2, "replay": {"batch": 32}},
    )
    assert (made.seed, made.world) == (2, {"N": 3, "local_ratio": 0.5})
    assert (made.replay.batch, made.replay.min_size, made.replay.capacity) == (32, 9, 99)


def test_layers_are_not_changed_by_merging():
    layers = [{"scenario": "a", "world": {"N": 3}}, {"world": {"N": 5}}, {"world": {"M": 1}}]
    before = msgspec.json.encode(layers)
    make_run_spec(*layers)
    assert msgspec.json.encode(layers) == before


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name):
    assert make_run_spec({"scenario": "a"}, PRESETS[name])


@settings(max_examples=40)
@given(run_specs())
def test_a_spec_is_its_own_layer(made):
    assert make_run_spec(msgspec.to_builtins(made)) == made


# ---- --set --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("world.x=5", 5),
        ("world.x=-5", -5),
        ("world.x=0.5", 0.5),
        ("world.x=1e-3", 1e-3),
        ("world.x=true", True),
        ("world.x=none", None),
        ("world.x=null", None),
        ("world.x={a = {none = true}, b = [1, [2]]}", {"a": {"none": True}, "b": [1, [2]]}),
        ("world.x=2x3", "2x3"),
        ('world.x="True"', "True"),
        ("world.x=legacy", "legacy"),
        ('world.x="a b"', "a b"),
        ("world.x='5'", "5"),
        ("world.x=a=b", "a=b"),
        ("world.x=", ""),
        (" world.x = 5 ", 5),
        ("world.x=[1, 2]", [1, 2]),
    ],
)
def test_values_are_tomls_and_bare_words_are_texts(text, value):
    assert parse_assignments([text]) == {"world": {"x": value}}


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("True", "write true;"),
        ("FALSE", "write false;"),
        ("yes", "write true;"),
        ("off", "write false;"),
        ("None", "write none;"),
        ("NULL", "write none;"),
        ("(3,4)", "write [3, 4];"),
        ("(3, (4, None))", "write [3, [4, {none = true}]];"),
        ("{'a': True}", "write {a = true};"),
        ("3,4", "write [3, 4];"),
        ("007", "write 7;"),
        (".5", "write 0.5;"),
        ("1.", "write 1.0;"),
        ("[none]", "write [{none = true}];"),
        ("[1, [Null, 2]]", "write [1, [{none = true}, 2]];"),
        ("[red, True]", 'write ["red", true];'),
        ("[1", "write a list as [1, 2]"),
        ("'a", "a text in double quotes"),
    ],
)
def test_what_looks_like_another_value_is_refused_with_its_spelling(text, right):
    with pytest.raises(ConfigError) as error:
        parse_assignments([f"world.x={text}"])
    assert f"--set world.x={text}: {text} cannot be read; " in str(error.value)
    assert right in str(error.value)
    assert parse_assignments([f"world.x={json.dumps(text)}"]) == {"world": {"x": text}}


def test_long_assignments_are_shortened_in_messages():
    for text in ("x" * 10_000, f"world.x=[{'1,' * 10_000}", f"world.{'x' * 10_000}=True", f"a.{'x' * 10_000}.b=1"):
        with pytest.raises(ConfigError) as error:
            parse_assignments([text])
        assert len(str(error.value)) < 1_200


def test_options_of_worlds_are_tables_of_any_depth():
    assert parse_assignments(["world.config.a=1", "world.config.b.c=[2]"]) == {
        "world": {"config": {"a": 1, "b": {"c": [2]}}}
    }


@pytest.mark.parametrize(
    "world",
    [{"x": None}, {"x": [None, {"y": None}]}, {"x": {"y": {"z": [1, [2.5, "a", True]]}}}, {"none": True}, {"x": {}}],
)
def test_options_of_worlds_come_back_from_toml_and_messages(world):
    run = make_run(MIXED, world=world)
    assert run.spec.world == world
    assert from_toml(to_toml(run), "run.toml") == run
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(run), type=Run) == run


def test_tuples_in_options_are_lists():
    assert make_run_spec({"scenario": "a", "world": {"x": (1, (2, None))}}).world == {"x": [1, [2, None]]}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "world.x = <object"),
        ([1, {"a": float("nan")}], "world.x[1].a = nan"),
        ({1: 2}, "world.x has the key 1"),
        ("a" * 1_001, "at most 1000 characters"),
        ([[[[[[[[[1]]]]]]]]], "at most 8 levels"),
        (list(range(10_001)), "10000 values in all"),
        (dt.date(2026, 1, 2), "write a date as a text in quotes"),
    ],
)
def test_options_that_are_not_plain_data_are_named(value, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        make_run_spec({"scenario": "a", "world": {"x": value}})


def test_assignments_gather_in_sections_and_the_last_one_wins():
    layer = parse_assignments(["seed=3", "replay.batch=8", "replay.capacity=100", "replay.batch=16"])
    assert layer == {"seed": 3, "replay": {"batch": 16, "capacity": 100}}


@pytest.mark.parametrize("text", ["batch", "=5", ".batch=5", "replay.=5", "a.b.c=5", "world..x=5", ""])
def test_a_malformed_assignment_is_refused_with_the_way_out(text):
    with pytest.raises(ConfigError, match=rf"--set {text}: write section\.key=value"):
        parse_assignments([text])


def test_a_key_of_a_setting_that_is_not_a_table_is_a_config_error():
    with pytest.raises(ConfigError, match=r"--set seed\.x=2: an earlier --set gave seed the value 1"):
        parse_assignments(["seed=1", "seed.x=2"])


# ---- what may be set ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("algorithm.name=hadt3", r"algorithm\.name = 'hadt3': not one of .*; did you mean hatd3\?"),
        ("algorithm.name=agent=MATD3", r"algorithm\.name = 'agent=MATD3': not one of .*; did you mean matd3\?"),
        ("algorithm.name=ppo", r"algorithm\.name = 'ppo': not one of 'maddpg', 'matd3'"),
        ("exploration.kind=gausian", r"exploration\.kind = 'gausian': not one of .*; did you mean gaussian\?"),
        ("replay.batsh=5", r"replay\.batsh is not a setting; did you mean replay\.batch\?"),
        (
            "algorithm.learning_rate=0.001",
            r"did you mean algorithm\.policy_learning_rate or algorithm\.critic_learning_rate\?",
        ),
        ("batch=512", r"batch is not a setting; did you mean replay\.batch\?"),
        ("targets=3", r"targets is not a setting; did you mean .*or world\.targets\?"),
        ("bacth=3", r"bacth is not a setting; did you mean replay\.batch or world\.bacth\?"),
        ("algorithm.batch=512", r"algorithm\.batch is not a setting; did you mean replay\.batch\?"),
        ("network.critic_hidden=128", r"network\.critic_hidden = 128: .*; write \[128, 128\]"),
        ("network.share=agent_0", r"network\.share = 'agent_0': .*; write \[\[\"agent_0\"\]\]"),
        ("reply.batch=5", r"reply is not a setting; did you mean replay\?"),
        ("replay.batch=0", r"replay\.batch = 0: expected `int` >= 1"),
        ("replay.batch=many", r"replay\.batch = 'many': expected `int`, got `str`"),
        ("network.policy_hidden=[64, 0]", r"network\.policy_hidden\[1\] = 0: expected `int` >= 1"),
        ("network.policy_hidden=[]", r"network\.policy_hidden = \[\]: expected `array` of length >= 1"),
        ("seed=-1", r"seed = -1: expected `int` >= 0"),
        ("scenario=5", r"scenario = 5: expected `str`, got `int`"),
        ("replay.capacity=10", r"replay\.min_size = 5000: more than replay\.capacity = 10"),
        ("replay.sampler=prioritised", r"replay\.sampler = 'prioritised': write uniform, or my_module:MySampler"),
        ("replay.sampler=my-module:Recent", r"replay\.sampler = 'my-module:Recent': write uniform, or my_module"),
        ("exploration.theta=1.5", r"exploration\.theta = 1\.5: expected `float` <= 1\.0"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_its_value(assignment, message):
    with pytest.raises(ConfigError, match=message):
        spec(assignment)


def test_a_sampler_of_your_own_excludes_priorities():
    assert spec("replay.sampler=my_module:Recent").replay.sampler == "my_module:Recent"
    with pytest.raises(ConfigError, match=r"replay\.priority_exponent = 0\.6: only the sampler uniform"):
        spec("replay.sampler=my_package.my_module:Recent", "replay.priority_exponent=0.6")


def test_the_ratio_of_samples_to_inserts_is_a_number_or_auto():
    free = spec("replay.samples_per_insert=auto", "replay.batch=100").replay
    assert (free.is_auto, free.min_ratio, free.max_ratio) == (True, 10.0, 100.0)
    fixed = spec("replay.samples_per_insert=8").replay
    assert (fixed.is_auto, fixed.min_ratio, fixed.max_ratio) == (False, 8.0, 8.0)
    with pytest.raises(ConfigError, match=r"replay\.samples_per_insert = 'automatic': .*auto"):
        spec("replay.samples_per_insert=automatic")


NUMBERS = [
    "algorithm.policy_learning_rate",
    "algorithm.gradient_clip",
    "exploration.scale",
    "replay.samples_per_insert",
    "replay.error_buffer",
    "budget.seconds",
    "world.ratio",
]


@pytest.mark.parametrize("setting", NUMBERS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_no_setting_is_infinite_or_no_number(setting, value):
    """JSON, in which the policy's file keeps its run, has no word for these."""
    with pytest.raises(ConfigError, match=setting.replace(".", r"\.")):
        spec(f"{setting}={value}")


@pytest.mark.parametrize("value", ["0", "-1", "5e-324"])
def test_a_divisor_is_never_so_small_that_a_quotient_overflows(value):
    with pytest.raises(ConfigError, match=r"replay\.samples_per_insert = .*: expected `float` >= 1e-12"):
        spec(f"replay.samples_per_insert={value}")


def test_no_integer_is_larger_than_the_wire_carries():
    with pytest.raises(ConfigError, match=r"world\.N = 2361183241434822606848"):
        spec(f"world.N={2**71}")


# ---- run.toml -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=40)
@given(runs())
def test_a_run_comes_back_from_its_toml(run):
    assert from_toml(to_toml(run), "run.toml") == run


@pytest.mark.slow
@settings(max_examples=40)
@given(runs())
def test_a_run_comes_back_from_its_json(run):
    back = msgspec.json.decode(msgspec.json.encode(run), type=Run)
    assert back == run
    assert back.data_hash == run.data_hash


@pytest.mark.parametrize("text", ["", "x", "id = 5", "id = 'a'\n[spec]\nscenario = 'a'\n", "\0"])
def test_a_file_that_is_no_run_is_named(text):
    with pytest.raises(ConfigError, match=r"here/run\.toml is not a run written by this version of Shoal"):
        from_toml(text, "here/run.toml")


# ---- data_hash ----------------------------------------------------------------------------------------------------


def test_the_data_hash_names_world_and_team():
    base = make_run(MIXED, world={"N": 3})
    assert len(base.data_hash) == 16
    others = [
        make_run(MIXED, world={"N": 4}),
        make_run(MIXED, world={"N": 3, "dynamics": "legacy"}),
        make_run(MIXED),
        make_run(CHOICES, world={"N": 3}),
        make_run(joint_spec([("leader", "green", 7, (Categorical(3),))]), world={"N": 3}),
        make_run(MIXED, world={"N": 3}, scenario="elsewhere"),
    ]
    assert len({run.data_hash for run in [base, *others]}) == len(others) + 1


def test_the_data_hash_of_a_world_stays_what_it_was():
    """Chunks in Redis and weights of earlier runs carry it; no change of the types may change it."""
    run = Run("x", make_run_spec({"scenario": "simple_tag"}), world_spec("simple_tag"))
    assert run.data_hash == "9389dfa13b6281cc"


def test_the_data_hash_is_the_same_for_other_ways_to_learn_from_the_same_data():
    base = make_run(MIXED, world={"N": 3, "M": 4})
    other = make_run(
        MIXED,
        world={"M": 4, "N": 3},
        seed=5,
        algorithm={"policy_learning_rate": 0.5},
        network={"policy_hidden": [8]},
        replay={"batch": 16},
        exploration={"scale": 0.9},
        budget={"steps": 7},
    )
    assert other.data_hash == base.data_hash
    assert msgspec.structs.replace(base, id="another").data_hash == base.data_hash


def test_defaults_are_finite_and_within_their_own_bounds():
    made = make_run_spec({"scenario": "a"})
    assert msgspec.convert(msgspec.to_builtins(made), type(made)) == made
    assert math.isfinite(made.replay.samples_per_insert)
