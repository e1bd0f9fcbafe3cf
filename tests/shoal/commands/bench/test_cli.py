"""Tests of the command `shoal bench`: its help, its processes, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from common.errors import ConfigError, ShoalError
from shoal.commands.bench import BENCHMARKS, BY_NAME_ONLY, BenchConfig, BenchFailure, cli
from shoal.commands.bench.cli import bench, measure
from shoal.commands.bench.measurements import row
from tests.conftest import PATIENCE_S, wait_until


def test_the_help_names_every_benchmark_and_the_usage_fits_a_line() -> None:
    help_text = CliRunner().invoke(bench, ["--help"]).output
    assert help_text.splitlines()[0] == "Usage: bench [OPTIONS] [NAME]..."
    assert all(name in help_text for name in BENCHMARKS)


def test_without_an_argument_nothing_is_installed() -> None:
    assert set(BY_NAME_ONLY) == {"peers", "world"} <= set(BENCHMARKS)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["world", "nosuch"], "there is no scenario 'nosuch'; known: collect_treasure, "),
        (["world", "simple_spraed"], "there is no scenario 'simple_spraed'; did you mean simple_spread"),
        (["world", "simple_spread", "nosuch"], "there is no scenario 'nosuch'"),
        (["world"], "Write: shoal bench world NAME."),
        (["simple_spread"], "Write: shoal bench world simple_spread."),
        (["relay"], "'relay' is not a benchmark; did you mean replay?"),
        (["nosuch"], "'nosuch' is not a benchmark; known: actor, end-to-end, "),
    ],
)
def test_a_name_that_is_neither_benchmark_nor_world_is_named(line: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        CliRunner().invoke(bench, line, standalone_mode=False, catch_exceptions=False)


@pytest.mark.slow
def test_a_failed_benchmark_is_reported() -> None:
    with pytest.raises(ShoalError, match="The benchmark nothing failed"):
        list(measure("nothing", BenchConfig()))


@pytest.mark.parametrize("as_json", [False, True])
def test_a_row_without_figures_does_not_end_the_table(monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    figures = [BenchFailure("peers/one", "it does not install"), row("peers/two/return", "return", -1.0, ("two", -2.0))]
    monkeypatch.setattr(cli, "measure", lambda *_: iter(figures))
    done = CliRunner().invoke(bench, ["peers", *(["--json"] if as_json else [])])
    assert isinstance(done.exception, ShoalError)
    assert str(done.exception) == "1 of 2 rows have no figures: peers/one."
    if as_json:
        failed, measured = json.loads(done.stdout)
        assert failed == {"name": "peers/one", "failed": "it does not install"}
        assert (measured["name"], measured["ratio"]) == ("peers/two/return", 0.5)
    else:
        first, second = done.stdout.splitlines()
        assert re.fullmatch(r"peers/one +failed: it does not install", first)
        assert second.startswith("peers/two/return")


@pytest.mark.system
def test_ctrl_c_leaves_no_process_and_no_file() -> None:
    root = Path(__file__).parents[4]
    # pytest's temporary directory may be too long for the socket of an embedded Redis.
    with tempfile.TemporaryDirectory(prefix="shoal-") as short:
        _interrupt_a_benchmark(Path(short), {**os.environ, "TMPDIR": short, "PYTHONPATH": str(root)})


def _interrupt_a_benchmark(directory: Path, environment: dict[str, str]) -> None:
    line = [sys.executable, "-m", "shoal", "bench", "replay"]
    with subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=directory,
        # A shell starts background jobs with SIGINT ignored, and the benchmark would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        assert process.stdout
        for text in process.stdout:
            if b"level ram" in text:
                break
        bench_process = psutil.Process(process.pid)
        wait_until(lambda: len(bench_process.children(recursive=True)) >= 2, "Redis and a replay server")
        children = bench_process.children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(PATIENCE_S) == 130
    _, alive = psutil.wait_procs(children, PATIENCE_S)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []
    assert list(directory.glob("shoal-bench-*")) == []
