import typing

import msgspec
import pytest
from msgspec import inspect

from common.wire.messages import FromPeer, Message, ToPeer

FROM_PEER, TO_PEER = typing.get_args(FromPeer), typing.get_args(ToPeer)


def test_every_message_goes_one_way():
    assert set(FROM_PEER) | set(TO_PEER) == set(Message.__subclasses__())
    assert not set(FROM_PEER) & set(TO_PEER)


def test_tags_identify_messages():
    tags = [kind.__struct_config__.tag for kind in (*FROM_PEER, *TO_PEER)]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize("kind", [*FROM_PEER, *TO_PEER], ids=lambda kind: kind.__name__)
def test_messages_are_frozen_and_take_no_unknown_field(kind):
    assert kind.__struct_config__.frozen
    assert kind.__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize("kind", FROM_PEER, ids=lambda kind: kind.__name__)
def test_whatever_a_stranger_may_send_is_bounded(kind):
    """Every number has both bounds and every text a length, so that no counter overflows and no log is flooded."""
    allowed_nan = {"critic_loss", "policy_loss"}
    for field in inspect.type_info(kind).fields:
        if field.name in allowed_nan or isinstance(field.type, inspect.StructType):
            continue
        for info in _leaves(field.type):
            match info:
                case inspect.IntType() | inspect.FloatType():
                    assert info.ge is not None or info.gt is not None, f"{field.name} has no lower bound"
                    assert info.le is not None or info.lt is not None, f"{field.name} has no upper bound"
                case inspect.StrType() | inspect.BytesType():
                    assert info.max_length is not None, f"{field.name} has no longest text"


def _leaves(info):
    match info:
        case inspect.VarTupleType():
            return _leaves(info.item_type)
        case inspect.UnionType():
            return [leaf for one in info.types for leaf in _leaves(one)]
        case _:
            return [info]


def test_counters_fit_the_wires_integers():
    limits = [info.le for kind in (*FROM_PEER, *TO_PEER) for info in _integers(kind)]
    assert limits
    assert max(limits) < 2**63


def _integers(kind):
    fields = [field.type for field in inspect.type_info(kind).fields]
    return [info for info in fields if isinstance(info, inspect.IntType) and info.le is not None]


def test_a_message_is_compared_by_value():
    kind = next(kind for kind in FROM_PEER if kind.__name__ == "Bye")
    assert kind("a", 1) == kind("a", 1) != kind("a", 2)
    assert msgspec.to_builtins(kind("a", 1)) == {"kind": "bye", "actor": "a", "incarnation": 1}
