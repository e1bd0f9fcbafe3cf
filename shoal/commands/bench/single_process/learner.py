"""The learner's update against a loop over agents in torch, its matrix products alone, and the peak GEMM rate."""

from __future__ import annotations

from collections.abc import Iterator

from common.process.monitoring.resources import retain_freed_memory
from shoal.commands.bench import gpu_learner
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.measurements import BenchProgress, BenchRow, row

_GOALS = {256: 2.5, 1024: 2.0}
_PEAK_GOAL = 0.7
_AUTOGRAD_GOALS = {"update": 0.5, "defaults": 0.67}


def rows(config: BenchConfig) -> Iterator[BenchRow | BenchProgress]:
    """Yields learner/update/BATCH/literal, for 1,024 also /products and /peak, then the engine autograd and threads.

    The engine's rows are learner/update/BATCH/autograd and learner/defaults/BATCH/autograd; that of the threads is
    learner/defaults/256/threads/2. With --gpu: the rows of gpu_learner.py instead.
    """
    if config.gpu:
        yield from gpu_learner.rows()
        return
    # Imports torch, which takes seconds and which no other command here needs.
    from learner_node.inspection.update_speed import engine_speeds, seconds_by_threads, speeds  # noqa: PLC0415

    for speed in speeds():
        value, name = 1 / speed.update_s, f"learner/update/{speed.rows}"
        goal = _GOALS.get(speed.rows, 0.0)
        yield row(f"{name}/literal", "updates/s", value, ("a loop over agents", 1 / speed.loop_s), goal)
        if speed.rows == 1024:
            yield row(f"{name}/products", "updates/s", value, ("its matrix products alone", 1 / speed.products_s))
            yield row(f"{name}/peak", "updates/s", value, ("GEMM peak", 1 / speed.at_peak_s), _PEAK_GOAL)
    retain_freed_memory()
    for measured in engine_speeds():
        yield row(
            f"learner/{measured.networks}/{measured.rows}/autograd",
            "updates/s",
            1 / measured.autograd_s,
            ("stacked", 1 / measured.stacked_s),
            _AUTOGRAD_GOALS[measured.networks],
        )
    one, two = seconds_by_threads((1, 2))
    yield row("learner/defaults/256/threads/2", "updates/s", 1 / two, ("one thread", 1 / one))
