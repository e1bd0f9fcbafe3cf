"""Hypothesis strategies that read msgspec's types: any struct, within the bounds its fields state."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from common.run.players import ALGORITHMS
from common.run.run import AlgorithmSpec, NetworkSpec, ReplaySpec, Run, RunSpec
from common.spec import AgentsSpec, Box, joint_spec

_FLOAT_LIMIT = 1e300


def instances(kind: Any) -> st.SearchStrategy[Any]:
    """Returns a strategy of valid values of a type."""
    return _of(inspect.type_info(kind))


def _of(info: Any) -> st.SearchStrategy[Any]:
    for kind, make in _MAKERS.items():
        if type(info).__name__ == kind:
            return make(info)
    raise NotImplementedError(info)


def _struct(info: inspect.StructType) -> st.SearchStrategy[Any]:
    if info.cls in _WHOLE:
        return _WHOLE[info.cls]()
    return st.builds(info.cls, **{field.name: _of(field.type) for field in info.fields})


def _integers(info: inspect.IntType) -> st.SearchStrategy[int]:
    high = info.le if info.le is not None else None if info.lt is None else info.lt - 1
    return st.integers(-(2**63) if info.ge is None else info.ge, 2**63 - 1 if high is None else high)


def _floats(info: inspect.FloatType) -> st.SearchStrategy[float]:
    low, exclude_low = (info.gt, True) if info.gt is not None else (info.ge, False)
    return st.floats(
        -_FLOAT_LIMIT if low is None else low, _FLOAT_LIMIT if info.le is None else info.le, exclude_min=exclude_low
    )


def _texts(info: inspect.StrType) -> st.SearchStrategy[str]:
    if info.pattern:
        return st.from_regex(info.pattern, fullmatch=True).map(lambda text: (text or "x")[: info.max_length])
    longest = min(info.max_length or 30, 30)
    return st.text(st.characters(codec="utf-8"), min_size=info.min_length or 0, max_size=longest)


_MAKERS: dict[str, Any] = {
    "StructType": _struct,
    "IntType": _integers,
    "FloatType": _floats,
    "StrType": _texts,
    "BytesType": lambda info: st.binary(max_size=min(info.max_length or 30, 30)),
    "BoolType": lambda _: st.booleans(),
    "NoneType": lambda _: st.none(),
    "LiteralType": lambda info: st.sampled_from(info.values),
    "UnionType": lambda info: st.one_of([_of(one) for one in info.types]),
    "VarTupleType": lambda info: st.lists(
        _of(info.item_type), min_size=info.min_length or 0, max_size=min(info.max_length or 4, 4)
    ).map(tuple),
    "AnyType": lambda info: st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63) + 1, 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
    "DictType": lambda info: st.dictionaries(_of(info.key_type), _of(info.value_type), max_size=4),
}


def boxes() -> st.SearchStrategy[Box]:
    """Returns boxes with any finite bounds."""
    bounds = st.tuples(*(st.floats(-1e6, 1e6, width=32, allow_subnormal=False),) * 2).map(sorted)
    return st.lists(bounds, min_size=1, max_size=3).map(
        lambda pairs: Box(tuple(low for low, _ in pairs), tuple(high for _, high in pairs))
    )


def teams() -> st.SearchStrategy[AgentsSpec]:
    """Returns teams of one to four agents with any mix of actions."""
    from common.spec import Categorical

    parts = st.lists(boxes() | st.builds(Categorical, st.integers(1, 5)), min_size=1, max_size=3).map(tuple)
    agent = st.tuples(st.sampled_from(["red", "blue"]), st.integers(0, 6), parts)
    return st.lists(agent, min_size=1, max_size=4).map(
        lambda agents: joint_spec([(f"agent_{i}", *agent) for i, agent in enumerate(agents)])
    )


def run_specs() -> st.SearchStrategy[RunSpec]:
    """Returns specs of runs whose replay can hold what sampling needs."""
    fields = {field.name: _of(field.type) for field in inspect.type_info(RunSpec).fields}

    network = {field.name: _of(field.type) for field in inspect.type_info(NetworkSpec).fields}
    network["critic"] = st.sampled_from(["mlp", "set", "attention", "a.b:C"])
    fields["network"] = st.builds(NetworkSpec, **network)
    fields["replay"] = st.builds(_valid_replay, fields["replay"], st.sampled_from(["uniform", "a.b:C"]))
    return st.builds(_valid_spec, st.fixed_dictionaries(fields))


def _valid_spec(fields: dict[str, Any]) -> RunSpec:
    """Returns a spec in which user critics learn values, and recurrent policies from sequences."""
    network, algorithm, replay = fields["network"], fields["algorithm"], fields["replay"]
    if network.is_user_critic and algorithm.critic_loss == "hl_gauss":
        algorithm = msgspec.structs.replace(algorithm, critic_loss="huber")
    if network.recurrent:
        network = msgspec.structs.replace(network, critic="mlp")
        steps = replay.sequence_steps
        batch = steps * max(1, replay.batch // steps)
        replay = msgspec.structs.replace(replay, batch=batch, sampler="uniform", priority_exponent=0.0)
    return RunSpec(**{**fields, "network": network, "algorithm": algorithm, "replay": replay})


def _valid_replay(replay: ReplaySpec, sampler: str) -> ReplaySpec:
    exponent = replay.priority_exponent if sampler == "uniform" else 0.0
    min_size = min(replay.min_size, replay.capacity)
    return msgspec.structs.replace(replay, min_size=min_size, sampler=sampler, priority_exponent=exponent)


def algorithms() -> st.SearchStrategy[AlgorithmSpec]:
    """Returns settings of the update with algorithms that there are."""
    fields = {field.name: _of(field.type) for field in inspect.type_info(AlgorithmSpec).fields}
    fields["name"] = st.sampled_from([*ALGORITHMS, "red=joint,blue=iddpg"])
    return st.builds(AlgorithmSpec, **fields)


def runs() -> st.SearchStrategy[Run]:
    """Returns runs over any team."""
    fields = {field.name: field.type for field in inspect.type_info(Run).fields}
    return st.builds(Run, _of(fields["id"]), run_specs(), teams())


_WHOLE: dict[type, Any] = {Box: boxes, AgentsSpec: teams, RunSpec: run_specs, Run: runs, AlgorithmSpec: algorithms}
"""Structs whose fields depend on each other."""
