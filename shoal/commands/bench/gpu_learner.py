"""The learner on a GPU: both engines by the number of agents and the size of a batch, and whether a replay keeps up.

learner/gpu/AGENTS/BATCH/autograd   updates a second of the engine autograd; the baseline is the engine stacked
learner/gpu/AGENTS/BATCH/served     batches a second that a replay server sends; the baseline is what updates ask for
learner/gpu/AGENTS/BATCH/waiting    percent of a fed learner's time in which it waits for a batch
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from common.run.run import Run, make_run_spec
from common.worlds import world_spec
from shoal.commands.bench.data_plane.load_generator import COPIES, fill, record
from shoal.commands.bench.measurements import BenchProgress, BenchRow, row
from shoal.commands.bench.processes import Processes

if TYPE_CHECKING:
    from learner_node.devices import Device
    from learner_node.engine import Engine
    from learner_node.inspection.device_speed import FedSpeed


class Sizes(NamedTuple):
    """What to measure."""

    agents: Sequence[int] = (3, 12, 48)
    batches: Sequence[int] = (256, 1024, 8192)
    served: Sequence[int] = (256, 1024)
    """Batches to receive from a replay server. 8,192 transitions of 48 agents are 0.9 GB, a second of the loopback."""
    seconds: float = 1.0
    """Duration of each measurement [s]."""


def rows(sizes: Sizes | None = None) -> Iterator[BenchRow | BenchProgress]:
    """Yields the rows of a GPU; ConfigError if torch finds none."""
    # Imports torch, which takes seconds and which few commands here need.
    from learner_node.devices import choose_device  # noqa: PLC0415

    yield from rows_on(choose_device(gpu=True), sizes or Sizes())


def rows_on(device: Device, sizes: Sizes) -> Iterator[BenchRow | BenchProgress]:
    """Yields the rows of a device."""
    from learner_node.engine_choice import engine_of  # noqa: PLC0415
    from learner_node.trainer import Trainer  # noqa: PLC0415

    for agents in sizes.agents:
        run = make_run(agents, sizes.batches[0], "auto")
        chosen, asked = engine_of(run).name, {}
        engines: dict[str, Engine] = {}
        for name in ("stacked", "autograd"):
            yield BenchProgress(f"learner: {agents} agents, {name}")
            engines[name] = Trainer(make_run(agents, sizes.batches[0], name), device).engine
            for batch in sizes.batches:
                asked[name, batch] = _updates_per_second(engines[name], run_of_batch(run, batch), device, sizes.seconds)
        for batch in sizes.batches:
            autograd, stacked = asked["autograd", batch], asked["stacked", batch]
            yield row(f"learner/gpu/{agents}/{batch}/autograd", "updates/s", autograd, ("stacked", stacked))
        for batch in sizes.served:
            yield BenchProgress(f"learner: {agents} agents, fed by a replay server with batches of {batch:,}")
            fed = _fed_speed(engines[chosen], run_of_batch(run, batch), device, sizes.seconds)
            name = f"learner/gpu/{agents}/{batch}"
            yield row(f"{name}/served", "batches/s", fed.served, (f"asked by {chosen}", asked[chosen, batch]), 1.0)
            yield row(f"{name}/waiting", "%", 100 * fed.waiting, ("", 0.0))


def make_run(agents: int, batch: int, engine: str) -> Run:
    """Returns a run of simple_spread with the defaults of a run and no rate limit."""
    replay = {"limit": "off", "min_size": 1024, "batch": batch, "capacity": 16_384}
    settings = {"scenario": "simple_spread", "world": {"N": agents}, "replay": replay, "algorithm": {"engine": engine}}
    return Run("bench", make_run_spec(settings), world_spec("simple_spread", {"N": agents}))


def run_of_batch(run: Run, batch: int) -> Run:
    """Returns a run with another size of its batches."""
    return make_run(len(run.joint.agents), batch, run.spec.algorithm.engine)


def _updates_per_second(engine: Engine, run: Run, device: Device, seconds: float) -> float:
    """Returns the updates a second; 0 if they do not fit into the memory of the GPU."""
    from learner_node.inspection.device_speed import updates_per_second  # noqa: PLC0415
    from learner_node.trainer import Trainer  # noqa: PLC0415

    return updates_per_second(Trainer(run, device, engine), run, device, seconds) or 0.0


def _fed_speed(engine: Engine, run: Run, device: Device, seconds: float) -> FedSpeed:
    from learner_node.inspection.device_speed import fed_speed  # noqa: PLC0415
    from learner_node.trainer import Trainer  # noqa: PLC0415

    with Processes() as processes:
        server = processes.replay()
        server.open(run)
        fill(server.endpoint, run, record(run, rows=COPIES), max(run.spec.replay.min_size, run.spec.replay.batch))
        return fed_speed(Trainer(run, device, engine), run, server.endpoint, device, seconds)
