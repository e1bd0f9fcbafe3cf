"""Tests of the arithmetic, the processes and the load generator of the benchmarks; the figures are not tested."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from common.errors import ConfigError, ShoalError
from common.policy.network import Policy
from common.process.command import run as run_command
from common.run.players import players
from learner_node.inspection.update_speed import NETWORK, policy_in_torch, simple_spread_shapes
from shoal.commands.bench import BENCHMARKS, BY_NAME_ONLY, BenchConfig, BenchRow, end_to_end
from shoal.commands.bench.cli import bench, measure
from shoal.commands.bench.load_generator import ROWS, LoadGenerator, fill, make_run, record
from shoal.commands.bench.measurements import as_text, compare, rate, row
from shoal.commands.bench.peers.environment import PeerEnvironment
from shoal.commands.bench.processes import Processes
from shoal.commands.bench.sampling_load import SamplingClient
from shoal.commands.bench.world_rates import measure_rate, process_counts


def test_a_row_has_the_ratio_to_its_baseline() -> None:
    assert row("a", "steps/s", 30.0, ("b", 10.0), 2.0) == BenchRow("a", 30.0, "steps/s", "b", 10.0, 3.0, 2.0)
    assert row("a", "steps/s", 30.0, ("none", 0.0)).ratio == 0.0


def test_a_goal_bounds_the_ratio_from_the_side_that_is_better() -> None:
    assert "(goal >= 2x)" in as_text(row("a", "steps/s", 30.0, ("b", 10.0), 2.0))
    assert "(goal <= 0.25x)" in as_text(row("a", "MiB", 1.0, ("b", 10.0), 0.25))
    assert "goal" not in as_text(row("a", "MiB", 1.0, ("b", 10.0)))


def test_measurements_alternate_and_their_medians_are_returned() -> None:
    order: list[str] = []
    ours, theirs = itertools.cycle([1.0, 9.0, 2.0]), itertools.cycle([4.0, 5.0, 6.0])

    def measure(name: str, values: itertools.cycle[float]) -> float:
        order.append(name)
        return next(values)

    assert compare(lambda: measure("ours", ours), lambda: measure("theirs", theirs), repeats=3) == (2.0, 5.0)
    assert order == ["ours", "theirs"] * 3


def test_a_rate_counts_the_items_of_each_call() -> None:
    calls = itertools.count()

    def call() -> int:
        next(calls)
        return 10

    found = rate(call, seconds=0.02)
    assert found > 0
    assert next(calls) >= 1


def test_the_policies_in_torch_are_the_same_policies() -> None:
    team, rng = players(simple_spread_shapes(), "maddpg"), np.random.default_rng(0)
    flat = (rng.standard_normal(3 * ((18 + 1) * 64 + (64 + 1) * 64 + (64 + 1) * 5)) * 0.1).astype(np.float32)
    obs = rng.standard_normal((5, 54)).astype(np.float32)
    np.testing.assert_allclose(policy_in_torch(team, NETWORK, flat)(obs), Policy(team, NETWORK, flat).act(obs), 1e-5)


def test_a_runs_rates_are_the_medians_of_its_parts(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    # Learning starts at 60,000 steps; the second of five parts is slow.
    seconds = [0, 10, 20, 70, 80, 90, 100]
    lines = [{"time": 1e9 + at, "env_steps": 30_000 + 30_000 * i, "updates": 300 * i} for i, at in enumerate(seconds)]
    metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert end_to_end.run_speed(metrics) == (3_000.0, 30.0)
    metrics.write_text(json.dumps(lines[-1]) + "\n")
    with pytest.raises(ShoalError, match="longer --time"):
        end_to_end.run_speed(metrics)


@pytest.mark.slow
def test_a_load_generator_delivers_its_chunks_and_a_client_samples_batches() -> None:
    run = make_run(capacity=20_000)
    recorded = record(run, 2)
    with Processes() as processes:
        server = processes.replay()
        server.open(run)
        fill(server.endpoint, run, recorded, 4_000)
        load = LoadGenerator(server.endpoint, run, 5, recorded)
        load.connect()
        assert load.pump(0.3) > 0
        load.settle()
        status = server.status()
        assert not status.rejected
        assert status.inserts >= 4_000 + load.acked_rows
        assert load.acked_rows == len(load.take_latencies()) * ROWS
        assert load.take_latencies() == []
        load.close()
        client = SamplingClient(server.endpoint, run)
        assert sum(client.draw() for _ in range(20)) == 20
        assert all(seconds > 0 for seconds in client.round_trips(3))
        client.close()
        directory, pid = processes.directory, server.started.process.pid
    assert not directory.exists()
    assert not psutil.pid_exists(pid)


@pytest.mark.slow
def test_a_failed_benchmark_is_reported() -> None:
    with pytest.raises(ShoalError, match="The benchmark nothing failed"):
        list(measure("nothing", BenchConfig()))


@pytest.mark.system
def test_ctrl_c_leaves_no_process_and_no_file() -> None:
    root = Path(__file__).parents[3]
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
            if b"level redis" in text:
                break
        actors = psutil.Process(process.pid).children(recursive=True)
        assert len(actors) >= 2
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(60) == 130
    _, alive = psutil.wait_procs(actors, 10)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []
    assert list(directory.glob("shoal-bench-*")) == []


def test_the_help_names_every_benchmark_and_the_usage_fits_a_line() -> None:
    help_text = CliRunner().invoke(bench, ["--help"]).output
    assert help_text.splitlines()[0] == "Usage: bench [OPTIONS] [NAME]..."
    assert all(name in help_text for name in BENCHMARKS)


def test_without_an_argument_nothing_is_installed() -> None:
    assert set(BY_NAME_ONLY) == {"peers", "world"} <= set(BENCHMARKS)


@pytest.fixture
def pip_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PeerEnvironment]:
    """Makes peer environments whose pip reports the given packages."""

    def make(*chosen: str) -> PeerEnvironment:
        environment = PeerEnvironment("agilerl", ("agilerl==2.58.0", "torch==2.13.0"), BenchConfig(cache=str(tmp_path)))

        def run(line: list[str]) -> None:
            if "--report" in line:
                report = Path(line[line.index("--report") + 1])
                report.parent.mkdir(parents=True, exist_ok=True)
                report.write_text(json.dumps({"install": [{"metadata": {"name": name}} for name in chosen]}))

        monkeypatch.setattr(environment, "_run", run)
        return environment

    return make


def test_a_peer_is_installed_once_and_never_with_cuda(pip_reports: Callable[..., PeerEnvironment]) -> None:
    with pytest.raises(ConfigError, match="CPU builds"):
        pip_reports("torch", "nvidia-cublas", "triton").install()
    environment = pip_reports("torch", "numpy")
    assert not environment.installed
    environment.install()
    assert environment.installed
    assert environment.path.name == "agilerl-2.58.0"


def test_processes_double_up_to_the_number_of_cores() -> None:
    assert [process_counts(cores) for cores in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


@pytest.mark.slow
def test_any_world_is_measured_in_processes() -> None:
    name = "batched:tests.common.worlds.batched.line_world"
    assert measure_rate(name, {"max_steps": 3}, copies=4, processes=2, seconds=0.01) > 0
    with pytest.raises(ConfigError, match="has no option 'size'"):
        measure_rate(name, {"size": 3}, copies=1, processes=1)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (["world"], "Write: shoal bench world NAME"),
        (["simple_spread"], "Write: shoal bench world simple_spread"),
        (["world", "simple_spread", "--set", "size=3"], "--set size: name an option of the world"),
        (["nothing"], "'nothing' is not one of"),
    ],
)
def test_a_world_to_measure_needs_its_name(line: list[str], text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(bench, "bench", line) == 2
    assert text in capfd.readouterr().err
