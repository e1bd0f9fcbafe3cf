"""Tests of the search: it stays within its ranges, improves, and continues after a stop."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from common.errors import ConfigError
from shoal.commands.sweep import table
from shoal.commands.sweep.plan import PlannedRun
from shoal.commands.sweep.search import JOURNAL, Dimension, Search, dimensions

VARY = ("algorithm.critic_learning_rate=1e-4..1e-1 log", "replay.batch=64..256", "algorithm.name=maddpg|matd3")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def settings_of(run: PlannedRun) -> dict[str, str]:
    return dict(setting.split("=", 1) for setting in run.variant.settings)


class Trainer:
    """Pretends to train: the return is at most 0, at a rate of 1e-2."""

    def __init__(self, fails: Sequence[int] = ()) -> None:
        self.done: list[PlannedRun] = []
        self._fails = fails

    def __call__(self, runs: Sequence[PlannedRun]) -> None:
        for run in runs:
            if table.outcome_of(run) is not None:
                continue
            self.done.append(run)
            if len(self.done) in self._fails:
                continue
            rate = float(settings_of(run)["algorithm.critic_learning_rate"])
            run.directory.mkdir(parents=True, exist_ok=True)
            result = {"return_mean": -abs(math.log10(rate) + 2), "updates": 10}
            (run.directory / "evaluation.json").write_text(json.dumps(result))


def search(directory: Path, trials: int, seeds: Sequence[int] = (1,)) -> Search:
    return Search(directory, VARY, seeds, trials, 1)


def never() -> bool:
    return False


def test_ranges_and_choices_are_parsed() -> None:
    assert dimensions(VARY) == [
        Dimension("algorithm.critic_learning_rate", (), 1e-4, 1e-1, whole=False, log=True),
        Dimension("replay.batch", (), 64, 256, whole=True, log=False),
        Dimension("algorithm.name", ("maddpg", "matd3")),
    ]


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ([], "needs a setting to vary"),
        (["a.b=2..1"], "the lower bound first"),
        (["a.b=0..1 log"], "above 0 with log"),
        (["a.b=x..1"], "not a range of numbers"),
        (["a.b"], "Write KEY=VALUE"),
        (["a.b=1..2", "a.b=1|2"], "a.b twice"),
    ],
)
def test_an_invalid_search_is_refused(vary: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dimensions(vary)


def test_trials_stay_within_their_ranges_and_appear_in_the_table(tmp_path: Path) -> None:
    trainer = Trainer()
    runs = search(tmp_path, 20, seeds=(3, 4)).run(trainer, never)
    assert len(runs) == len(trainer.done) == 40
    for run in runs:
        chosen = settings_of(run)
        assert 1e-4 <= float(chosen["algorithm.critic_learning_rate"]) <= 1e-1
        assert 64 <= int(chosen["replay.batch"]) <= 256
        assert chosen["algorithm.name"] in ("maddpg", "matd3")
    rows = table.gather(runs).rows
    assert len(rows) == 20
    assert all(row.seeds == 2 for row in rows)
    # Twenty random draws come within 0.2 of the best in 15 of 16 cases; with feedback, closer.
    assert rows[0].return_mean > -0.2


def test_a_stopped_search_finishes_its_running_trial(tmp_path: Path) -> None:
    first = Trainer()
    runs = search(tmp_path, 5, seeds=(1, 2)).run(first, lambda: len(first.done) >= 4)
    assert len(runs) == 4
    (tmp_path / "trial-0001" / "seed-2" / "evaluation.json").unlink()
    second = Trainer()
    runs = search(tmp_path, 5, seeds=(1, 2)).run(second, never)
    assert len(runs) == 10
    assert [run.directory.relative_to(tmp_path) for run in second.done[:2]] == [
        Path("trial-0001/seed-2"),
        Path("trial-0002/seed-1"),
    ]
    assert {one.variant.settings for one in first.done}.isdisjoint({one.variant.settings for one in second.done[1:]})
    third = Trainer()
    search(tmp_path, 5, seeds=(1, 2)).run(third, never)
    assert third.done == []
    assert (tmp_path / JOURNAL).exists()


def test_continuing_a_search_with_other_values_is_refused(tmp_path: Path) -> None:
    search(tmp_path, 1).run(Trainer(), never)
    other = Search(tmp_path, (*VARY[:2], "algorithm.name=maddpg|iddpg"), (1,), 2, 1)
    with pytest.raises(ConfigError, match=r"--vary algorithm\.name: .* or name another directory with --run"):
        other.run(Trainer(), never)


def test_a_failed_trial_is_reported_and_the_search_continues(tmp_path: Path) -> None:
    runs = search(tmp_path, 3).run(Trainer(fails=[2]), never)
    assert len(table.gather(runs).outcomes) == 2
