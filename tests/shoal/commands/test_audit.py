"""Tests of `shoal audit` on histories that keep the delivery promises and on histories that break them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from common.errors import ConfigError, ShoalError
from common.run.directory import RunDirectory
from common.wire.audit import Acknowledged, AuditFile, Event, ProcessStart, Recovered, Sent, Serving, Stored, digest
from deploy.local.config import TrainConfig
from deploy.local.launcher import LocalRun
from shoal.commands.audit.cli import audit_run
from shoal.commands.audit.delivery_check import AuditResult, check_deliveries
from shoal.commands.audit.ledger import read_ledger

CAPACITY = 40
"""Four chunks of ten."""


class History:
    """Writes audit files as an actor and a replay server would."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.actor = AuditFile(directory, ProcessStart("actor", "n-0"))
        self.start()

    def start(self, *recovered: int, durability: str = "redis", serving: bool = True) -> None:
        """Starts a life of the server, which recovers the given chunks; `serving`: the recovery is complete."""
        self.server = AuditFile(self.directory, ProcessStart("replay", "default", durability))
        for seq in recovered:
            self.server.write(Recovered("n-0", 1, seq, 10, f"d{seq}"))
        if serving:
            self.server.write(Serving())

    def send(self, *seqs: int) -> None:
        for seq in seqs:
            self.actor.write(Sent("n-0", 1, seq, 10, f"d{seq}"))

    def store(self, *seqs: int, content: str = "d") -> None:
        for seq in seqs:
            self.server.write(Stored("n-0", 1, seq, 10, f"{content}{seq}", CAPACITY))

    def acknowledge(self, seq: int) -> None:
        self.actor.write(Acknowledged("n-0", 1, seq))

    def check(self) -> AuditResult:
        return check_deliveries(read_ledger(self.directory, "", "default"))


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path)
    made.send(*range(1, 9))
    return made


def test_a_run_without_a_fault(history: History) -> None:
    history.store(*range(1, 9))
    history.acknowledge(8)
    result = history.check()
    assert result.broken == []
    assert (result.sent, result.acknowledged, result.stored) == (8, 8, 8)
    assert (result.present, result.overwritten) == (4, 4)


def test_a_chunk_that_a_killed_server_recovers_is_not_lost(history: History) -> None:
    history.store(*range(1, 8))
    history.acknowledge(6)
    history.start(3, 4, 5, 6)
    history.store(7, 8)
    result = history.check()
    assert result.broken == []
    assert (result.acknowledged_lost, result.duplicates, result.unacknowledged_lost) == (0, 0, 0)
    assert result.server_lives == 2


def test_an_acknowledged_chunk_that_is_not_recovered_is_lost(history: History) -> None:
    history.store(*range(1, 8))
    history.acknowledge(6)
    history.start(3, 4, 6)
    result = history.check()
    assert result.acknowledged_lost == 1
    assert result.broken == ["1 acknowledged chunks are lost"]


def test_an_unfinished_recovery_is_ignored(history: History) -> None:
    history.store(*range(1, 8))
    history.acknowledge(7)
    history.start(4, 5, serving=False)
    result = history.check()
    assert (result.acknowledged_lost, result.broken, result.server_lives) == (0, [], 1)
    history.start(4, 5, 6, 7)
    assert history.check().broken == []


def test_an_acknowledged_chunk_that_was_never_stored_is_lost(history: History) -> None:
    history.store(1, 2)
    history.acknowledge(3)
    assert history.check().acknowledged_lost == 1


def test_an_overwritten_chunk_is_not_lost_but_a_missing_newest_chunk_is(history: History) -> None:
    history.store(*range(1, 9))
    history.acknowledge(8)
    history.start(6, 7, 8)
    assert history.check().acknowledged_lost == 1


