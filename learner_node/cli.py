"""The command `learner`: trains one run."""

from __future__ import annotations

import contextlib
import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from common.errors import FinishedError
from common.process import command
from common.process.children.parent import die_with_parent
from common.process.monitoring.health import Health, HttpPort
from common.process.monitoring.logs import start_logging
from common.process.monitoring.resources import allow_many_connections, memory_limit_bytes, retain_freed_memory
from common.process.posix import require_posix
from common.process.stop import Stop
from common.run.directory import RunDirectory
from common.run.open_run import Check, RunOptions, open_run
from common.run.preset_choice import PresetChoice
from common.run.run import RunSpec
from common.spec import AgentsSpec
from common.transitions import transition_dtype
from common.wire.keys import load_keys
from common.wire.socket_file import SocketFile
from common.wire.sockets import require_local
from learner_node.config import LearnerConfig
from learner_node.engine_choice import user_classes
from learner_node.reporting.trackers import refuse_missing
from learner_node.run_checks.sizes import refuse_large_learner, sizes_of
from learner_node.run_checks.warm_up import steps_within_warm_up

if TYPE_CHECKING:
    from learner_node.reporting.metrics import Metrics

STAY_PERIOD_S = 1.0
MAX_REPLAY_BYTES = 2**30
"""Largest replay that a preset chooses here: the memory of replay server and Redis is not known, and those of
deploy/compose and deploy/kubernetes have room for it."""
_log = logging.getLogger(__name__)


@click.command()
@command.options(LearnerConfig, RunOptions)
@click.pass_context
def learner(context: click.Context, /, **values: Any) -> int:
    """Train a run's critics and policies from the replay server, and broadcast the policies to the actors.

    The learner opens the run at the replay server and may start before or after it: it waits and logs the reason. It
    ends when the budget (--steps or --time) is used, unless --stay is given, or on Ctrl-C or SIGTERM. It writes a
    checkpoint before it ends.

    \b
    Examples:
      learner --gpu --scenario simple_spread --time 20m --run runs/spread
      learner --resume --run runs/spread --replay tcp://replay-host:5555
    """  # noqa: D301  (click keeps lines after a real backspace unchanged)
    config = command.build(LearnerConfig, values)
    options = command.build(RunOptions, values)
    require_posix("The command `learner`")
    require_local(config.bind, "--bind", insecure=config.insecure, keys=bool(config.keys))
    keys = load_keys(config.keys)
    refuse_missing(config.track)
    os.environ.setdefault("OMP_NUM_THREADS", str(config.threads))
    # torch takes seconds to import: import it only after the options are checked.
    import torch  # noqa: PLC0415

    from learner_node.devices import choose_device  # noqa: PLC0415
    from learner_node.learner import Learner  # noqa: PLC0415
    from learner_node.publishing.broadcast import Broadcast  # noqa: PLC0415
    from learner_node.reporting.metrics import Metrics  # noqa: PLC0415

    torch.set_num_threads(config.threads)
    device = choose_device(gpu=config.gpu)
    start_logging("learner")
    allow_many_connections()
    # Each update with autograd allocates its intermediate results again.
    retain_freed_memory()
    if config.parent:
        die_with_parent(config.parent)
    stop, health = Stop(), Health()
    stop.on_signals()
    metrics = Metrics()
    with contextlib.ExitStack() as stack:
        # Bind both addresses first: if that fails, no run directory is created.
        port = HttpPort(config.metrics_host, config.metrics_port, metrics.registry, health)
        stack.callback(port.close)
        metrics.url = port.url
        broadcast = Broadcast(config.bind, keys)
        stack.callback(SocketFile(broadcast.endpoint).remove)
        stack.callback(broadcast.close)
        sections = command.run_settings(context)
        try:
            directory, run = open_run(
                config.run,
                config.scenario,
                options,
                sections,
                resume=config.resume,
                role="learner",
                check=_refuse_what_does_not_fit(gpu=config.gpu),
                notify=_log.warning,
                poll=partial(_raise_if_requested, stop),
                on_chosen=_log_choice,
                max_capacity=_fits_replay_server,
            )
        except _Stopped:
            return stop.exit_code
        except FinishedError as e:
            # A service manager restarts a learner after the end of its run. That is not a failure.
            _log.warning("%s", e)
            if config.stay:
                metrics.describe(RunDirectory(Path(config.run)).run, config.checkpoint_every)
                _stay(stop, health, metrics)
            return stop.exit_code
        metrics.describe(run, config.checkpoint_every)
        training = Learner(run, directory, config, device, metrics=metrics, broadcast=broadcast)
        stack.callback(training.close)
        _log.info("run %s of %s in %s, metrics at %s", run.id, run.spec.scenario, directory.path, port.url)
        if warning := steps_within_warm_up(run.spec):
            _log.warning("%s", warning)
        training.run(stop, health)
        if config.stay:
            _stay(stop, health, metrics)
    return stop.exit_code


def _log_choice(choice: PresetChoice, spec: RunSpec) -> None:
    for line in choice.lines(spec):
        _log.info("%s", line)


def _fits_replay_server(_spec: RunSpec, agents: AgentsSpec) -> int:
    """Returns how many transitions of a run fit into MAX_REPLAY_BYTES."""
    return MAX_REPLAY_BYTES // transition_dtype(agents).itemsize


class _Stopped(Exception):  # noqa: N818  (a request, not a mistake)
    """Raised when a stop is requested before the run is opened."""


def _raise_if_requested(stop: Stop) -> None:
    if stop.requested:
        raise _Stopped


def _refuse_what_does_not_fit(*, gpu: bool) -> Check:
    """Returns a check that refuses a run whose networks cannot be built or do not fit into this machine's memory.

    It tries a user's own classes and logs warnings about them.
    """

    def check(spec: RunSpec, agents: AgentsSpec) -> None:
        if user_classes(spec.network, spec.algorithm):
            from learner_node.run_checks.user_classes import check_user_classes  # noqa: PLC0415  (as torch above)

            for warning in check_user_classes(spec, agents):
                _log.warning("%s", warning)
        if spec.start_from:
            from learner_node.persistence.start import check_start  # noqa: PLC0415  (as torch above)

            check_start(spec, agents)
        sizes = sizes_of(spec, agents)
        if not gpu:
            refuse_large_learner(sizes, agents, memory_limit_bytes())

    return check


def _stay(stop: Stop, health: Health, metrics: Metrics) -> None:
    """Waits for SIGTERM after the end of the run; /healthz and /readyz report success meanwhile."""
    if stop.requested:
        return
    _log.info("the run is done; waiting for SIGTERM, metrics at %s", metrics.url)
    metrics.progress.set(1.0)
    health.not_ready = ""
    while not stop.wait(STAY_PERIOD_S):
        health.beat()


def main() -> None:
    """Runs `learner` and ends the process."""
    command.main(learner, "learner")
