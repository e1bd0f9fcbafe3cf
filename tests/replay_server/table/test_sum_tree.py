"""The sum tree equals a plain list of values and their running sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay_server.table.sum_tree import SumTree

Sets = list[tuple[int, float]]
EIGHTHS = st.integers(0, 80).map(lambda n: n / 8)
"""Sums of eighths are exact: the tree's order of adding cannot differ from the list's."""


class PlainList:
    """The slow literal twin."""

    def __init__(self, capacity: int) -> None:
        self.values = [0.0] * capacity

    def set(self, sets: Sets) -> None:
        for slot, value in sets:
            self.values[slot] = value

    def find(self, mass: float) -> int:
        passed = 0.0
        for slot, value in enumerate(self.values):
            passed += value
            if mass < passed:
                return slot
        raise AssertionError(f"{mass} is not less than the total {passed}")


@pytest.mark.slow
@given(data=st.data(), capacity=st.integers(1, 40))
def test_it_equals_a_plain_list(data: st.DataObject, capacity: int) -> None:
    tree, plain = SumTree(capacity), PlainList(capacity)
    some = st.lists(st.tuples(st.integers(0, capacity - 1), EIGHTHS), max_size=12)
    for sets in data.draw(st.lists(some, max_size=6)):
        tree.set(np.array([slot for slot, _ in sets], np.int64), np.array([value for _, value in sets]))
        plain.set(sets)
        first = data.draw(st.integers(0, capacity - 1))
        count, value = data.draw(st.integers(0, capacity - first)), data.draw(EIGHTHS)
        tree.fill(first, count, value)
        plain.set([(slot, value) for slot in range(first, first + count)])
        assert tree.values(np.arange(capacity)).tolist() == plain.values
        assert tree.total == sum(plain.values)
        if tree.total:
            masses = np.arange(0.0, tree.total, 1 / 16)
            assert tree.find(masses).tolist() == [plain.find(mass) for mass in masses]


@pytest.mark.parametrize("capacity", [1, 2, 1_000, 1_024, 70_000])
def test_many_at_once_on_every_size_of_tree(capacity: int) -> None:
    tree, plain, rng = SumTree(capacity), np.zeros(capacity), np.random.default_rng(0)
    for _ in range(10):
        slots, values = rng.integers(0, capacity, 500), rng.random(500)
        tree.set(slots, values)
        plain[slots] = values
    np.testing.assert_array_equal(tree.values(np.arange(capacity)), plain)
    assert tree.total == pytest.approx(plain.sum())
    masses = rng.random(1_000) * tree.total
    found = tree.find(masses)
    sums = np.concatenate([[0.0], plain.cumsum()])
    assert (sums[found] <= masses + 1e-9).all()
    assert (masses - 1e-9 < sums[found + 1]).all()


@given(
    filled=st.dictionaries(st.integers(0, 30), st.floats(1e-12, 1e12), min_size=1),
    shares=st.lists(st.floats(0, 1, exclude_max=True), min_size=1),
)
def test_an_empty_slot_is_never_found_whatever_was_rounded(filled: dict[int, float], shares: list[float]) -> None:
    tree = SumTree(31)
    tree.set(np.array(list(filled)), np.array(list(filled.values())))
    masses = np.minimum(np.array(shares) * tree.total, np.nextafter(tree.total, 0.0))
    masses[-1] = np.nextafter(tree.total, 0.0)
    assert set(tree.find(masses).tolist()) <= set(filled)


def test_a_mass_that_rounding_leads_past_the_last_value_finds_it_all_the_same() -> None:
    tree = SumTree(4)
    tree.set(np.arange(4), np.array([0.0, 5.6963411274150495, 50.49314830889067, 0.0]))
    mass = np.array([np.nextafter(tree.total, 0.0)])
    assert tree._descend(mass, skip_empty=False).tolist() == [3], "not the example it was"
    assert tree.find(mass).tolist() == [2]


def test_rounding_does_not_pile_up() -> None:
    tree, rng = SumTree(100), np.random.default_rng(0)
    for _ in range(2_000):
        tree.set(rng.integers(0, 100, 10), rng.random(10) * 10.0 ** rng.integers(-6, 12, 10))
    tree.fill(0, 100, 0.0)
    assert tree.total == 0.0