def test_level_ram_promises_nothing_after_a_restart(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.start(durability="ram")
    history.send(1, 2, 3)
    history.store(1, 2)
    history.acknowledge(2)
    history.start(durability="ram")
    history.store(3)
    result = history.check()
    assert (result.acknowledged_lost, result.acknowledged_lost_with_ram, result.broken) == (0, 2, [])


@pytest.mark.parametrize("again", [7, 1])
def test_a_present_or_overwritten_chunk_stored_again_is_a_duplicate(history: History, again: int) -> None:
    history.store(*range(1, 8))
    history.start(4, 5, 6, 7)
    history.store(again)
    assert history.check().duplicates == 1


def test_a_chunk_that_overtook_another_is_out_of_order(history: History) -> None:
    history.store(1, 3, 2)
    result = history.check()
    assert result.out_of_order == 2
    assert "out of order" in result.broken[0]


def test_altered_records_do_not_count_as_delivered(history: History) -> None:
    history.store(1, content="other")
    history.acknowledge(1)
    result = history.check()
    assert (result.altered, result.acknowledged_lost) == (1, 1)


def test_more_than_a_window_lost_with_one_worker_breaks_a_promise(history: History) -> None:
    history.send(9)
    result = history.check()
    assert (result.unacknowledged_lost, result.most_lost_with_an_actor) == (9, 9)
    assert result.broken == ["9 chunks are lost with one worker; at most 8 may be"]


def test_an_incomplete_last_line_is_counted_and_skipped(history: History, tmp_path: Path) -> None:
    history.store(1)
    with (tmp_path / "replay-default.000000.jsonl").open("ab") as file:
        file.write(b'["stored","n-0",1,2')
    result = history.check()
    assert (result.torn_files, result.stored, result.broken) == (1, 1, [])


def test_a_line_that_is_damaged_is_an_error(history: History, tmp_path: Path) -> None:
    (tmp_path / "replay-default.000000.jsonl").write_bytes(b"[1,2]\n")
    with pytest.raises(ConfigError, match="not an audit file of this version"):
        history.check()


def test_the_command_prints_the_figures_and_exits_with_1_for_a_broken_promise(history: History, tmp_path: Path) -> None:
    history.store(*range(1, 9))
    history.acknowledge(8)
    good = CliRunner().invoke(audit_run, [str(tmp_path), "--json"], standalone_mode=False)
    assert good.return_value == 0
    assert json.loads(good.output)["acknowledged"] == 8
    history.start()
    bad = CliRunner().invoke(audit_run, [str(tmp_path)], standalone_mode=False)
    assert bad.return_value == 1
    assert "BROKEN: 4 acknowledged chunks are lost" in bad.output


def test_a_directory_without_audit_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Start `shoal train`"):
        read_ledger(tmp_path, "", "default")


def test_each_life_has_a_separate_file_and_any_name_is_allowed(tmp_path: Path) -> None:
    for _ in range(2):
        AuditFile(tmp_path, ProcessStart("actor", "a/b c")).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "actor-a_b_c.000000.jsonl",
        "actor-a_b_c.000001.jsonl",
    ]


def test_an_audit_that_cannot_be_written_ends_its_process(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--audit"):
        AuditFile(tmp_path / "file", ProcessStart("actor", "a"))
    file = AuditFile(tmp_path, ProcessStart("actor", "a"))
    file.close()
    event: Event = Acknowledged("a", 1, 1)
    with pytest.raises(ShoalError, match="omit --audit"):
        file.write(event)


def test_different_records_have_different_digests() -> None:
    assert digest(b"abc") == digest(memoryview(b"abc")) != digest(b"abd")


def test_audit_files_of_deleted_transitions_are_moved_aside(tmp_path: Path) -> None:
    run = LocalRun(RunDirectory(tmp_path), TrainConfig(audit=True))
    notes = tmp_path / "audit" / "actor-a.000000.jsonl"
    for _ in range(2):
        notes.parent.mkdir()
        notes.touch()
        assert run._audit_options() == {"audit": tmp_path / "audit"}
    assert [(tmp_path / f"audit.{number}" / notes.name).exists() for number in (1, 2)] == [True, True]
    notes.parent.mkdir()
    (tmp_path / "redis").mkdir()
    run._audit_options()
    assert notes.parent.exists(), "an interrupted run continues with its transitions and its audit files"
