"""The training session behind the command `shoal train` and the function `shoal.train`.

session = TrainingSession(config, screen)       checks the settings; writes and starts nothing
session.open("simple_spread", options, {})      creates or reopens the run's directory
session.train()                                 runs all processes until the budget is used or a stop is requested
session.evaluate(show)                          evaluates the team
session.conclude()                              prints warnings, makes films and report, says what to do next
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console

from actor_node.evaluation.evaluate import Evaluation
from actor_node.evaluation.rollouts.copies import exception_text
from common.policy.file import load_policy
from common.process.exit import DONE, FAILED
from common.process.posix import require_posix
from common.process.shell_command import shell_command
from common.process.stop import Stop
from common.run.directory import RunDirectory
from common.run.open_run import RunOptions, open_run
from common.run.preset_choice import BATCHED_COPIES, CONTROL, PARTICLE, PresetChoice
from common.run.run import Run, RunSpec
from deploy.local.config import TrainConfig
from deploy.local.launcher import LocalRun, delete_transitions, has_transitions
from deploy.local.live_display import make_display
from deploy.local.start_checks import local_check, max_capacity, refuse_without_cuda, untrained_text
from learner_node.reporting.trackers import refuse_missing
from learner_node.run_checks.inputs import horizon_remarks
from learner_node.run_checks.sizes import sizes_of
from learner_node.run_checks.warm_up import steps_within_warm_up
from shoal.commands.evaluate.cli import EvaluateConfig, evaluate_run
from shoal.commands.evaluate.progress import EvaluationStopped
from shoal.commands.train.artifacts import Artifacts
from shoal.machine_info import read_machine
from shoal.run_history import read_history

if TYPE_CHECKING:
    from deploy.lockstep.run import LockstepRun

_RESULTS = (
    "policy.safetensors",
    "evaluation.json",
    "checkpoints/",
    "metrics.jsonl",
    "evaluations.jsonl",
    "tensorboard/",
    "logs/",
)


class TrainingSession:
    """Trains one run on this machine, evaluates it and writes its report."""

    def __init__(self, config: TrainConfig, screen: Console) -> None:
        """Raises ConfigError for settings that cannot work on this machine; writes and starts nothing.

        screen: shows the progress.
        """
        if config.lockstep:
            config.check_lockstep()
        else:
            require_posix(
                "A run in several processes", "Pass --lockstep to train in one process, or use Linux or macOS."
            )
        refuse_missing(config.track)
        if config.gpu:
            refuse_without_cuda()
        self.config, self._screen = config, screen
        self.stop = Stop()
        """A request to stop, which the session checks several times a second."""
        self.problem = ""
        """Reason why the trained run could not be evaluated; empty if it could."""
        self._artifacts = Artifacts(config, screen)

    def open(self, scenario: str, options: RunOptions, sections: Mapping[str, Any]) -> RunDirectory:
        """Creates the run's directory, or opens the directory to resume, and returns it.

        scenario: may be empty for a resumed run. sections: settings by section; `options` override them.
        Raises ConfigError for invalid settings, and FinishedError for a run that has used its budget.
        """
        config = self.config
        self.directory, self.run = open_run(
            config.run,
            scenario,
            options,
            sections,
            resume=config.resume,
            role="launcher",
            check=local_check(config, self._print),
            notify=self._print,
            on_chosen=self._take_choice,
            max_capacity=max_capacity(config),
            reproducible=config.lockstep,
        )
        copies = self.config.copies or _last_copies(self.directory)
        self.config = self._artifacts.config = msgspec.structs.replace(self.config, copies=copies)
        self.stop.hint = self._resume_hint
        env_steps, stored = self._earlier_steps()
        if warning := steps_within_warm_up(self.run.spec, env_steps, stored):
            self._print(f"warning: {warning}")
        return self.directory

    def train(self) -> bool:
        """Runs all processes; returns whether the budget was used, so false after a request to stop.

        The calling thread starts, restarts and ends every process, because the kernel ends the processes with the
        thread that started them. Raises ShoalError for a failed process that a restart cannot repair.
        """
        directory, run, config = self.directory, self.run, self.config
        self._print(f"run {run.id} of {run.spec.scenario} in {directory.path}")
        for line in sizes_of(run.spec, run.joint).lines:
            self._print(line)
        local = self._lockstep(run) if config.lockstep else LocalRun(directory, config)
        if not config.lockstep:
            self._print(f"status from another terminal: {shell_command('shoal', 'status', directory.path)}")
        title = f"{run.spec.scenario} · {run.spec.algorithm.name}"
        display = self._artifacts.start(directory, make_display(self._screen, title))
        if not local.train(self.stop, display):
            self._artifacts.conclude(film=False, stopped=lambda: self.stop.requested)
            self._print(self._resume_hint)
            return False
        delete_transitions(directory)
        if untrained := untrained_text(directory):
            self._print(untrained)
        if config.lockstep:
            self._print(f"weights {self.weights_hash}")
        return True

    @property
    def weights_hash(self) -> str:
        """Digest of the run's policies: equal for equal bits."""
        return load_policy(self.directory.policy_file).digest

    def evaluate(self, show: Callable[[Evaluation], object]) -> int:
        """Evaluates the trained run, calls `show` with the result, and returns the exit code: 0, 1, or that of a stop.

        Any exception counts as a failed evaluation, so that the trained team still gets its film and report.
        """
        evaluate = shell_command("shoal", "evaluate", self.directory.path)
        config = EvaluateConfig(episodes=self.config.episodes)
        try:
            result = evaluate_run(self.directory, config, lambda: self.stop.requested, self._screen)
        except EvaluationStopped as e:
            self._print(f"evaluation {e}; evaluate again with: {evaluate}")
            return self.stop.exit_code
        except Exception as e:  # noqa: BLE001  (the trained team gets its report)
            self.problem = exception_text(e)
            self._print(f"not evaluated: {self.problem}\ntry again with: {evaluate}", highlight=False)
            return FAILED
        show(result)
        self._artifacts.record_evaluation(result, lambda: self.stop.requested)
        return DONE

    def conclude(self) -> None:
        """Prints the warnings of a diagnosis, makes films and report, and prints what to do next and the files."""
        if not self.stop.requested:
            self._artifacts.warn(lambda: self.stop.requested)
        self._artifacts.conclude(film=True, stopped=lambda: self.stop.requested)
        self._artifacts.advise()
        path = self.directory.path
        written = [name for name in _RESULTS if (path / name).exists()]
        self._print(f"results in {path}: {', '.join(written)}")

    def close(self) -> None:
        """Releases the lock of the run's directory, so that the run can be resumed."""
        self.directory.release()

    @property
    def _resume_hint(self) -> str:
        config = self.config
        options = config.lockstep_options if config.lockstep else ("--actors", config.actors, "--copies", config.copies)
        resume = shell_command("shoal", "train", "--resume", *options, "--run", self.directory.path)
        return f"stopped; resume with: {resume}"

    def _earlier_steps(self) -> tuple[int, int]:
        """Returns the environment steps of a run so far, and how many of their transitions its replay still has."""
        last = read_history(self.directory.metrics_file).last("env_steps")
        env_steps = 0 if math.isnan(last) else int(last)
        return env_steps, min(env_steps, self.run.spec.replay.capacity) if has_transitions(self.directory) else 0

    def _take_choice(self, choice: PresetChoice, spec: RunSpec) -> None:
        """Takes the copies that suit the world, and prints what was chosen and how to change it."""
        config = self.config
        self.config = msgspec.structs.replace(config, copies=config.copies or choice.copies)
        for line in choice.lines(spec):
            self._print(line)
        if choice.reason:
            other = PARTICLE if choice.preset == CONTROL else CONTROL
            actors = f"{config.actors} actor{'s' if config.actors > 1 else ''}"
            self._print(
                f"processes: {actors} with {self.config.copies} copies of the world each; "
                f"--actors, --copies, --preset {other} or --set section.key=value change the choice"
            )
        for remark in horizon_remarks(spec.algorithm.discount, choice.episode_steps or None):
            or_else = "" if choice.preset == CONTROL else "; or --preset control, which is made for long episodes"
            self._print(f"note: {remark}{or_else}")

    def _lockstep(self, run: Run) -> LockstepRun:
        self._print("starting in one process: imports torch, then makes the networks")
        with self.stop.ending_at_once():
            from deploy.lockstep.run import LockstepRun  # noqa: PLC0415  (importing torch takes seconds)

            return LockstepRun(self.directory, run, self.config)

    def _print(self, text: str, *, highlight: bool | None = None) -> None:
        self._screen.print(text, soft_wrap=True, markup=False, highlight=highlight)


def _last_copies(directory: RunDirectory) -> int:
    """Returns the copies of each worker when a run was last trained on this machine, to resume it with."""
    copies = read_machine(directory).get("launch", {}).get("copies")
    return copies if isinstance(copies, int) and copies > 0 else BATCHED_COPIES
