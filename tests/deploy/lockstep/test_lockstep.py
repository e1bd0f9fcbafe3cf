"""Lockstep: the same seed gives the same bits, however often the run is interrupted."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from common.errors import ConfigError, ShoalError
from common.process import command
from common.process.stop import Stop
from common.run.directory import RunDirectory
from common.run.evaluations import read_evaluations
from common.run.run import Run, make_run_spec
from common.worlds import world_spec
from deploy.local.config import TrainConfig
from deploy.local.live_display import LineDisplay
from deploy.lockstep import record_files as records
from deploy.lockstep.run import LockstepRun
from learner_node.persistence.checkpoints import Checkpoints
from shoal.cli import shoal

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "network": {"policy_hidden": [8], "critic_hidden": [8]},
    "replay": {"batch": 32, "samples_per_insert": 4.0, "min_size": 300, "capacity": 700},
    "exploration": {"random_steps": 200},
    "budget": {"steps": 2_500},
}
COOPERATIVE = ("simple_spread", {"exploration": {"kind": "ornstein_uhlenbeck", "random_steps": 200}})
MIXED = ("simple_tag", {"algorithm": {"name": "matd3"}})
DISCRETE = ("simple_reference", {"world": {"continuous_actions": False, "max_cycles": 7}})
DRAWING = ("collect_treasure", {"replay": {**SMALL["replay"], "n_step": 1}})
"""Its worlds draw in the middle of episodes."""
PRIORITISED = ("simple_adversary", {"replay": {**SMALL["replay"], "priority_exponent": 0.6, "n_step": 3}})
NORMALISED = ("simple_tag", {"algorithm": {"normalise_observations": True, "normalise_rewards": True}})
REMEMBERING = ("simple_reference", {"world": {"history": 2, "max_cycles": 7}})


class StopAfter(Stop):
    """Asks for a stop at its n-th look: at the same point of a run every time. `meanwhile` is told each look."""

    def __init__(self, looks: float, meanwhile: Callable[[int], object]) -> None:
        super().__init__()
        self._most, self._looks, self._meanwhile = looks, 0, meanwhile

    @property
    def requested(self) -> bool:
        self._looks += 1
        self._meanwhile(self._looks)
        return self._looks > self._most

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


class Training:
    """One directory's run in lockstep."""

    def __init__(self, path: Path, scenario: str, settings: dict[str, Any], seed: int = 0, **config: Any) -> None:
        spec = make_run_spec({"scenario": scenario, "seed": seed}, SMALL, settings)
        self.run = Run("run-1", spec, world_spec(scenario, **spec.world))
        self.directory = RunDirectory(path)
        self._config = TrainConfig(**{"actors": 2, "copies": 20, "lockstep": True, **config})
        path.mkdir(exist_ok=True)

    def train(
        self,
        looks: float = float("inf"),
        meanwhile: Callable[[int], object] = int,
        checkpoint_every_s: float = 20.0,
    ) -> bool:
        """Trains up to the n-th look at the stop; returns whether the budget is used."""
        self.engine = LockstepRun(self.directory, self.run, self._config, checkpoint_every_s)
        try:
            return self.engine.train(StopAfter(looks, meanwhile), LineDisplay(Console(file=io.StringIO())))
        finally:
            self.engine._learner_lock.release()

    def bits(self) -> dict[str, bytes]:
        """Returns all that was learnt, and what the replay holds at the end."""
        state = Checkpoints(self.directory.checkpoints, 3).load()
        assert state is not None
        found = {name: tensor.numpy().tobytes() for name, tensor in state.tensors.items()}
        done = state.counters
        found["counters"] = repr((done.updates, done.env_steps, done.samples, done.weights_version)).encode()
        found["replay"] = self.engine._stream.table.ring.in_order().tobytes()
        return found


@pytest.mark.parametrize(
    ("scenario", "settings"), [COOPERATIVE, MIXED, DISCRETE, DRAWING, PRIORITISED, NORMALISED, REMEMBERING]
)
def test_interrupted_anywhere_it_gives_the_bits_of_the_whole_run(
    tmp_path: Path, scenario: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "FILE_BYTES", 30_000)
    whole = Training(tmp_path / "whole", scenario, settings)
    assert whole.train()

    parts = Training(tmp_path / "parts", scenario, settings)
    for looks in (0, 2, 3, 20, 150):
        assert not parts.train(looks)
    assert parts.train()

    assert parts.bits() == whole.bits()
    assert b" 2500, " in whole.bits()["counters"]


def test_the_same_seed_gives_the_same_bits_and_another_gives_others(tmp_path: Path) -> None:
    bits = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        training = Training(tmp_path / name, "simple_spread", {}, seed)
        training.train()
        bits.append(training.bits())
    assert bits[0] == bits[1]
    assert bits[0]["policies/online"] != bits[2]["policies/online"]


def test_units_of_an_environment_change_no_bit_of_what_is_learnt(tmp_path: Path) -> None:
    """Powers of two, which round nothing: the normalised run is the same, from the actors' first observation on."""
    found = []
    for obs, reward in ((1.0, 1.0), (2.0**12, 2.0**15)):
        world = {"obs_scale": obs, "reward_scale": reward, "odd_columns": True}
        settings = {"world": world, "algorithm": NORMALISED[1]["algorithm"]}
        training = Training(tmp_path / str(obs), "pettingzoo:tests.learning.reach_target", settings, copies=4)
        assert training.train()
        found.append(training.bits())
    ours, others = found
    for name in ("policies/online", "policies/target", "critics/online", "critics/adam/mean", "counters"):
        assert ours[name] == others[name]
    assert ours["replay"] != others["replay"]


