"""`shoal bench world NAME`: its processes and its errors; the figures are not tested."""

from __future__ import annotations

import pytest

from common.errors import ConfigError
from common.process.command import run as run_command
from shoal.commands.bench.cli import bench
from shoal.commands.bench.world_rates import measure_rate, process_counts


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
        (["nothing"], "'nothing' is not a benchmark"),
    ],
)
def test_a_world_to_measure_needs_its_name(line: list[str], text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(bench, "bench", line) == 2
    assert text in capfd.readouterr().err
