from __future__ import annotations

from replay_server.memory_guard import MemoryGuard

MOST = 1_000


def test_only_what_nobody_accounts_for_counts() -> None:
    overhang = MemoryGuard(MOST)
    assert overhang.beyond(5_000, 3_000) == 0, "what it has when it starts is its own"
    assert overhang.beyond(9_000, 7_000) == 0, "more transitions"
    assert overhang.beyond(9_000 + MOST, 7_000) == 0
    assert overhang.beyond(9_001 + MOST, 7_000) == 1
    assert overhang.beyond(4_000, 3_000) == 0


def test_what_does_not_come_back_when_all_have_gone_is_its_own() -> None:
    overhang = MemoryGuard(MOST)
    overhang.beyond(5_000, 3_000)
    assert overhang.beyond(8_000, 3_000)
    overhang.alone(7_500, 3_000)
    assert overhang.beyond(8_500, 3_000) == 0
    assert overhang.beyond(8_501, 3_000) == 1
