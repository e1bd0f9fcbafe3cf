"""The figures of a run's evaluation, added to its TensorBoard files and to the run of its tracker.

`shoal train` evaluates a team after its learner has ended, so the figures do not go through the learner's metrics log.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from tensorboardX import SummaryWriter

from common.files import writing
from common.run.directory import RunDirectory
from learner_node.config import TrackerKind
from learner_node.reporting.trackers import make_tracker


def log_evaluation(directory: RunDirectory, kind: TrackerKind, updates: int, values: Mapping[str, float]) -> None:
    """Writes the figures of policies after `updates` updates; may raise any exception of the tracker's package.

    kind: the tracker; `none` writes to TensorBoard only. values: finite numbers by name, such as `evaluation/return`.
    """
    # Files are named by the second in which they are opened: without the suffix, this one would replace a short run's.
    writer = SummaryWriter(str(directory.tensorboard), filename_suffix=".evaluation")
    with writing(directory.path), writer as tensorboard:
        for name, value in values.items():
            tensorboard.add_scalar(name, value, updates)
    if kind != "none":
        tracker = make_tracker(kind, directory.run, directory)
        tracker.log_evaluation(updates, {**values, "time": time.time()})
        tracker.close()
