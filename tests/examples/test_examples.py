"""The examples of the Python API run as they are, with less time than they take."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.shoal.test_import import ROOT, run

__all__ = ["run"]

EXAMPLES = ROOT / "examples"


def start(script: Path, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shorter(script: str, directory: Path, times: dict[str, str]) -> Path:
    """Copies an example with other times, each of which it must hold."""
    text = (EXAMPLES / script).read_text("utf-8")
    for long, short in times.items():
        assert long in text
        text = text.replace(long, short)
    (directory / script).write_text(text, "utf-8")
    return directory / script


@pytest.mark.slow
def test_a_team_is_played(run: Path, tmp_path: Path) -> None:
    out = start(EXAMPLES / "play_a_team.py", str(run), cwd=tmp_path).splitlines()
    assert out[0] == "Team(simple_spread: agent_0, agent_1, agent_2; 300 updates)"
    assert re.fullmatch(r"256 episodes at once, return summed over agents: -\d+\.\d+", out[1])
    assert re.fullmatch(r"one episode of mpe2, return summed over agents: -\d+\.\d+", out[2])


@pytest.mark.system
def test_a_team_is_trained_evaluated_and_trained_on(tmp_path: Path) -> None:
    script = shorter("train_and_evaluate.py", tmp_path, {'"1m"': '"2s"', '"90s"': '"4s"'})
    out = start(script, "runs/example", cwd=tmp_path)
    assert "return after half a minute more: -" in out
    assert "  distance: " in out
    assert (tmp_path / "runs" / "example" / "report.html").exists()


@pytest.mark.system
def test_a_sweep_continues_where_it_stopped(tmp_path: Path) -> None:
    script = shorter("sweep.py", tmp_path, {"in (0, 1)": "in (0,)"})
    out = start(script, "sweeps/some", "2s", cwd=tmp_path)
    assert re.search(r"iddpg: mean -\d+\.\d over 1 seeds", out)


def cells(kind: str) -> list[str]:
    notebook: Any = json.loads((EXAMPLES / "notebook.ipynb").read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | (
            {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        )
        assert not cell.get("outputs"), "a notebook is kept without outputs"
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_notebook_is_well_formed() -> None:
    assert cells("markdown")
    for text in cells("code"):
        compile(text, "notebook.ipynb", "exec")


@pytest.mark.system
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(sys.stderr):
        for text in cells("code"):
            exec(text.replace('time="1m"', 'time="2s"'), names)  # noqa: S102  (it is the notebook's)
    assert names["result"].episodes == 200
    assert (tmp_path / "runs" / "notebook" / "report.html").exists()
    assert not names["run"].metrics[-1]["env_steps"] <= 0
