"""docs/seed.md names tests that there are, and every one that proves a fault mended."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "docs" / "seed.md").read_text("utf-8")))


def defined_in(path: str) -> set[str]:
    return set(re.findall(r"^def (test_\w+)", (ROOT / path).read_text("utf-8"), re.MULTILINE))


def test_every_test_it_names_is_there() -> None:
    assert len(NAMED) > 20
    assert {(path, name) for path, name in NAMED if name not in defined_in(path)} == set()


def test_every_fault_that_is_tested_is_named() -> None:
    path = "tests/seed/test_mended.py"
    assert defined_in(path) == {name for where, name in NAMED if where == path}
