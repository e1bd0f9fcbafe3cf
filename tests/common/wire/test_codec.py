import math

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ProtocolError
from common.wire.codec import MAX_HEADER_BYTES, checksum, decode_from_peer, decode_to_peer, encode
from common.wire.messages import ActorReport, Bye, Chunk, FromPeer, Open, Status, ToPeer
from tests.common.examples import make_run
from tests.common.strategies import instances

DECODERS = [decode_from_peer, decode_to_peer]


@pytest.mark.slow
@given(instances(FromPeer), st.none() | st.binary(max_size=40))
def test_every_message_of_a_peer_comes_back_as_it_was(message, payload):
    assert decode_from_peer(encode(message, payload)) == (message, payload)


@pytest.mark.slow
@given(instances(ToPeer), st.none() | st.binary(max_size=40))
def test_every_message_to_a_peer_comes_back_as_it_was(message, payload):
    assert decode_to_peer(encode(message, payload)) == (message, payload)


def test_a_payload_is_passed_on_without_a_copy():
    block = np.arange(8, dtype=np.uint8)
    *_, payload = encode(Bye("a", 1), block.data)
    assert np.shares_memory(np.frombuffer(payload, np.uint8), block)
    assert np.shares_memory(np.frombuffer(decode_from_peer(encode(Bye("a", 1), block.data))[1], np.uint8), block)


@pytest.mark.parametrize("decode", DECODERS)
@given(st.lists(st.binary(max_size=80), max_size=4))
def test_random_frames_are_refused(decode, frames):
    with pytest.raises(ProtocolError):
        decode(frames)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=8))
    | st.builds(msgpack.Timestamp, st.integers(-(2**33), 2**33), st.integers(0, 10**9 - 1)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.binary(max_size=8), inner),
    max_leaves=8,
)


@pytest.mark.slow
@pytest.mark.parametrize("decode", DECODERS)
@given(values)
def test_msgpack_that_is_no_message_is_refused(decode, value):
    with pytest.raises(ProtocolError):
        decode([msgpack.packb(value)])


@pytest.mark.slow
@given(instances(FromPeer), st.data(), values)
def test_any_field_of_another_kind_is_refused_or_valid_but_never_more(message, data, value):
    fields = msgspec.to_builtins(message)
    name = data.draw(st.sampled_from(sorted(fields)))
    frame = msgpack.packb({**fields, name: value})
    try:
        decoded, _ = decode_from_peer([frame])
    except ProtocolError:
        return
    assert decode_from_peer(encode(decoded)) == (decoded, None), "what is let in is a valid message"


@settings(max_examples=50)
@given(instances(FromPeer), st.data())
def test_a_header_cut_short_is_refused(message, data):
    [header] = encode(message)
    with pytest.raises(ProtocolError):
        decode_from_peer([header[: data.draw(st.integers(0, len(header) - 1))]])


@settings(max_examples=50)
@given(instances(FromPeer), st.binary(min_size=1, max_size=4))
def test_a_header_with_something_behind_it_is_refused(message, rest):
    with pytest.raises(ProtocolError):
        decode_from_peer([encode(message)[0] + rest])


@settings(max_examples=50)
@given(instances(FromPeer), st.text(max_size=8))
def test_a_field_that_is_not_known_is_refused(message, name):
    fields = msgspec.to_builtins(message)
    with pytest.raises(ProtocolError):
        decode_from_peer([msgpack.packb({**fields, f"{name}?": 1})])


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "bye", "actor": "a", "incarnation": 2**62 + 1},
        {"kind": "bye", "actor": "a", "incarnation": -1},
        {"kind": "bye", "actor": "a", "incarnation": 2**64 - 1},
        {"kind": "bye", "actor": "a", "incarnation": 1.5},
        {"kind": "bye", "actor": "a", "incarnation": "1"},
        {"kind": "bye", "actor": "a", "incarnation": None},
        {"kind": "bye", "actor": "", "incarnation": 1},
        {"kind": "bye", "actor": "a" * 121, "incarnation": 1},
        {"kind": "bye", "actor": b"a", "incarnation": 1},
        {"kind": "bye", "actor": "a\n2026 ERROR forged", "incarnation": 1},
        {"kind": "bye", "actor": "a\n", "incarnation": 1},
        {"kind": "bye", "actor": "a\x1b[2J", "incarnation": 1},
        {"kind": "bye", "actor": "a\u2028", "incarnation": 1},
        {"kind": "bye", "actor": "a"},
        {"kind": "good bye", "actor": "a", "incarnation": 1},
        {"kind": 7, "actor": "a", "incarnation": 1},
        {"actor": "a", "incarnation": 1},
        {"kind": "hello", "actor": "a", "incarnation": 1, "acked": 2**53 + 1, "data_hash": ""},
        {"kind": "sample", "request": 1, "count": 0},
        {"kind": "sample", "request": 1, "count": 65_537},
    ],
    ids=str,
)
def test_a_value_out_of_bounds_is_refused(fields):
    with pytest.raises(ProtocolError, match="header"):
        decode_from_peer([msgpack.packb(fields)])


