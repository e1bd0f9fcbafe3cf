"""No bytes of others bring out more than the error they are to bring out, nor take more memory than they are long."""

from __future__ import annotations

import logging
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PeerError, ShoalError
from learner_node.persistence.checkpoints import Checkpoints
from learner_node.persistence.state import Counters, TrainingState
from learner_node.replay.replay_session import BatchChecker, SampledBatch
from tests.fuzz.decoders import DECODERS
from tests.replay_server.runs import make_run, records

pytestmark = pytest.mark.slow

ALLOCATED_BYTES_A_BYTE = 64
"""A small number in a msgpack array is one byte there, and an object of 24 with a place of 8 in a list here."""
ALLOCATED_BYTES = 512 * 2**10


def spoilt(examples: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Returns valid input with a few bytes changed, left out or put in, and now and then anything at all."""

    def change(drawn: tuple[bytes, list[tuple[float, int, bytes]]]) -> bytes:
        data, changes = drawn
        for place, length, new in changes:
            at = int(place * len(data))
            data = data[:at] + new + data[at + length :]
        return data

    changes = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=8)), max_size=4)
    return st.tuples(st.sampled_from(examples), changes).map(change) | st.binary(max_size=200)


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=60)
@given(st.data())
def test_nothing_but_the_decoders_own_error_and_little_memory(name: str, data: st.DataObject) -> None:
    logging.getLogger("replay_server").setLevel(logging.CRITICAL)
    decoder = DECODERS[name]
    given_bytes = data.draw(spoilt(decoder.seeds))
    tracemalloc.start()
    try:
        decoder.open(given_bytes)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= ALLOCATED_BYTES + ALLOCATED_BYTES_A_BYTE * len(given_bytes)


@pytest.mark.parametrize("name", DECODERS)
def test_what_a_fuzzer_begins_with_is_valid(name: str) -> None:
    assert DECODERS[name].seeds
    for example in DECODERS[name].seeds:
        DECODERS[name].open(example)


FOUND = {
    "chunk": DECODERS["chunk"].seeds[0].replace(b"a\x02\0\0\0", b"\xa0\x02\0\0\0"),
    "keys": b'curve\n    public-key = "x"\n    secret-key 7\n',
}
"""What a fuzzer has found: an actor whose name is no text, a key without a value."""


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once_stays_mended(name: str) -> None:
    assert FOUND[name] not in DECODERS[name].seeds
    DECODERS[name].open(FOUND[name])


@settings(max_examples=60)
@given(spoilt((records(8).tobytes(),)))
def test_a_batch_is_opened_or_its_sender_refused(payload: bytes) -> None:
    inspector = BatchChecker(make_run(), pin=False)
    try:
        opened = inspector.open(memoryview(payload), "tcp://replay:5555")
    except PeerError:
        return
    assert opened is None or isinstance(opened, SampledBatch)


@settings(max_examples=60)
@given(st.data())
def test_a_checkpoint_is_read_or_passed_over(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    import torch

    directory: Path = tmp_path_factory.getbasetemp() / "spoilt-checkpoints"
    checkpoints = Checkpoints(directory, 1)
    path = checkpoints.save(TrainingState({"a": torch.ones(2, 3)}, Counters()), best=False)
    path.write_bytes(data.draw(spoilt((path.read_bytes(),))))
    try:
        state = checkpoints.load()
    except ShoalError:
        return
    assert state
    assert set(state.tensors) == {"a"}
