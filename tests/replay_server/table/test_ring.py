import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.process.monitoring.resources import available_memory_bytes
from replay_server.table.ring import Ring, refuse_beyond_memory
from replay_server.table.samplers import UniformSampler
from tests.replay_server.runs import DTYPE, numbers, records


@given(capacity=st.integers(1, 12), blocks=st.lists(st.integers(0, 30), max_size=12))
def test_holds_the_newest_records_in_order(capacity: int, blocks: list[int]) -> None:
    ring, everything = Ring(DTYPE, capacity), []
    for count in blocks:
        block = records(count, len(everything))
        everything += numbers(block)
        ring.append(block)
        assert numbers(ring.in_order()) == everything[-capacity:]
        assert ring.size == min(len(everything), capacity)


@given(capacity=st.integers(1, 12), blocks=st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_append_tells_where_the_records_begin(capacity: int, blocks: list[int]) -> None:
    ring, total = Ring(DTYPE, capacity), 0
    for count in blocks:
        first = ring.append(records(count, total))
        total += count
        kept = min(count, capacity)
        slots = (first + np.arange(kept)) % capacity
        assert numbers(ring.gather(slots)) == list(range(total - kept, total))


def test_gathers_copies_side_by_side() -> None:
    ring = Ring(DTYPE, 8)
    ring.append(records(6))
    batch = ring.gather(np.array([4, 0, 0, 5]))
    ring.append(records(8, 100))
    assert numbers(batch) == [4, 0, 0, 5]
    assert batch.flags["C_CONTIGUOUS"]
    assert batch.dtype == DTYPE


def test_records_keep_every_field() -> None:
    block = np.frombuffer(np.random.default_rng(0).bytes(5 * DTYPE.itemsize), DTYPE)
    ring = Ring(DTYPE, 4)
    ring.append(block)
    assert ring.in_order().tobytes() == block[1:].tobytes()


@pytest.mark.parametrize(("capacity", "kept"), [(3, [4, 5, 6]), (5, [2, 3, 4, 5, 6]), (9, [2, 3, 4, 5, 6])])
def test_resizing_keeps_the_newest(capacity: int, kept: list[int]) -> None:
    ring = Ring(DTYPE, 5)
    ring.append(records(7))
    resized = ring.resized(capacity)
    assert numbers(resized.in_order()) == kept
    resized.append(records(1, 7))
    assert numbers(resized.in_order()) == [*kept, 7][-capacity:]


def test_a_ring_beyond_memory_is_refused_with_what_fits() -> None:
    with pytest.raises(ConfigError, match=r"1,000,000 needs 0\.5 GiB .* 0\.1 GiB are free; choose at most 193,273"):
        refuse_beyond_memory(500, 1_000_000, 2**30 // 10)
    with pytest.raises(ConfigError, match="choose at most"):
        Ring(DTYPE, 2**50)


def test_memory_is_measured() -> None:
    assert 2**20 < available_memory_bytes() < 2**50


def test_uniform_draws_are_uniform_over_what_is_stored() -> None:
    sampler = UniformSampler(10, seed=1)
    sampler.insert(0, 4)
    assert set(sampler.draw(200)) == {0, 1, 2, 3}
    sampler.insert(4, 6)
    sampler.insert(0, 6)
    counts = np.bincount(sampler.draw(100_000), minlength=10)
    # Chi-square with 9 degrees of freedom: 27.9 is passed once in a thousand.
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 27.9


def test_the_same_seed_draws_the_same() -> None:
    first, second = UniformSampler(10, seed=3), UniformSampler(10, seed=3)
    first.insert(0, 10)
    second.insert(0, 10)
    assert (first.draw(50) == second.draw(50)).all()
