"""A process's failures reach the one that started it, whole and once."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

from common.errors import LastingError, ShoalError
from common.process import command
from common.process.children.failure_note import NOTE_VARIABLE, Failure, FailureNote


def test_failures_are_read_once_and_in_order(tmp_path: Path) -> None:
    note, reader = (FailureNote(tmp_path / "note") for _ in range(2))
    assert reader.read_new() == []
    note.append("first\n  line two", lasting=False)
    note.append("second", lasting=True)
    assert reader.read_new() == [Failure(False, "first\n  line two"), Failure(True, "second")]
    assert reader.read_new() == []
    note.append("third", lasting=False)
    assert reader.read_new() == [Failure(False, "third")]


def test_a_line_that_is_not_whole_yet_is_read_later(tmp_path: Path) -> None:
    path = tmp_path / "note"
    reader = FailureNote(path)
    FailureNote(path).append("words", lasting=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:10])
    assert reader.read_new() == []
    path.write_bytes(whole)
    assert reader.read_new() == [Failure(True, "words")]


def test_without_a_parent_that_asks_nothing_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NOTE_VARIABLE, raising=False)
    note = FailureNote.from_environment()
    note.append("words", lasting=True)
    assert note.read_new() == []


@pytest.mark.parametrize(("error", "lasting"), [(LastingError("for good"), True), (ShoalError("once"), False)])
def test_a_command_that_fails_leaves_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: ShoalError, lasting: bool
) -> None:
    monkeypatch.setenv(NOTE_VARIABLE, str(tmp_path / "note"))

    @click.command()
    def fails() -> None:
        raise error

    assert command.run(fails, "fails", []) == 1
    assert FailureNote(tmp_path / "note").read_new() == [Failure(lasting, str(error))]


def test_a_defect_leaves_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NOTE_VARIABLE, str(tmp_path / "note"))

    @click.command()
    def fails() -> None:
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError):
        command.run(fails, "fails", [])
    [failure] = FailureNote(tmp_path / "note").read_new()
    assert "Traceback" in failure.message
    assert "a defect" in failure.message


def test_foreign_code_that_exits_with_0_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NOTE_VARIABLE, str(tmp_path / "note"))

    @click.command()
    def fails() -> None:
        sys.exit(0)

    assert command.run(fails, "fails", []) == 1
    [failure] = FailureNote(tmp_path / "note").read_new()
    assert failure.lasting
    assert "sys.exit(0)" in failure.message


def test_a_full_disk_is_one_line_and_lasting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(NOTE_VARIABLE, str(tmp_path / "note"))

    @click.command()
    def fails() -> None:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")

    assert command.run(fails, "fails", []) == 1
    assert FailureNote(tmp_path / "note").read_new()[0].lasting
    assert len(capsys.readouterr().err.splitlines()) == 1
