"""The files that a learner appends to, after a process that was killed in the middle of a line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from common.run.directory import RunDirectory
from common.run.evaluations import read_evaluations
from learner_node.reporting.metrics_log import MetricsLog
from learner_node.update.update_stats import Losses
from shoal.run_history import read_history
from tests.common.examples import make_run
from tests.common.run.test_evaluations import line

NO_LOSSES = Losses([0.5], [1.0], [3.0], [4.0], [5.0])


def test_a_resumed_run_does_not_append_to_an_incomplete_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = RunDirectory(tmp_path)
    directory.evaluations_file.write_bytes(msgspec.json.encode(line(10)) + b'\n{"time": 3.0, "env_st')
    directory.metrics_file.write_bytes(b'{"updates": 10}\n{"updates": 1')

    log = MetricsLog(directory, make_run())
    log.write(20, {"env_steps": 500}, NO_LOSSES, None)
    log.write_evaluation(line(20), updates=20, env_steps=500)
    log.close()

    assert [text.partition(" file=")[0] for text in caplog.messages] == ["removed an incomplete last line"] * 2
    assert read_evaluations(directory.evaluations_file) == [line(10), line(20)]
    assert list(read_history(directory.metrics_file).column("updates")) == [10, 20]


def test_complete_lines_stay_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = RunDirectory(tmp_path)
    for _ in range(2):
        log = MetricsLog(directory, make_run())
        log.write_evaluation(line(10), updates=10, env_steps=250)
        log.close()
    assert directory.evaluations_file.read_bytes() == 2 * (msgspec.json.encode(line(10)) + b"\n")
    assert not caplog.messages