def test_killed_at_any_moment_it_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    short = {"budget": {"steps": 1_000}}
    whole = Training(tmp_path / "whole", "simple_tag", short)
    moments = {4, 30, 60}

    def kill(look: int) -> None:
        """Keeps what a process killed now would leave behind."""
        if look in moments:
            shutil.copytree(tmp_path / "whole", tmp_path / f"killed-{look}")

    assert whole.train(meanwhile=kill, checkpoint_every_s=0.0)
    for look in moments:
        killed = Training(tmp_path / f"killed-{look}", "simple_tag", short)
        assert killed.train()
        assert killed.bits() == whole.bits()


def test_a_world_that_cannot_be_kept_begins_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    replay = {**SMALL["replay"], "n_step": 2}
    training = Training(tmp_path, "mpe2:simple", {"budget": {"steps": 800}, "replay": replay}, copies=4)
    assert not training.train(looks=20)
    assert training.train()
    assert "the state of mpe2:simple cannot be stored" in caplog.text
    assert [session.incarnation for session in training.engine._stream.actor_snapshots()] == [2, 2]


def test_a_finished_run_goes_on_with_a_new_replay_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Training(tmp_path, "simple_spread", {})
    assert first.train()
    shutil.rmtree(tmp_path / "lockstep")
    (tmp_path / "finished").unlink()
    second = Training(tmp_path, "simple_spread", {"budget": {"steps": 4_000}})
    assert second.train(looks=30) is False
    assert "the replay starts empty" in caplog.text
    # Interrupted while it warms up once more, and again: it keeps the ratio from where it began anew.
    assert second.train()
    status = second.engine._stream.status
    assert status is None or status.samples_per_insert < 5.0
    assert b" 4000, " in second.bits()["counters"]


def test_other_actors_than_before_are_refused_and_other_settings_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not Training(tmp_path, "simple_spread", {}).train(looks=20)
    with pytest.raises(ConfigError, match="--actors 2 --copies 20, not --actors 3 --copies 20"):
        Training(tmp_path, "simple_spread", {}, actors=3).train()
    Training(tmp_path, "simple_spread", {"algorithm": {"discount": 0.8}}, threads=2).train(looks=1)
    assert "its settings were changed" in caplog.text
    assert "--threads was 1" in caplog.text


def test_what_was_kept_and_is_damaged_ends_the_run_with_the_way_out(tmp_path: Path) -> None:
    training = Training(tmp_path, "simple_spread", {})
    assert not training.train(looks=20)
    kept = next((tmp_path / "lockstep").glob("state-*"))
    kept.write_bytes(kept.read_bytes()[:-9])
    with pytest.raises(ShoalError, match=r"move .*lockstep away"):
        training.train()


def test_the_clock_of_the_machine_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bits = []
    for name, step_s in (("quick", 0.001), ("slow", 7.0)):
        now = [1_000.0]

        def clock(step_s: float = step_s, now: list[float] = now) -> float:
            now[0] += step_s
            return now[0]

        with monkeypatch.context() as patch:
            patch.setattr("time.monotonic", clock)
            training = Training(tmp_path / name, "simple_spread", {"budget": {"steps": 1_500}})
            assert training.train()
        bits.append(training.bits())
    assert bits[0] == bits[1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--gpu",), "does not support --gpu"),
        (("--redis", "redis://somewhere"), "does not support a --redis URL"),
        (("--copies", 4_000, "--set", "replay.error_buffer=400"), "replay.error_buffer"),
    ],
)
def test_what_contradicts_lockstep_is_bad_usage(
    tmp_path: Path, options: tuple[object, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "simple_spread", "--lockstep", "--run", str(tmp_path / "run"), *map(str, options)]
    assert command.run(shoal, "shoal", arguments) == 2
    assert reason in capsys.readouterr().err


def test_status_says_that_there_is_nobody_to_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "lockstep").mkdir()
    assert command.run(shoal, "shoal", ["status", str(tmp_path)]) == 2
    assert "trains in lockstep" in capsys.readouterr().err


def test_evaluations_change_no_bit_and_give_the_same_figures_again(tmp_path: Path) -> None:
    """The bits are those of a run without evaluations. A run that was interrupted lacks what was being evaluated."""
    every = {"evaluation": {"times": 4, "share_of_time": 1.0, "episodes": 5}, "budget": {"steps": 1_200}}
    plain = Training(tmp_path / "plain", "simple_tag", {**every, "evaluation": {"times": 0}})
    whole = Training(tmp_path / "whole", "simple_tag", every)
    parts = Training(tmp_path / "parts", "simple_tag", every)
    assert plain.train()
    assert whole.train()
    assert not parts.train(60)
    assert parts.train()
    assert whole.bits() == plain.bits() == parts.bits()

    def figures(training: Training) -> list[tuple[object, ...]]:
        found = read_evaluations(training.directory.evaluations_file)
        return [(one.env_steps, one.updates, one.return_mean, one.return_ci95, one.metrics) for one in found]

    assert set(map(repr, figures(parts))) <= set(map(repr, figures(whole)))
    assert figures(parts)[-1] == figures(whole)[-1]
    assert read_evaluations(plain.directory.evaluations_file) == []
    # A chunk has 260 steps: the first chunk after each quarter of the budget, and the end.
    assert [one[0] for one in figures(whole)] == [0, 520, 780, 1_040, 1_200]
