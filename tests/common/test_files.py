"""Names of files that are made from data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import MAX_NAME_CHARACTERS, file_name, file_names, settings_name

HOSTILE = [
    "../../x",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a/b\\c",
    "nul",
    "COM1.txt",
    "-rf",
    ".hidden",
    "x" * 400,
    "a\0b",
    "тест_0",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_one_component(name: str, tmp_path: Path) -> None:
    made = tmp_path / file_name(name)
    made.touch(exist_ok=False)
    assert [path.name for path in tmp_path.iterdir()] == [made.name]


@given(st.lists(st.one_of(st.sampled_from(HOSTILE), st.text()), max_size=30))
def test_all_names_are_different_on_a_disk_that_ignores_case(names: list[str]) -> None:
    made = file_names(names, ".onnx")
    assert len({name.casefold() for name in made}) == len(names)
    for name in made:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.onnx", name)
        assert len(name) < MAX_NAME_CHARACTERS + 20


def test_a_name_that_is_a_file_name_stays_as_it_is() -> None:
    assert file_names(["a b", "a_b", "A_B"]) == ["a_b_3", "a_b", "A_B_2"]
    assert file_name("agent_0") == "agent_0"
    assert settings_name("replay.batch=128") == "replay.batch=128"
    assert settings_name("world.path=../../up") == "world.path=.._.._up"
