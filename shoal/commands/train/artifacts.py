"""What `shoal train` leaves to be looked at: its machine, a dashboard, and at the end warnings, films and a report.

None of it may cost a run its result: what goes wrong here is one line on the screen.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from rich.console import Console

from common.errors import ShoalError
from common.run.directory import RunDirectory
from common.worlds import is_foreign
from deploy.local.config import TrainConfig
from deploy.local.live_display import Display
from shoal.commands.diagnose.cli import print_warnings_after_training
from shoal.commands.report import FILM_FILE, REPORT_FILE, write_report
from shoal.commands.report.machine_info import record_machine
from shoal.commands.train.afterwards import Answer, Task, make, make_in_child
from shoal.commands.train.dashboard import Dashboard

_FILM_EPISODES = 2
_FILM_WIDTH = 360
_FILM_STEPS = 100
"""Of an episode: worlds whose episodes are long are filmed at their beginning, so that it takes a few seconds."""


class Artifacts:
    """What is shown of one run that trains."""

    def __init__(self, config: TrainConfig, screen: Console) -> None:
        """Takes the dashboard's port, before there is a run; ConfigError if it is in use."""
        self._config, self._screen = config, screen
        self._dashboard = Dashboard(config.dashboard_port) if config.dashboard else None

    def begin(self, directory: RunDirectory, display: Display) -> Display:
        """Notes what machine this is, and returns the display, served to browsers too where --dashboard says so."""
        self._directory, config = directory, self._config
        launch = {name: getattr(config, name) for name in ("actors", "copies", "threads", "gpu", "lockstep")}
        redis = config.redis if config.redis in ("embedded", "none") else "a server that runs"
        self._softly("a note of the machine", lambda: record_machine(directory, {**launch, "redis": redis}))
        if self._dashboard is None:
            return display
        self._dashboard.serve(directory.path, display)
        self._screen.print(f"look at it in a browser: {self._dashboard.url}", soft_wrap=True)
        return self._dashboard

    def warn(self, stopped: Callable[[], bool]) -> None:
        """Prints the warnings of a diagnosis of the run, if there are any, until a stop is requested."""

        def look(directory: RunDirectory, episodes: int) -> Answer:
            return self._make(Task("diagnosis", str(directory.path), episodes), stopped)

        self._softly("a diagnosis", lambda: print_warnings_after_training(self._directory, self._screen, look))

    def conclude(self, *, film: bool, stopped: Callable[[], bool] = bool) -> None:
        """Makes the film, if one is wanted and the world can be pictured, and the report."""
        if film and not self._config.no_film and find_spec("PIL"):
            self._softly("a film", lambda: self._make_film(stopped))
            self._softly("films of its milestones", lambda: self._film_milestones(stopped))
        self._softly("the report", self._make_report)
        if self._dashboard is not None:
            self._dashboard.stop_serving()

    def _make(self, task: Task, stopped: Callable[[], bool]) -> Answer:
        return make_in_child(task, stopped) if is_foreign(self._directory.run.spec.scenario) else make(task)

    def _film(self, directory: RunDirectory, episodes: int, stopped: Callable[[], bool]) -> None:
        output = str(directory.path / FILM_FILE)
        self._make(Task("film", str(directory.path), episodes, output, _FILM_WIDTH, _FILM_STEPS), stopped)

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

    def _softly(self, what: str, make: Callable[[], None]) -> None:
        try:
            make()
        except ShoalError as e:
            self._screen.print(f"without {what}: {e}", soft_wrap=True, markup=False)
        except Exception as e:  # noqa: BLE001  (a defect of ours or of a renderer must not cost a trained team)
            self._screen.print(f"without {what}: {type(e).__name__}: {e}", soft_wrap=True, markup=False)
