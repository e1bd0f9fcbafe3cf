from __future__ import annotations

from replay_server.memory_guard import MemoryGuard

MOST = 1_000


def test_only_memory_beyond_baseline_records_and_bound_counts() -> None:
    guard = MemoryGuard(MOST)
    assert guard.excess(5_000, 3_000) == 0, "the first call sets the baseline"
    assert guard.excess(9_000, 7_000) == 0, "more transitions"
    assert guard.excess(9_000 + MOST, 7_000) == 0
    assert guard.excess(9_001 + MOST, 7_000) == 1
    assert guard.excess(4_000, 3_000) == 0


def test_memory_that_stays_in_use_without_peers_is_the_new_baseline() -> None:
    guard = MemoryGuard(MOST)
    guard.excess(5_000, 3_000)
    assert guard.excess(8_000, 3_000)
    guard.set_baseline(7_500, 3_000)
    assert guard.excess(8_500, 3_000) == 0
    assert guard.excess(8_501, 3_000) == 1
