"""Tests of the progress of commands that play episodes, and of their number of processes."""

from __future__ import annotations

import io
import os

import pytest
from rich.console import Console

from common.run.run import RunSpec
from shoal.commands.evaluate import progress as playing
from shoal.commands.evaluate.cli import EvaluateConfig
from shoal.commands.evaluate.episode_options import play_options
from shoal.commands.evaluate.progress import ProgressWatcher


@pytest.mark.parametrize("done", [0, 3])
def test_a_long_silence_is_reported_whatever_came_before(monkeypatch: pytest.MonkeyPatch, done: int) -> None:
    monkeypatch.setattr(playing, "LINE_PERIOD_S", 0.0)
    output = io.StringIO()
    with ProgressWatcher(Console(file=output), "evaluating", quiet=True) as watcher:
        if done:
            watcher.done(done, done)
        watcher.poll(4)
    assert output.getvalue().splitlines()[-1] == f"no episode has ended for 0 s; 4 running, {done} done"


def test_a_short_silence_is_not_reported() -> None:
    output = io.StringIO()
    with ProgressWatcher(Console(file=output), "evaluating") as watcher:
        watcher.poll(4)
    assert output.getvalue() == "evaluating\n"


def test_a_training_of_many_actors_is_not_evaluated_by_more_processes_than_there_are_cores() -> None:
    spec = RunSpec("pettingzoo:some_env")
    assert play_options(spec, EvaluateConfig(), {"actors": 10_000}).processes == (os.cpu_count() or 1)
    assert play_options(spec, EvaluateConfig(), {"actors": 1}).processes == 1
    assert play_options(spec, EvaluateConfig(processes=300), {"actors": 1}).processes == 300
