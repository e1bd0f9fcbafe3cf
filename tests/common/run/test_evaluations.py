"""The lines of evaluations.jsonl: what is read back after crashes and resumes, and what trackers receive."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from common.run import evaluations
from common.run.evaluations import ScheduledEvaluation, best_of, read_evaluations


def line(updates: int, mean: float = -1.0, **fields: Any) -> ScheduledEvaluation:
    values: dict[str, Any] = {
        "time": 1.0,
        "env_steps": 25 * updates,
        "updates": updates,
        "trained_s": 0.5 * updates,
        "episodes": 100,
        "seed": 2_000_000,
        "return_mean": mean,
        "return_ci95": (mean - 1, mean + 1),
        "return_per_agent": {"a": mean},
    }
    return ScheduledEvaluation(**{**values, **fields})


def write(path: Path, lines: list[ScheduledEvaluation], end: bytes = b"") -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in lines) + end)
    return path


def test_without_a_file_there_are_none(tmp_path: Path) -> None:
    assert read_evaluations(tmp_path / "evaluations.jsonl") == []


def test_lines_that_a_crash_cut_off_are_left_out(tmp_path: Path, caplog: Any) -> None:
    lines = [line(0), line(10)]
    assert read_evaluations(write(tmp_path / "e", lines)) == lines
    assert not caplog.messages
    assert read_evaluations(write(tmp_path / "e", lines, b'{"time": 3, "env_st')) == lines
    assert caplog.messages == [f"left out incomplete lines file={tmp_path / 'e'} lines=1"]
    assert read_evaluations(write(tmp_path / "e", lines, b"\n[1]\n{}\n")) == lines


def test_a_run_that_continued_from_a_checkpoint_supersedes_what_was_after_it(tmp_path: Path) -> None:
    lines = [line(0), line(10), line(20, -5.0), line(30), line(20, -4.0), line(25)]
    assert read_evaluations(write(tmp_path / "e", lines)) == [line(0), line(10), line(20, -4.0), line(25)]


@given(st.lists(st.integers(0, 50), max_size=30))
def test_updates_ascend_and_the_last_line_is_always_there(updates: list[int]) -> None:
    raw = b"".join(msgspec.json.encode(line(each)) + b"\n" for each in updates)

    class File:
        def read_bytes(self) -> bytes:
            return raw

    found = [one.updates for one in read_evaluations(File())]  # type: ignore[arg-type]
    assert found == sorted(set(found))
    assert found[-1:] == updates[-1:]


def test_many_lines_are_thinned_evenly(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(evaluations, "MAX_LINES", 5)
    path = write(tmp_path / "e", [line(each) for each in range(101)])
    assert [one.updates for one in read_evaluations(path)] == [0, 25, 50, 75, 100]


def test_the_best_is_the_earliest_of_the_largest_means() -> None:
    assert best_of([]) is None
    assert best_of([line(0, -3.0), line(1, -1.0), line(2, -1.0), line(3, -2.0)]) == line(1, -1.0)


def test_trackers_receive_finite_figures_only() -> None:
    found = line(3, -2.0, metrics={"touches": 4.0, "lost": math.nan}, return_ci95=(-math.inf, -1.0))
    assert found.values == {
        "evaluation/return": -2.0,
        "evaluation/return_high": -1.0,
        "evaluation/return_per_agent/a": -2.0,
        "evaluation/metrics/touches": 4.0,
    }
