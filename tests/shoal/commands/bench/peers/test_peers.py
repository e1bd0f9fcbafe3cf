"""Tests of `shoal bench peers` with a stand-in for the programs: which runs it makes and what it reports."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from common.errors import ConfigError, ShoalError
from shoal.commands.bench import peers
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.measurements import BenchFailure, BenchProgress, BenchRow
from shoal.commands.bench.peers import WORLDS, CurvePoint, TrainingResult
from shoal.commands.bench.peers import replay as replay_peers
from shoal.commands.bench.peers.environment import Peer, PeerEnvironment, PeerFailedError, install_missing
from tests.common.examples import make_run

PYTHON = Path("python")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str, int]]:
    """Replaces installation and training; returns the list of runs: (program, world, settings, seed)."""
    runs: list[tuple[str, str, str, int]] = []

    def install(peer: Peer, config: BenchConfig) -> Generator[BenchProgress, None, Path | None]:
        yield BenchProgress(f"installing {peer.name} {config.cache}")
        return PYTHON

    def shoal(trial: peers._Trial, seed: int) -> TrainingResult:
        runs.append(("shoal", trial.world, trial.settings, seed))
        return TrainingResult(1000.0 * seed, 10.0, -20.0 - seed)

    def peer(trial: peers._Trial, python: Path, peer: Peer, seed: int) -> TrainingResult:
        assert python == PYTHON
        runs.append((peer.name, trial.world, trial.settings, seed))
        if peer.name == "benchmarl":
            raise ShoalError("it failed")
        return TrainingResult(100.0, 1.0, -40.0, [CurvePoint(5.0, 500, 5, -40.0)])

    monkeypatch.setattr(peers, "install_missing", install)
    monkeypatch.setattr(peers, "_train_shoal", shoal)
    monkeypatch.setattr(peers, "_train_peer", peer)
    return runs


def test_shoal_trains_once_for_all_peers_and_a_failed_peer_is_a_row(
    trained: list[tuple[str, str, str, int]], tmp_path: Path
) -> None:
    curves = tmp_path / "curves.json"
    config = BenchConfig(peer=("benchmarl", "torchrl"), seeds=3, curves=str(curves))
    found = list(peers.rows(config))
    assert [run for run in trained if run[0] == "shoal"] == [
        ("shoal", "simple_spread", settings, seed) for settings in ("paper", "own") for seed in (1, 2, 3)
    ]
    rows = {row.name: (row.value, row.baseline) for row in found if isinstance(row, BenchRow)}
    assert rows == {
        "peers/torchrl/paper/env-steps": (2000.0, 100.0),
        "peers/torchrl/paper/updates": (10.0, 1.0),
        "peers/torchrl/paper/return": (-22.0, -40.0),
        "peers/torchrl/own/return": (-22.0, -40.0),
    }
    assert [line for line in found if isinstance(line, BenchFailure)] == [
        BenchFailure(f"peers/benchmarl/{settings}", "it failed") for settings in ("paper", "own")
    ]
    written = json.loads(curves.read_text())
    assert [one["program"] for one in written].count("torchrl==0.14.1") == 6
    assert written[-1]["result"]["curve"][0]["return_mean"] == -40.0


def test_a_second_world_is_named_in_the_rows(trained: list[tuple[str, str, str, int]]) -> None:
    found = list(peers.rows(BenchConfig(peer=("xuance",), peer_world=(WORLDS[1],))))
    assert {run[1] for run in trained} == {WORLDS[1]}
    assert [row.name for row in found if isinstance(row, BenchRow)][-1] == "peers/xuance/HalfCheetah-2x3/own/return"


@pytest.mark.parametrize("config", [BenchConfig(peer=("torchlr",)), BenchConfig(peer_world=("simple_tag",))])
def test_an_unknown_peer_or_world_is_named(config: BenchConfig) -> None:
    with pytest.raises(ConfigError, match="is not measured; "):
        list(peers.rows(config))


def test_a_peer_that_does_not_install_is_a_row_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: PeerEnvironment) -> None:
        raise ShoalError(f"no matching distribution (log: {self.log})")

    monkeypatch.setattr(PeerEnvironment, "install", fail)
    steps = install_missing(Peer("reverb", ("dm-reverb==0.14.0",)), BenchConfig(cache=str(tmp_path)))
    assert next(steps).doing.startswith("installing dm-reverb==0.14.0")
    with pytest.raises(PeerFailedError, match=r"dm-reverb==0.14.0 does not install on Python 3\.\d+: no matching"):
        next(steps)

    *_, failed = peers.rows(BenchConfig(peer=("torchrl",), cache=str(tmp_path)))
    assert isinstance(failed, BenchFailure)
    assert failed.name == "peers/torchrl"


def test_one_replay_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def install(_peer: Peer, _config: BenchConfig) -> Generator[BenchProgress, None, Path]:
        yield BenchProgress("installing")
        return PYTHON

    def fail(setting: replay_peers._Setting) -> Iterator[BenchRow]:
        yield setting.figure("ingest", "items/s", 2.0, 1.0)
        raise ShoalError("its client has ended")

    def succeed(setting: replay_peers._Setting) -> Iterator[BenchRow]:
        yield setting.figure("ingest", "items/s", 4.0, 1.0)

    monkeypatch.setattr(replay_peers, "install_missing", install)
    monkeypatch.setattr(replay_peers, "_beside_reverb", fail)
    monkeypatch.setattr(replay_peers, "_beside_torchrl", succeed)
    found = [one for one in replay_peers.rows(BenchConfig(), make_run(), []) if not isinstance(one, BenchProgress)]
    assert [one.name for one in found] == [
        "replay/peers/reverb/ingest",
        "replay/peers/reverb",
        "replay/peers/torchrl/ingest",
    ]
    assert found[1] == BenchFailure("replay/peers/reverb", "its client has ended")


def test_every_peer_has_constraints_and_a_script() -> None:
    directory = Path(peers.__file__).parent
    for peer in peers.PEERS:
        assert (directory / f"{peer.name}.txt").exists()
        assert (directory / "scripts" / f"{peer.name}_maddpg.py").exists()
        constraints = (directory / f"{peer.name}.txt").read_text().splitlines()
        assert set(peer.packages) <= set(constraints), set(peer.packages) - set(constraints)
