"""The artifacts of `shoal train`: machine.json and the dashboard, and what is made at the end.

At the end: the evaluation's figures in TensorBoard and trackers, the warnings, the films and the report.

No failure here may cost a run its result: an exception becomes one line on the screen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

from rich.console import Console

from actor_node.evaluation.evaluate import Evaluation
from common.errors import ShoalError
from common.run.directory import RunDirectory
from common.worlds import is_foreign
from deploy.local.config import TrainConfig
from deploy.local.live_display import Display
from learner_node.reporting.line_numbers import step_of
from shoal.commands.diagnose.cli import print_warnings_after_training
from shoal.commands.report import FILM_FILE, REPORT_FILE, write_report
from shoal.commands.report.reading import next_steps
from shoal.commands.report.run_record import read_record
from shoal.commands.train.dashboard import Dashboard
from shoal.commands.train.final_task import FinalTask, FinalTaskResult, evaluation_values, run_in_child, run_task
from shoal.machine_info import record_machine
from shoal.run_history import read_history

_FILM_EPISODES = 2
_FILM_WIDTH = 360
_FILM_STEPS = 100
"""Longest part of an episode to film [steps], so that filming takes a few seconds."""


class Artifacts:
    """The artifacts of one run.

    Example:
        artifacts = Artifacts(config, screen)
        display = artifacts.start(directory, display)
        artifacts.warn(stopped)
        artifacts.conclude(film=True)
        artifacts.advise()
    """

    def __init__(self, config: TrainConfig, screen: Console) -> None:
        """Opens the dashboard's port; raises ConfigError if the port is in use."""
        self.config, self._screen = config, screen
        self._dashboard = Dashboard(config.dashboard_port) if config.dashboard else None

    def start(self, directory: RunDirectory, display: Display) -> Display:
        """Writes machine.json and returns the display of the run, which also feeds the dashboard with --dashboard."""
        self._directory, config = directory, self.config
        launch = {name: getattr(config, name) for name in ("actors", "copies", "threads", "gpu", "lockstep")}
        redis = config.redis if config.redis in ("embedded", "none") else "an existing server"
        self._try("machine.json", lambda: record_machine(directory, {**launch, "redis": redis}))
        if self._dashboard is None:
            return display
        self._dashboard.serve(directory.path, display)
        self._screen.print(f"dashboard: {self._dashboard.url}", soft_wrap=True)
        return self._dashboard

    def record_evaluation(self, found: Evaluation, stopped: Callable[[], bool]) -> None:
        """Adds the figures of an evaluation to the TensorBoard files and, in a child process, to the tracker."""
        directory, values = self._directory, evaluation_values(found)
        env_steps = read_history(directory.metrics_file).last("env_steps")
        line = {"updates": found.updates, "env_steps": 0 if math.isnan(env_steps) else env_steps}
        step = step_of(directory.run, line)
        task = FinalTask("evaluation", str(directory.path), track=self.config.track, step=step, values=values)

        def record() -> None:
            if task.track == "none":
                run_task(task)
            else:
                run_in_child(task, stopped)

        self._try("the evaluation in TensorBoard and trackers", record)

    def warn(self, stopped: Callable[[], bool]) -> None:
        """Diagnoses the run and prints the warnings; a request to stop ends a diagnosis in a child process."""

        def make_diagnosis(directory: RunDirectory, episodes: int) -> FinalTaskResult:
            return self._run(FinalTask("diagnosis", str(directory.path), episodes), stopped)

        self._try("a diagnosis", lambda: print_warnings_after_training(self._directory, self._screen, make_diagnosis))

    def conclude(self, *, film: bool, stopped: Callable[[], bool] = lambda: False) -> None:
        """Makes the films, unless `film` is false, --no-film is set or Pillow is missing; then writes the report."""
        if film and not self.config.no_film and find_spec("PIL"):
            self._try("a film", lambda: self._make_film(stopped))
            self._try("films of its milestones", lambda: self._film_milestones(stopped))
        self._try("the report", self._make_report)
        if self._dashboard is not None:
            self._dashboard.finish(self._directory.path / REPORT_FILE, stopped)

    def advise(self) -> None:
        """Prints the most useful thing to do next with the run."""
        self._try("what to do next", self._print_next_step)

    def _run(self, task: FinalTask, stopped: Callable[[], bool]) -> FinalTaskResult:
        return run_in_child(task, stopped) if is_foreign(self._directory.run.spec.scenario) else run_task(task)

    def _film(self, directory: RunDirectory, episodes: int, stopped: Callable[[], bool]) -> None:
        output = str(directory.path / FILM_FILE)
        self._run(FinalTask("film", str(directory.path), episodes, output, _FILM_WIDTH, _FILM_STEPS), stopped)

    def _make_film(self, stopped: Callable[[], bool]) -> None:
        with self._screen.status("filming"):
            self._film(self._directory, _FILM_EPISODES, stopped)
        self._screen.print(f"film: {self._directory.path / FILM_FILE}", soft_wrap=True, markup=False)

    def _film_milestones(self, stopped: Callable[[], bool]) -> None:
        found = [RunDirectory(file.parent) for file in sorted(self._directory.milestones.glob("*/run.toml"))]
        unfilmed = [milestone for milestone in found if not (milestone.path / FILM_FILE).exists()]
        for i, milestone in enumerate(unfilmed):
            with self._screen.status(f"filming milestone {i + 1} of {len(unfilmed)}"):
                self._film(milestone, 1, stopped)
        if unfilmed:
            films = self._directory.milestones / "*" / FILM_FILE
            self._screen.print(f"films of {len(unfilmed)} milestones: {films}", soft_wrap=True, markup=False)

    def _make_report(self) -> None:
        output = self._directory.path / REPORT_FILE
        write_report([self._directory.path], output)
        self._screen.print(f"report: {output}", soft_wrap=True, markup=False)

    def _print_next_step(self) -> None:
        for step in next_steps(read_record(self._directory.path))[:1]:
            self._screen.print(f"next: {step.as_line}", soft_wrap=True, markup=False, highlight=False)

    def _try(self, what: str, make: Callable[[], None]) -> None:
        try:
            make()
        except ShoalError as e:
            self._screen.print(f"skipped {what}: {e}", soft_wrap=True, markup=False)
        except Exception as e:  # noqa: BLE001  (a bug here or in a renderer must not cost the trained team)
            self._screen.print(f"skipped {what}: {type(e).__name__}: {e}", soft_wrap=True, markup=False)