@pytest.mark.parametrize("field", ["return_sum", "return_sums", "weights_age_s", "waited_s"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_a_report_of_figures_that_would_spoil_every_mean_is_refused(field, value):
    report = msgspec.to_builtins(ActorReport("a", 1, 2, 3, 4.0, (4.0,), 5, 6.0, "", 7.0, ""))
    report[field] = (value,) if field == "return_sums" else value
    with pytest.raises(ProtocolError):
        decode_from_peer([msgpack.packb(report)])


@settings(max_examples=10)
@given(instances(Status))
def test_a_status_may_say_that_there_is_no_return_yet(status):
    [header] = encode(msgspec.structs.replace(status, return_mean=float("nan")))
    assert math.isnan(decode_to_peer([header])[0].return_mean)


@pytest.mark.parametrize("parts", [0, 3, 4, 1000])
def test_a_message_of_another_number_of_parts_is_refused(parts):
    with pytest.raises(ProtocolError, match=f"{parts} frames"):
        decode_from_peer([encode(Bye("a", 1))[0]] * parts)


def test_a_header_is_bounded_before_it_is_opened():
    padded = msgpack.packb({"kind": "refused", "reason": "x" * MAX_HEADER_BYTES})
    with pytest.raises(ProtocolError, match=f"header of {len(padded)} bytes"):
        decode_to_peer([padded])


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a", b"\xdc\x00\x01"])
@pytest.mark.parametrize("depth", [100, 1_000, 5_000, 100_000])
def test_deep_nesting_is_refused(opening, depth):
    with pytest.raises(ProtocolError):
        decode_from_peer([(opening * depth + b"\xc0")[:MAX_HEADER_BYTES]])


@pytest.mark.parametrize(
    "lie", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"]
)
def test_sizes_that_are_only_claimed_allocate_nothing(lie):
    with pytest.raises(ProtocolError):
        decode_from_peer([lie])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["joint", "agents"], []),
        (["joint", "agents", 0, "obs_dim"], 2**60),
        (["joint", "agents", 0, "obs_dim"], -1),
        (["joint", "agents", 0, "obs_start"], 3),
        (["joint", "agents", 1, "name"], "leader"),
        (["joint", "agents", 0, "parts"], []),
        (["joint", "agents", 0, "parts", 0, "n"], 2**61),
        (["joint", "agents", 0, "parts", 0, "n"], 0),
        (["joint", "agents", 0, "parts", 1, "low"], [0.0]),
        (["joint", "agents", 0, "parts", 1, "high"], [float("inf"), 1.0]),
        (["joint", "agents", 0, "parts", 1, "high"], [float("nan"), 1.0]),
        (["joint", "agents", 0, "parts", 1, "high"], [-5.0, 1.0]),
        (["spec", "network", "policy_hidden"], [2**40]),
        (["spec", "replay", "min_size"], 10**9),
        (["spec", "exploration", "scale"], float("inf")),
        (["spec", "world", "N"], float("nan")),
        (["id"], "x" * 65),
        (["id"], ""),
        (["id"], "../a"),
        (["id"], "a\n"),
    ],
    ids=str,
)
def test_a_run_that_contradicts_itself_or_fits_no_record_is_refused(path, value):
    message = msgspec.to_builtins(Open("learner", make_run(world={"N": 3})))
    assert decode_from_peer([msgpack.packb(message)])
    *way, last = path
    table = message["run"]
    for step in way:
        if isinstance(table[step], tuple):
            table[step] = list(table[step])
        table = table[step]
    table[last] = value
    with pytest.raises(ProtocolError):
        decode_from_peer([msgpack.packb(message)])


def test_the_checksum_is_crc32c():
    assert checksum(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4's polynomial; the catalogue's check value
    assert checksum(memoryview(b"123456789")) == checksum(b"123456789")


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_checksums_are_words(seed):
    payload = np.random.default_rng(seed).bytes(64)
    assert (
        Chunk("a", 1, 1, 1, 0, checksum(payload), "")
        == decode_from_peer(encode(Chunk("a", 1, 1, 1, 0, checksum(payload), "")))[0]
    )
