"""Before and after the processes of `shoal train`: what does not fit is refused, and a run without updates is named."""

from __future__ import annotations

import os
from pathlib import Path

from common.open_run import Check
from common.policy.file import load_policy
from common.process.resources import available_memory_bytes
from common.run.directory import RunDirectory
from common.run.run import RunSpec
from common.spec import AgentsSpec
from common.wire.messages import Status
from deploy.local.config import TrainConfig
from deploy.local.embedded_redis import SPARE
from learner_node.sizes import BASE_BYTES, refuse_beyond_memory, sizes_of
from learner_node.warm_up import ended_too_early
from replay_server.table.ring import USABLE_FRACTION

QUIET_S = 5.0
"""A start that takes no longer is not explained."""
_TAIL_BYTES = 4_096


class StartWatch:
    """Says why a run is not under way yet: the last line of the log of the process that the others wait for."""

    def __init__(self, replay_log: Path, learner_log: Path) -> None:
        self._logs = {"replay server": replay_log, "learner": learner_log}
        self._who, self._since = "", 0.0

    def __call__(self, status: Status | None, now: float) -> list[str]:
        """Returns the reason in words at monotonic time `now`; empty when nobody is waited for, or not for long."""
        who = "replay server" if status is None else "learner" if status.learner is None else ""
        if who != self._who:
            self._who, self._since = who, now
        if not who or now - self._since < QUIET_S:
            return []
        said = last_event(self._logs[who])
        return [f"the {who} is starting; its log says: {said}" if said else f"the {who} is starting: it loads its code"]


def last_event(log: Path) -> str:
    """Returns the message of a log's last line, without time, level, role and module; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last.partition(": ")[2] or last


def refuse_what_does_not_fit(config: TrainConfig) -> Check:
    """Returns what refuses a run whose replay, learner and actors do not fit into this machine's free memory."""

    def check(spec: RunSpec, joint: AgentsSpec) -> None:
        sizes = sizes_of(spec, joint)
        copies = 1.0 + SPARE if config.redis == "embedded" and not config.lockstep else 1.0
        refuse_beyond_memory(
            sizes,
            joint,
            int(available_memory_bytes() * USABLE_FRACTION),
            learner_bytes=BASE_BYTES if config.gpu else sizes.learner_bytes,
            workers=0 if config.lockstep else config.actors,
            copies=copies,
        )

    return check


def refuse_without_cuda() -> None:
    """Raises ConfigError if this machine has no CUDA device that torch can use. Imports torch, which takes seconds."""
    from learner_node.devices import choose_device  # noqa: PLC0415

    choose_device(gpu=True)


def untrained_in_words(directory: RunDirectory) -> str:
    """Returns what to say of a run whose budget was used before its first update; empty when it was trained."""
    if not directory.policy_file.exists() or load_policy(directory.policy_file).updates:
        return ""
    return ended_too_early(directory.run.spec)
