"""docs/traps.md and the tests name each other."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "traps.md"
TEST = r"test_\d\d_\w+"


def test_every_trap_has_a_test_and_every_test_its_row() -> None:
    """A row that names a test that is gone promises what nobody checks."""
    named = re.findall(f"`({TEST})`", DOCUMENT.read_text("utf-8"))
    written = [name for path in HERE.glob("test_*.py") for name in re.findall(f"def ({TEST})", path.read_text("utf-8"))]
    assert sorted(named) == sorted(written)
    assert {int(name[5:7]) for name in written} == set(range(1, 38))
