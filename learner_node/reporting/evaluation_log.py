"""The figures of a run's evaluation, added to its TensorBoard files and to the run of its tracker.

`shoal train` evaluates a team after its learner has ended, so the figures do not go through the learner's metrics log.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing

from common.files import writing
from common.run.directory import RunDirectory
from learner_node.config import TrackerKind
from learner_node.reporting.tensorboard import write_figures
from learner_node.reporting.trackers import make_tracker


def log_evaluation(directory: RunDirectory, kind: TrackerKind, step: int, values: Mapping[str, float]) -> None:
    """Writes the figures of an evaluation at a position on the x axis of the run's curves.

    kind: the tracker; `none` writes to TensorBoard only. values: finite numbers by name, such as `evaluation/return`.
    May raise any exception of the tracker's package.
    """
    with writing(directory.path):
        write_figures(directory, step, values)
    if kind != "none":
        with closing(make_tracker(kind, directory.run, directory)) as tracker:
            tracker.log_evaluation(step, {**values, "time": time.time()})
