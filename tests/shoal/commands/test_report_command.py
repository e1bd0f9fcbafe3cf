"""Tests of the command `shoal report` and of machine.json."""

from __future__ import annotations

import getpass
import json
import socket
import webbrowser
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.process import command
from common.run.open_run import RunOptions, open_run
from shoal.cli import shoal
from shoal.commands.report import write_report
from shoal.commands.report.run_record import default_settings, flat_settings
from shoal.machine_info import describe_machine, read_machine, record_machine

from .report_runs import make_run


def test_the_machine_is_recorded_without_names(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    record_machine(directory, {"actors": 3})
    found = read_machine(directory)
    assert found["launch"] == {"actors": 3}
    assert found["machine"] == describe_machine()
    assert found["versions"]["numpy"]
    words = {word for section in found.values() for value in section.values() for word in str(value).split()}
    assert not words & {socket.gethostname(), getpass.getuser()}
    for broken in ("", "[]", '{"machine": 1}'):
        (directory.path / "machine.json").write_text(broken)
        assert read_machine(directory) == {}


def test_a_run_without_settings_has_the_default_settings(tmp_path: Path) -> None:
    _, run = open_run(str(tmp_path / "run"), "simple_spread", RunOptions(), {}, resume=False, role="test")
    assert default_settings(run.spec) == flat_settings(run.spec)


def test_the_command_writes_a_report_and_prints_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = make_run(tmp_path / "run")
    assert command.run(shoal, "shoal", ["report", str(directory.path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["path"] == str(directory.path / "report.html")
    assert printed["bytes"] == (directory.path / "report.html").stat().st_size
    other = tmp_path / "elsewhere.html"
    assert command.run(shoal, "shoal", ["report", str(directory.path), "-o", str(other)]) == 0
    assert other.exists()


def test_a_directory_of_runs_is_one_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path / name).path for name in ("a", "b")]
    assert command.run(shoal, "shoal", ["report", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["path"] == str(tmp_path / "report.html")
    assert printed["runs"] == [str(run) for run in runs]


def test_open_without_a_browser_prints_the_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda _: False)
    run = make_run(tmp_path / "run").path
    assert command.run(shoal, "shoal", ["report", str(run), "--open"]) == 0
    assert f"No browser found. Open {run / 'report.html'} in one." in capsys.readouterr().err


def test_mistakes_cost_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(shoal, "shoal", ["report", str(tmp_path)]) == 2
    assert "does not contain a run" in capsys.readouterr().err
    run = str(make_run(tmp_path / "run").path)
    assert command.run(shoal, "shoal", ["report", run, "-o", str(tmp_path / "nowhere" / "x.html")]) == 2
    assert "nowhere/x.html cannot be written" in capsys.readouterr().err
    assert command.run(shoal, "shoal", ["render", run, "-o", str(tmp_path / "x.avi")]) == 2
    assert "ends in .gif or .mp4" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        write_report([tmp_path], tmp_path / "x.html")
