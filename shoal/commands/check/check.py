"""Checks a world in a child process and collects the figures that the child sends.

The check waits in one place only:

| waits for                | ends with                                                                          |
|--------------------------|------------------------------------------------------------------------------------|
| the child's next message | a message, the child's end, an exception of the watcher, or TIMEOUT_S after the task |
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import msgspec

from common.errors import ConfigError
from common.process.children.child_process import ChildProcess
from common.run.normalisation import resolve_normalisation
from common.run.preset_choice import AUTO, PresetChoice, choose, describe, layer
from common.run.run import UNLIMITED_ROWS, RunSpec, make_run_spec
from common.run.world_facts import WorldFacts
from common.spec import AgentsSpec
from common.worlds.adapters.faults import describe_process_end
from common.worlds.adapters.first_copy import Fault
from shoal.commands.check.figures import (
    AdapterWarning,
    AgentsFound,
    CheckTask,
    ContractTest,
    Measured,
    Message,
    PlayFigures,
    StageStarted,
    StateFound,
    StepRate,
)
from shoal.commands.check.findings import Finding, Suggestion, derive_findings, suggest_settings

DEFAULT_SECONDS = 40.0
TIMEOUT_S = 30.0
"""Time beyond the task's, for making copies and for the contract, after which the child is killed [s]."""
_POLL_PERIOD_S = 0.1
STAGE_REPORT_PERIOD_S = 10.0
"""Period in which a long stage is reported [s]."""


class WorldCheck(msgspec.Struct, frozen=True):
    """The result of a check. `ok` is false if training on the world would fail.

    Example: `shoal.check("pettingzoo:my_env").findings`
    """

    world: str
    ok: bool
    seconds: float
    """Duration of the check [s]."""
    agents: AgentsSpec | None
    """Agents of the world; None if it could not be made."""
    made_s: float
    """Time to import and construct one copy [s]."""
    contract: tuple[ContractTest, ...]
    plays: dict[str, PlayFigures]
    """Figures of the episodes by kind of actions."""
    preset: str
    """The preset that `shoal train` chooses for this world; empty if it could not be measured."""
    preset_reason: str
    preset_settings: str
    """The settings of the preset for this world, as text."""
    rate: StepRate | None
    """The speed of many copies that step together; None for a world whose copies step one by one."""
    findings: tuple[Finding, ...]
    """Problems and notes, the most serious first."""
    suggestions: tuple[Suggestion, ...]
    """Settings to pass with `--set`, each with its reason."""
    fault: str = ""
    """Reason why the check ended early; empty if it was completed."""
    state_dim: int = 0
    """Length of the environment's global state, which critics can read; 0 if it has none."""

    @property
    def settings(self) -> dict[str, Any]:
        """The suggested settings, to pass to `shoal.train(..., settings=...)`."""
        return {one.setting: one.value for one in self.suggestions}


class CheckWatcher:
    """Receives the progress of a check. The base class does nothing; an exception of a subclass ends the check."""

    def stage(self, name: str, seconds: float) -> None:
        """Receives the current stage and its running time [s], at its start and every 10 s."""

    def poll(self) -> None:
        """Is called ten times a second."""


