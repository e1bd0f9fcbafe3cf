"""Checks a world in a child process and collects the figures that the child sends.

| waits for                | frees it                                                                          |
|--------------------------|-----------------------------------------------------------------------------------|
| the child's next message | a message, the child's end, the callback's exception, or LIMIT_S after the task's time |
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import msgspec

from common.errors import ConfigError
from common.process.child_process import ChildProcess
from common.run.run import RunSpec
from common.spec import AgentsSpec
from common.worlds.adapters.faults import process_ended
from common.worlds.adapters.first_copy import Fault
from shoal.commands.check.figures import AgentsFound, Began, Contract, Message, Play, Rate, Task, Warned
from shoal.commands.check.findings import Finding, Suggestion, find, suggest

DEFAULT_SECONDS = 40.0
LIMIT_S = 30.0
"""Time beyond the task's, for making copies and for the contract, after which the child is killed [s]."""
_POLL_S = 0.1
SLOW_STAGE_S = 10.0
"""Times after which a stage is named again [s]."""


class WorldCheck(msgspec.Struct, frozen=True):
    """The result of a check. `ok` is false if training on the world would fail.

    Example: `shoal.check("pettingzoo:my_env").findings`
    """

    world: str
    ok: bool
    seconds: float
    """Duration of the check [s]."""
    agents: AgentsSpec | None
    """None if the world could not be made."""
    made_s: float
    """Time to import and construct one copy [s]."""
    contract: tuple[Contract, ...]
    plays: dict[str, Play]
    """Kind of actions -> figures of its episodes."""
    rate: Rate | None
    """The speed of many copies that step together; None for a world whose copies step one by one."""
    findings: tuple[Finding, ...]
    """What to fix or to know, the most serious first."""
    suggestions: tuple[Suggestion, ...]
    """Settings to pass with `--set`, each with its reason."""
    fault: str = ""
    """Why the check ended early; empty if it did not."""

    @property
    def settings(self) -> dict[str, Any]:
        """The suggested settings, to pass to `shoal.train(..., settings=...)`."""
        return {one.setting: one.value for one in self.suggestions}


class Watch:
    """Receives the progress of a check; this base class ignores it. An exception ends the check."""

    def stage(self, name: str, seconds: float) -> None:
        """Receives the stage that runs, and for how long it has run [s]; called at its start and every 10 s."""

    def tick(self) -> None:
        """Is called ten times a second."""


def check_world(spec: RunSpec, *, seconds: float = DEFAULT_SECONDS, watch: Watch | None = None) -> WorldCheck:
    """Checks the world of a run's settings.

    seconds: time for playing. Raises ConfigError if the name or an option is wrong; a fault of the environment is a
    finding.
    """
    started_at = time.monotonic()
    task = Task(spec.scenario, spec.world, seconds, spec.seed, spec.episode.max_steps, dict(spec.network.sides))
    collected = _Collected()
    _measure(task, collected, watch or Watch())
    if collected.fault is not None and collected.fault.kind == "config":
        raise ConfigError(collected.fault.text)
    plays, agents = collected.plays, collected.agents.agents if collected.agents else None
    findings = find(spec, agents, plays, collected.contract, collected.warned, fault=collected.fault_text)
    return WorldCheck(
        world=spec.scenario,
        ok=not any(finding.level == "error" for finding in findings),
        seconds=round(time.monotonic() - started_at, 2),
        agents=agents,
        made_s=collected.agents.made_s if collected.agents else 0.0,
        contract=tuple(collected.contract),
        plays=dict(plays),
        rate=collected.rate,
        findings=tuple(findings),
        suggestions=tuple(suggest(spec, agents, plays)) if agents else (),
        fault=collected.fault_text,
    )


class _Collected:
    """The messages of one child."""

    def __init__(self) -> None:
        self.stage = "the import of its module"
        self.agents: AgentsFound | None = None
        self.plays: dict[str, Play] = {}
        self.contract: list[Contract] = []
        self.rate: Rate | None = None
        self.warned: list[str] = []
        self.fault: Fault | None = None
        self.ended = ""
        """How the child ended before it had sent everything; empty if it did not."""

    @property
    def fault_text(self) -> str:
        if self.fault is not None and self.fault.text:
            return self.fault.text
        return self.ended

    def add(self, message: Message) -> None:
        match message:
            case Began():
                self.stage = message.stage
            case AgentsFound():
                self.agents = message
            case Play():
                self.plays[message.actions] = message
            case Contract():
                self.contract.append(message)
            case Rate():
                self.rate = message
            case Warned() if message.text not in self.warned:
                self.warned.append(message.text)
            case Fault():
                self.fault = self.fault or message


def _measure(task: Task, collected: _Collected, watch: Watch) -> None:
    child = ChildProcess("shoal.commands.check.check_process")
    killed = False
    try:
        with contextlib.suppress(OSError):  # the child has died; its exit code tells how
            child.pipe.send_bytes(msgspec.msgpack.encode(task))
        deadline = time.monotonic() + task.seconds + LIMIT_S
        stage_at = named_at = time.monotonic()
        watch.stage(collected.stage, 0.0)
        while True:
            watch.tick()
            stage = collected.stage
            if not _receive(child, collected.add):
                break
            now = time.monotonic()
            if collected.stage != stage:
                stage_at = named_at = now
                watch.stage(collected.stage, 0.0)
            elif now - named_at >= SLOW_STAGE_S:
                named_at = now
                watch.stage(collected.stage, now - stage_at)
            if now > deadline:
                killed = True
                collected.ended = f"{collected.stage}: not done after {now - stage_at:.0f} s; killed"
                break
    finally:
        code = child.kill()
    if code and not killed:
        collected.ended = f"{collected.stage}: {process_ended(code)}"


def _receive(child: ChildProcess, add: Callable[[Message], None]) -> bool:
    """Receives one message if one arrives soon; returns whether the child may send more."""
    try:
        if child.pipe.poll(_POLL_S):
            add(msgspec.msgpack.decode(child.pipe.recv_bytes(), type=Message))
            return True
    except (EOFError, OSError):
        time.sleep(_POLL_S / 10.0)
        return child.process.poll() is None
    return child.process.poll() is None or child.pipe.poll()
