"""Tests of `shoal status` for directories in which nothing trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from common.run.directory import RunDirectory
from deploy.local.launcher import LOCKSTEP, replay_url
from tests.shoal.commands.report_runs import make_run


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as found:
        replay_url(RunDirectory(path))
    return str(found.value)


def test_a_directory_in_which_nothing_trains_is_told_what_it_is(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nosuch") == f"{tmp_path / 'nosuch'} does not contain a run."

    run = make_run(tmp_path / "run")
    assert f"no `shoal train` runs in {run.path} here" in refusal(run.path)
    assert f"`shoal train --resume --run {run.path}`" in refusal(run.path)

    (run.path / LOCKSTEP).mkdir()
    assert "trains in lockstep" in refusal(run.path)
    (run.path / LOCKSTEP).rmdir()

    run.finished_file.touch()
    assert f"the run in {run.path} has finished" in refusal(run.path)
    assert f"`shoal report {run.path}`" in refusal(run.path)
