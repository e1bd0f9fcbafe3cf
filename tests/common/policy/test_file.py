import json
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from common.errors import ConfigError
from common.policy.file import PolicyFile, load_policy, save_policy
from common.policy.network import Policy
from tests.common.examples import CHOICES, MIXED, make_run, random_weights

RUN = make_run(MIXED, network={"policy_hidden": [4, 3]})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "policy.safetensors"


@pytest.fixture
def stored(path):
    policy = PolicyFile(RUN, 7, 700, random_weights(RUN))
    save_policy(path, policy)
    return policy


def metadata(run=RUN, **changes):
    return {"run": msgspec.json.encode(run).decode(), "version": "1", "updates": "2", **changes}


def test_policies_come_back_as_they_were(path, stored):
    back = load_policy(path)
    assert (back.run, back.version, back.updates) == (RUN, 7, 700)
    assert back.flat.dtype == np.float32
    np.testing.assert_array_equal(back.flat, stored.flat)


def test_the_tensors_are_named_and_shaped_for_other_programs(path, stored):
    tensors = load(path.read_bytes())
    assert {name: tensor.shape for name, tensor in tensors.items() if name.startswith("leader/")} == {
        "leader/0/weight": (7, 4),
        "leader/0/bias": (4,),
        "leader/1/weight": (4, 3),
        "leader/1/bias": (3,),
        "leader/2/weight": (3, 7),
        "leader/2/bias": (7,),
    }
    obs = np.random.default_rng(0).normal(size=(1, MIXED.obs_dim)).astype(np.float32)
    x = obs[:, MIXED.agents[1].obs_slice]
    for i in range(3):
        x = x @ tensors[f"scout_0/{i}/weight"] + tensors[f"scout_0/{i}/bias"]
        x = np.maximum(x, 0.0) if i < 2 else x
    logits = Policy(RUN.players, RUN.spec.network, stored.flat).logits(obs)
    np.testing.assert_allclose(logits[:, MIXED.agents[1].action_slice], x, rtol=1e-5)


def test_layer_norms_have_a_gain_and_a_bias_each(path):
    run = make_run(MIXED, network={"policy_hidden": [4, 3], "activation": "tanh", "policy_layer_norm": True})
    policy = PolicyFile(run, 7, 700, random_weights(run))
    save_policy(path, policy)
    tensors = load(path.read_bytes())
    assert {name: tensor.shape for name, tensor in tensors.items() if name.startswith("leader/")} == {
        "leader/0/weight": (7, 4),
        "leader/0/bias": (4,),
        "leader/0/norm_gain": (4,),
        "leader/0/norm_bias": (4,),
        "leader/1/weight": (4, 3),
        "leader/1/bias": (3,),
        "leader/1/norm_gain": (3,),
        "leader/1/norm_bias": (3,),
        "leader/2/weight": (3, 7),
        "leader/2/bias": (7,),
    }
    back = load_policy(path)
    np.testing.assert_array_equal(back.flat, policy.flat)
    assert back.run.spec.network.activation == "tanh"
    del tensors["leader/1/norm_gain"]
    path.write_bytes(save(tensors, metadata(run)))
    with pytest.raises(ConfigError, match="leader/1/norm_gain"):
        load_policy(path)


def test_a_file_from_before_activations_has_relu_networks(path, stored):
    run = msgspec.to_builtins(RUN)
    del run["spec"]["network"]["activation"], run["spec"]["network"]["policy_layer_norm"]
    path.write_bytes(save(load(path.read_bytes()), metadata(run)))
    back = load_policy(path)
    assert back.run == RUN
    assert (back.run.spec.network.activation, back.run.spec.network.policy_layer_norm) == ("relu", False)
    np.testing.assert_array_equal(back.flat, stored.flat)


def test_a_missing_file_says_when_there_will_be_one(path):
    with pytest.raises(ConfigError, match=r"does not exist\. The learner writes it with its first checkpoint"):
        load_policy(path)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\0" * 64, struct.pack("<Q", 2**62) + b"{}"])
def test_a_file_that_is_none_is_named(path, content):
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{path} is not a policy file"):
        load_policy(path)


def test_a_directory_is_not_a_file(path):
    path.mkdir()
    with pytest.raises(ConfigError, match="is a directory"):
        load_policy(path)


def test_another_programs_file_is_named(path):
    path.write_bytes(save({"weight": np.zeros(3, np.float32)}, {"format": "pt"}))
    with pytest.raises(ConfigError, match="is not a policy file of Shoal: its metadata has no 'run'"):
        load_policy(path)


@pytest.mark.parametrize(
    "changes", [{"run": "{}"}, {"run": "x"}, {"version": "many"}, {"updates": ""}, {"run": '{"id": NaN}'}]
)
def test_damaged_metadata_is_named(path, stored, changes):
    path.write_bytes(save(load(path.read_bytes()), metadata(**changes)))
    with pytest.raises(ConfigError, match="is not a policy file of this version of Shoal"):
        load_policy(path)


def test_tensors_of_another_shape_are_refused_even_where_their_sizes_add_up(path, stored):
    tensors = load(path.read_bytes())
    tensors["leader/0/weight"] = np.ascontiguousarray(tensors["leader/0/weight"].T)
    path.write_bytes(save(tensors, metadata()))
    with pytest.raises(ConfigError, match=r"leader/0/weight is float32 \(4, 7\), not finite float32 \(7, 4\)"):
        load_policy(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.astype(np.float64),
        lambda tensor: tensor.view(np.int32),
        lambda tensor: np.full_like(tensor, np.nan),
        lambda tensor: np.full_like(tensor, np.inf),
    ],
    ids=["float64", "int32", "nan", "inf"],
)
def test_tensors_that_cannot_be_acted_with_are_refused(path, stored, change):
    tensors = load(path.read_bytes())
    tensors["scout_1/2/bias"] = change(tensors["scout_1/2/bias"])
    path.write_bytes(save(tensors, metadata()))
    with pytest.raises(ConfigError, match="scout_1/2/bias"):
        load_policy(path)


def test_policies_of_another_team_are_refused(path, stored):
    path.write_bytes(save(load(path.read_bytes()), metadata(make_run(CHOICES))))
    with pytest.raises(ConfigError, match="is not a policy file"):
        load_policy(path)


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_but_never_more(tmp_path, stored, data):
    path = tmp_path / "damaged.safetensors"
    content = bytearray((tmp_path / "policy.safetensors").read_bytes())
    header_bytes = 8 + struct.unpack_from("<Q", content)[0]
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, header_bytes - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        policy = load_policy(path)
    except ConfigError:
        return
    Policy(policy.run.players, policy.run.spec.network, policy.flat)


def test_the_run_in_the_metadata_is_plain_json(path, stored):
    length = struct.unpack_from("<Q", path.read_bytes())[0]
    header = json.loads(path.read_bytes()[8 : 8 + length])
    assert json.loads(header["__metadata__"]["run"])["spec"]["scenario"] == "somewhere"
