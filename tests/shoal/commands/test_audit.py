"""What an audit finds in histories that keep the promises, and in histories that break them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from common.errors import ConfigError, ShoalError
from common.run.directory import RunDirectory
from common.wire.audit import Acknowledged, AuditFile, Event, Life, Recovered, Sent, Serving, Stored, digest
from deploy.local.config import TrainConfig
from deploy.local.launcher import LocalRun
from shoal.commands.audit.cli import audit_run
from shoal.commands.audit.ledger import read_ledger
from shoal.commands.audit.verdict import Verdict, judge

CAPACITY = 40
"""Four chunks of ten."""


class History:
    """Writes audit files as an actor and a replay server would."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.actor = AuditFile(directory, Life("actor", "n-0"))
        self.start()

    def start(self, *recovered: int, durability: str = "redis", serving: bool = True) -> None:
        """Begins a life of the server, which finds some chunks again; all that there are once it is `serving`."""
        self.server = AuditFile(self.directory, Life("replay", "default", durability))
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

    def verdict(self) -> Verdict:
        return judge(read_ledger(self.directory, "", "default"))


@pytest.fixture
def history(tmp_path: Path) -> History:
    made = History(tmp_path)
    made.send(*range(1, 9))
    return made


def test_a_run_without_a_fault(history: History) -> None:
    history.store(*range(1, 9))
    history.acknowledge(8)
    verdict = history.verdict()
    assert verdict.broken == []
    assert (verdict.sent, verdict.acknowledged, verdict.stored) == (8, 8, 8)
    assert (verdict.held, verdict.outgrown) == (4, 4)


def test_what_a_killed_server_finds_again_is_not_lost(history: History) -> None:
    history.store(*range(1, 8))
    history.acknowledge(6)
    history.start(3, 4, 5, 6)
    history.store(7, 8)
    verdict = history.verdict()
    assert verdict.broken == []
    assert (verdict.acknowledged_lost, verdict.duplicates, verdict.unacknowledged_lost) == (0, 0, 0)
    assert verdict.server_lives == 2


def test_an_acknowledged_chunk_that_is_not_found_again_is_lost(history: History) -> None:
    history.store(*range(1, 8))
    history.acknowledge(6)
    history.start(3, 4, 6)
    verdict = history.verdict()
    assert verdict.acknowledged_lost == 1
    assert verdict.broken == ["1 acknowledged chunks are lost"]


def test_a_server_that_still_reads_its_log_has_lost_nothing(history: History) -> None:
    history.store(*range(1, 8))
    history.acknowledge(7)
    history.start(4, 5, serving=False)
    verdict = history.verdict()
    assert (verdict.acknowledged_lost, verdict.broken, verdict.server_lives) == (0, [], 1)
    history.start(4, 5, 6, 7)
    assert history.verdict().broken == []


def test_a_chunk_of_which_the_server_never_heard_is_lost(history: History) -> None:
    history.store(1, 2)
    history.acknowledge(3)
    assert history.verdict().acknowledged_lost == 1


def test_what_has_outgrown_the_ring_is_not_lost_but_what_should_still_be_there_is(history: History) -> None:
    history.store(*range(1, 9))
    history.acknowledge(8)
    history.start(6, 7, 8)
    assert history.verdict().acknowledged_lost == 1


def test_ram_promises_nothing_beyond_its_life(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.start(durability="ram")
    history.send(1, 2, 3)
    history.store(1, 2)
    history.acknowledge(2)
    history.start(durability="ram")
    history.store(3)
    verdict = history.verdict()
    assert (verdict.acknowledged_lost, verdict.acknowledged_lost_with_ram, verdict.broken) == (0, 2, [])


@pytest.mark.parametrize("again", [7, 1])
def test_what_is_held_or_outgrown_and_stored_again_is_a_duplicate(history: History, again: int) -> None:
    history.store(*range(1, 8))
    history.start(4, 5, 6, 7)
    history.store(again)
    assert history.verdict().duplicates == 1


def test_a_chunk_that_overtook_another_is_out_of_order(history: History) -> None:
    history.store(1, 3, 2)
    verdict = history.verdict()
    assert verdict.out_of_order == 2
    assert "out of their order" in verdict.broken[0]


def test_records_that_were_altered_on_the_way_are_no_delivery(history: History) -> None:
    history.store(1, content="other")
    history.acknowledge(1)
    verdict = history.verdict()
    assert (verdict.altered, verdict.acknowledged_lost) == (1, 1)


def test_more_than_a_window_lost_with_one_worker_breaks_a_promise(history: History) -> None:
    history.send(9)
    verdict = history.verdict()
    assert (verdict.unacknowledged_lost, verdict.most_lost_with_an_actor) == (9, 9)
    assert verdict.broken == ["9 chunks are lost with one worker, not 8"]


def test_a_torn_last_line_is_counted_and_does_no_harm(history: History, tmp_path: Path) -> None:
    history.store(1)
    with (tmp_path / "replay-default.000000.jsonl").open("ab") as file:
        file.write(b'["stored","n-0",1,2')
    verdict = history.verdict()
    assert (verdict.torn_files, verdict.stored, verdict.broken) == (1, 1, [])


def test_a_line_that_is_damaged_is_an_error(history: History, tmp_path: Path) -> None:
    (tmp_path / "replay-default.000000.jsonl").write_bytes(b"[1,2]\n")
    with pytest.raises(ConfigError, match="not an audit file of this version"):
        history.verdict()


def test_the_command_prints_the_figures_and_its_exit_code_tells_of_a_broken_promise(
    history: History, tmp_path: Path
) -> None:
    history.store(*range(1, 9))
    history.acknowledge(8)
    good = CliRunner().invoke(audit_run, [str(tmp_path), "--json"], standalone_mode=False)
    assert good.return_value == 0
    assert json.loads(good.output)["acknowledged"] == 8
    history.start()
    bad = CliRunner().invoke(audit_run, [str(tmp_path)], standalone_mode=False)
    assert bad.return_value == 1
    assert "BROKEN: 4 acknowledged chunks are lost" in bad.output


def test_no_audit_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="start `shoal train`"):
        read_ledger(tmp_path, "", "default")


def test_each_life_has_a_file_of_its_own_and_names_may_be_anything(tmp_path: Path) -> None:
    for _ in range(2):
        AuditFile(tmp_path, Life("actor", "a/b c")).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "actor-a_b_c.000000.jsonl",
        "actor-a_b_c.000001.jsonl",
    ]


def test_an_audit_that_cannot_be_written_ends_its_process(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--audit"):
        AuditFile(tmp_path / "file", Life("actor", "a"))
    file = AuditFile(tmp_path, Life("actor", "a"))
    file.close()
    event: Event = Acknowledged("a", 1, 1)
    with pytest.raises(ShoalError, match="leave --audit out"):
        file.write(event)


def test_digests_tell_records_apart() -> None:
    assert digest(b"abc") == digest(memoryview(b"abc")) != digest(b"abd")


def test_what_was_noted_of_deleted_transitions_is_put_aside(tmp_path: Path) -> None:
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
    assert notes.parent.exists(), "an interrupted run goes on with its transitions, and with its notes"