def check_world(spec: RunSpec, *, seconds: float = DEFAULT_SECONDS, watch: CheckWatcher | None = None) -> WorldCheck:
    """Checks the world of a run's settings.

    seconds: time for playing. Raises ConfigError if the name or an option is wrong; a fault of the environment is a
    finding.
    """
    started_at = time.monotonic()
    task = CheckTask(
        spec.scenario,
        spec.world,
        seconds,
        spec.seed,
        spec.episode.max_steps,
        dict(spec.network.sides),
        wants_state=spec.algorithm.critic_sees != "observations",
    )
    collected = _Collected()
    _measure(task, collected, watch or CheckWatcher())
    if collected.fault is not None and collected.fault.kind == "config":
        raise ConfigError(collected.fault.text)
    plays, agents = collected.plays, collected.agents.agents if collected.agents else None
    facts = collected.facts
    choice = choose(AUTO, spec.scenario, agents, facts, spec.episode.max_steps) if agents and facts else None
    findings = derive_findings(spec, agents, plays, collected.contract, collected.warned, fault=collected.fault_text)
    return WorldCheck(
        world=spec.scenario,
        ok=not any(finding.level == "error" for finding in findings),
        seconds=round(time.monotonic() - started_at, 2),
        agents=agents,
        made_s=collected.agents.made_s if collected.agents else 0.0,
        contract=tuple(collected.contract),
        plays=dict(plays),
        preset=choice.preset if choice else "",
        preset_reason=choice.reason if choice else "",
        preset_settings=describe(_preset_spec(spec, choice, agents, facts), only_choices=choice.only_choices)
        if choice and agents
        else "",
        rate=collected.rate,
        findings=tuple(findings),
        suggestions=tuple(suggest_settings(spec, plays)) if agents else (),
        fault=collected.fault_text,
        state_dim=collected.state_dim,
    )


def _preset_spec(spec: RunSpec, choice: PresetChoice, agents: AgentsSpec, facts: WorldFacts | None) -> RunSpec:
    """Returns the settings of a new run of the world with the preset, on a machine with enough memory."""
    settings = layer(choice, agents, facts, UNLIMITED_ROWS)
    return resolve_normalisation(make_run_spec({"scenario": spec.scenario}, settings))


class _Collected:
    """The messages of one child."""

    def __init__(self) -> None:
        self.stage = "the import of its module"
        self.agents: AgentsFound | None = None
        self.state_dim = 0
        self.plays: dict[str, PlayFigures] = {}
        self.contract: list[ContractTest] = []
        self.facts: WorldFacts | None = None
        self.rate: StepRate | None = None
        self.warned: list[str] = []
        self.fault: Fault | None = None
        self.ended = ""
        """Description of an early end of the child; empty if the child sent everything."""

    @property
    def fault_text(self) -> str:
        if self.fault is not None and self.fault.text:
            return self.fault.text
        return self.ended

    def add(self, message: Message) -> None:
        match message:
            case StageStarted():
                self.stage = message.stage
            case AgentsFound():
                self.agents = message
            case StateFound():
                self.state_dim = message.state_dim
            case Measured():
                self.facts = message.facts
            case PlayFigures():
                self.plays[message.actions] = message
            case ContractTest():
                self.contract.append(message)
            case StepRate():
                self.rate = message
            case AdapterWarning() if message.text not in self.warned:
                self.warned.append(message.text)
            case Fault():
                self.fault = self.fault or message


def _measure(task: CheckTask, collected: _Collected, watch: CheckWatcher) -> None:
    child = ChildProcess("shoal.commands.check.check_process")
    killed = False
    try:
        with contextlib.suppress(OSError):  # the child has died; its exit code is read below
            child.pipe.send_bytes(msgspec.msgpack.encode(task))
        deadline = time.monotonic() + task.seconds + TIMEOUT_S
        stage_at = named_at = time.monotonic()
        watch.stage(collected.stage, 0.0)
        while True:
            watch.poll()
            stage = collected.stage
            message = child.receive(_POLL_PERIOD_S)
            if message is not None:
                collected.add(msgspec.msgpack.decode(message, type=Message))
            elif not child.may_send:
                break
            now = time.monotonic()
            if collected.stage != stage:
                stage_at = named_at = now
                watch.stage(collected.stage, 0.0)
            elif now - named_at >= STAGE_REPORT_PERIOD_S:
                named_at = now
                watch.stage(collected.stage, now - stage_at)
            if now > deadline:
                killed = True
                collected.ended = f"{collected.stage}: did not finish within {now - stage_at:.0f} s; killed"
                break
    finally:
        code = child.kill()
    if code and not killed:
        collected.ended = f"{collected.stage}: {describe_process_end(code)}"
