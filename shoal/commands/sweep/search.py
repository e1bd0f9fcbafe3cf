"""`shoal sweep --search N`: Optuna chooses the settings to try from the results of earlier trials.

    ask for trials -> one run for each seed of a trial -> report the mean return of each trial -> ask again

The study is a journal file in the sweep's directory. A restarted search finishes the trials that were running and then
asks for the remaining ones.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from common.errors import ConfigError
from shoal.commands.sweep import table
from shoal.commands.sweep.plan import PlannedRun, Variant, parse_axis

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

JOURNAL = "search.journal"
RunAll = Callable[[Sequence[PlannedRun]], object]
"""Executes those runs that have no outcome."""

_RANGE = re.compile(r"^(?P<low>[^|]+?)\.\.(?P<high>[^|]+?)(?P<log>\s+log)?$")


class Dimension(NamedTuple):
    """A setting to search: one of several choices, or a number between two bounds."""

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False

    def suggest(self, trial: Trial) -> object:
        """Returns the value that the trial suggests."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)


def dimensions(vary: Sequence[str]) -> list[Dimension]:
    """Parses `KEY=LOW..HIGH`, `KEY=LOW..HIGH log` and `KEY=V1|V2`; raises ConfigError for an invalid text."""
    found = [_dimension(text) for text in vary]
    keys = [one.key for one in found]
    if not found:
        raise ConfigError(
            "--search needs a setting to vary, as in --vary 'algorithm.critic_learning_rate=1e-4..1e-2 log'."
        )
    if len(set(keys)) < len(keys):
        raise ConfigError(f"--vary names {next(key for key in keys if keys.count(key) > 1)} twice. Remove one.")
    return found


def _dimension(text: str) -> Dimension:
    key, equals, values = text.partition("=")
    bounds = _RANGE.match(values.strip()) if equals else None
    if bounds is None:
        key, choices = parse_axis(text)
        return Dimension(key, choices)
    try:
        low, high = float(bounds["low"]), float(bounds["high"])
    except ValueError:
        raise ConfigError(f"--vary {text}: {values.strip()} is not a range of numbers. Write LOW..HIGH.") from None
    if not low < high or (bounds["log"] and low <= 0):
        raise ConfigError(
            f"--vary {text} is invalid. Write LOW..HIGH with the lower bound first, and above 0 with log."
        )
    whole = all(re.fullmatch(r"[+-]?\d+", bounds[name].strip()) for name in ("low", "high"))
    return Dimension(key.strip(), (), low, high, whole, bool(bounds["log"]))


class Search:
    """An Optuna study and its runs."""

    def __init__(self, directory: Path, vary: Sequence[str], seeds: Sequence[int], trials: int, parallel: int) -> None:
        """Opens or continues the study; raises ConfigError without Optuna or for an invalid --vary.

        parallel: number of parallel runs; trials are requested in groups that fill them.
        """
        self._dimensions, self._seeds, self._trials = dimensions(vary), seeds, trials
        self._directory, self._group = directory, max(1, parallel // len(seeds))
        directory.mkdir(parents=True, exist_ok=True)
        self._study = _open(directory, seeds[0])

    def run(self, run_all: RunAll, stopped: Callable[[], bool]) -> list[PlannedRun]:
        """Searches until all trials are reported or `stopped`; returns the runs of all trials."""
        while not stopped() and (group := self._next_group()):
            run_all([run for trial in group for run in self._planned(trial)])
            if not stopped():
                for trial in group:
                    self._report_trial(trial)
        return [run for trial in self._study.trials for run in self._planned(trial)]

    def _next_group(self) -> list[FrozenTrial]:
        """Returns the trials to execute: the ones that were running, else new ones."""
        from optuna.trial import TrialState  # noqa: PLC0415  (an optional dependency)

        started = [trial for trial in self._study.trials if trial.state == TrialState.RUNNING]
        room = min(self._group, self._trials - len(self._study.trials))
        for _ in range(0 if started else room):
            trial = self._study.ask()
            for dimension in self._dimensions:
                self._suggest(dimension, trial)
            started.append(self._study.trials[trial.number])
        return started

    def _suggest(self, dimension: Dimension, trial: Trial) -> None:
        try:
            dimension.suggest(trial)
        except ValueError as e:
            raise ConfigError(
                f"--vary {dimension.key}: the search in {self._directory} was started with other values ({e}). Pass "
                "the same values, or name another directory with --run."
            ) from e

    def _report_trial(self, trial: FrozenTrial) -> None:
        from optuna.trial import TrialState  # noqa: PLC0415  (an optional dependency)

        outcomes = [table.outcome_of(run) for run in self._planned(trial)]
        returns = [outcome.return_mean for outcome in outcomes if outcome is not None]
        if len(returns) == len(outcomes):
            self._study.tell(trial.number, statistics.fmean(returns))
        else:
            self._study.tell(trial.number, state=TrialState.FAIL)

    def _planned(self, trial: FrozenTrial) -> list[PlannedRun]:
        trial_name = f"trial-{trial.number:04d}"
        # A trial whose creation was interrupted may lack some values; it uses the defaults for them.
        values = " ".join(f"{key}={_value_text(value)}" for key, value in trial.params.items())
        settings = tuple(f"{key}={value}" for key, value in trial.params.items())
        variant = Variant(f"{trial_name} {values}", settings)
        return [PlannedRun(variant, seed, self._directory / trial_name / f"seed-{seed}") for seed in self._seeds]


def _open(directory: Path, seed: int) -> Study:
    try:
        import optuna  # noqa: PLC0415  (an optional dependency)
        from optuna.storages import JournalStorage  # noqa: PLC0415
        from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415
    except ImportError as e:
        raise ConfigError(f"--search needs the package optuna ({e}). Install it: pip install 'shoal[search]'") from e
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(directory / JOURNAL)))
    study = optuna.create_study(storage=storage, study_name="sweep", direction="maximize", load_if_exists=True)
    # A continued search must not repeat the random choices of its first part.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    return study


def _value_text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
