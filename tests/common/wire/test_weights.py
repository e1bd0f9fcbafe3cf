import hashlib
import struct

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.errors import ProtocolError
from common.wire.codec import MAX_PEER_FRAME_BYTES
from common.wire.weights import MAGIC, WeightsHeader, pack_weights, unpack_weights
from tests.common.examples import make_frame, make_header, make_run, random_weights
from tests.common.strategies import instances

RUN = make_run()
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def signed(body):
    """Returns a frame with a digest that fits whatever it holds."""
    return body + hashlib.blake2b(body, digest_size=16).digest()


@settings(max_examples=50)
@given(instances(WeightsHeader), arrays(np.float32, st.integers(0, 20), elements=FINITE))
def test_weights_come_back_as_they_were(header, flat):
    weights = unpack_weights(pack_weights(header, flat))
    assert weights.header == header
    assert weights.flat.tobytes() == flat.tobytes()
    assert weights.flat.dtype == np.float32


@pytest.mark.parametrize("length", range(1, 9))
def test_weights_are_aligned_however_long_the_header_is(length):
    header = msgspec.structs.replace(make_header(RUN), run="r" * length)
    assert unpack_weights(pack_weights(header, random_weights(RUN))).flat.flags.aligned


def test_a_frame_may_be_a_view_and_is_not_needed_afterwards():
    frame = bytearray(make_frame(RUN))
    weights = unpack_weights(memoryview(frame))
    frame[:] = bytes(len(frame))
    np.testing.assert_array_equal(weights.flat, random_weights(RUN, seed=1))


def test_every_flipped_bit_is_refused():
    frame = pack_weights(make_header(RUN), np.arange(3, dtype=np.float32))
    unpack_weights(frame)
    for bit in range(8 * len(frame)):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolError):
            unpack_weights(bytes(damaged))


def test_every_frame_cut_short_or_grown_is_refused():
    frame = pack_weights(make_header(RUN), np.arange(3, dtype=np.float32))
    for length in range(len(frame)):
        with pytest.raises(ProtocolError):
            unpack_weights(frame[:length])
    with pytest.raises(ProtocolError):
        unpack_weights(frame + b"\0")


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(frame):
    with pytest.raises(ProtocolError):
        unpack_weights(frame)


@given(st.binary(max_size=60), st.integers(0, 2**16 - 1), st.binary(max_size=20))
def test_a_right_digest_over_anything_else_is_refused(head, length, numbers):
    with pytest.raises(ProtocolError):
        unpack_weights(signed(struct.pack("<4sH", MAGIC, length) + head + numbers))
    with pytest.raises(ProtocolError):
        unpack_weights(signed(struct.pack("<4sH", MAGIC, len(head)) + head + numbers))


def test_a_header_nested_too_deep_is_refused():
    head = b"\x91" * 60_000 + b"\xc0"
    with pytest.raises(ProtocolError):
        unpack_weights(signed(struct.pack("<4sH", MAGIC, len(head)) + head))


@pytest.mark.parametrize("magic", [b"SHW2", b"\0\0\0\0", b"PK\x03\x04"])
def test_a_foreign_magic_is_refused(magic):
    body = magic + make_frame(RUN)[4:-16]
    with pytest.raises(ProtocolError, match="does not start with its magic"):
        unpack_weights(signed(body))


def test_numbers_that_are_not_whole_words_are_refused():
    body = pack_weights(make_header(RUN), np.zeros(2, np.float32))[:-16]
    with pytest.raises(ProtocolError):
        unpack_weights(signed(body[:-1]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_neither_packed_nor_unpacked(value):
    flat = random_weights(RUN)
    flat[-1] = value
    with pytest.raises(ValueError, match="not finite"):
        pack_weights(make_header(RUN), flat)
    finite = pack_weights(make_header(RUN), np.zeros(1, np.float32))
    with pytest.raises(ProtocolError, match="that are not finite"):
        unpack_weights(signed(finite[:-20] + np.float32(value).tobytes()))


@pytest.mark.filterwarnings("ignore:overflow")
def test_weights_that_only_become_infinite_as_float32_are_not_packed():
    with pytest.raises(ValueError, match="not finite"):
        pack_weights(make_header(RUN), np.array([1e300]))


BAD_FIELDS = [
    {"version": -1},
    {"version": 2**32},
    {"updates": -1},
    {"exploration_scale": float("nan")},
    {"exploration_scale": float("inf")},
    {"exploration_scale": -0.1},
    {"random_share": 1.1},
    {"random_share": -0.1},
    {"random_share": float("nan")},
    {"run": "x" * 65},
]


@pytest.mark.parametrize("fields", BAD_FIELDS, ids=str)
def test_a_header_that_no_actor_can_act_with_is_neither_packed_nor_unpacked(fields):
    header = msgspec.structs.replace(make_header(RUN), **fields)
    with pytest.raises(ValueError, match="Expected"):
        pack_weights(header, random_weights(RUN))
    head = msgpack.packb(msgspec.to_builtins(header))
    with pytest.raises(ProtocolError):
        unpack_weights(signed(struct.pack("<4sH", MAGIC, len(head)) + head))


def test_weights_too_large_for_the_replays_copy_are_not_packed():
    with pytest.raises(ValueError, match="at most"):
        pack_weights(make_header(RUN), np.zeros(MAX_PEER_FRAME_BYTES // 4, np.float32))
