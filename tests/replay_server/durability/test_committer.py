from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from replay_server.durability.chunk_log import StoreRun, StoreSamples, Transaction, Write
from replay_server.durability.committer import Committed, Committer
from tests.conftest import wait_until
from tests.replay_server.durability.dict_log import DictLog
from tests.replay_server.durability.test_log_index import chunk_write
from tests.replay_server.runs import make_run


class SlowLog(DictLog):
    """Takes a transaction only when it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.groups: list[int] = []

    def prepare(self, writes: Sequence[Write]) -> Transaction:
        self.groups.append(len(writes))
        return super().prepare(writes)

    def execute(self, transaction: Transaction) -> None:
        assert self.gate.wait(5.0)
        super().execute(transaction)


@pytest.fixture
def log() -> SlowLog:
    log = SlowLog()
    log.index.capacity = 1_000
    return log


@pytest.fixture
def committer(log: SlowLog) -> Iterator[Committer]:
    committer = Committer(log)
    yield committer
    log.gate.set()
    committer.close()


def numbers_of(reports: list[Committed]) -> list[int]:
    return [report.number for report in reports]


def test_what_gathers_meanwhile_is_one_group(log: SlowLog, committer: Committer) -> None:
    committer.submit([chunk_write(0)])
    wait_until(lambda: log.groups, "the first group")
    for number in range(1, 6):
        committer.submit([chunk_write(number)])
    assert not committer.idle
    log.gate.set()
    wait_until(lambda: committer.idle, "all groups")
    assert log.groups == [1, 5]
    assert numbers_of(committer.take_reports()) == [0, 5]
    assert committer.take_reports() == []


def test_groups_are_bounded(log: SlowLog, committer: Committer) -> None:
    committer.submit([chunk_write(number) for number in range(200)])
    log.gate.set()
    wait_until(lambda: committer.idle, "all groups")
    assert max(log.groups) == 64
    assert sum(log.groups) == 200


def test_a_failing_log_is_tried_again_until_it_takes_the_group(log: SlowLog, committer: Committer) -> None:
    log.error = "gone away"
    log.gate.set()
    committer.submit([StoreRun(make_run(), 100, replaces_run=True), chunk_write(0)])
    wait_until(lambda: committer.errors >= 2, "two attempts")
    assert committer.error == "gone away"
    assert committer.take_reports() == []
    log.error = ""
    wait_until(lambda: committer.idle, "the group")
    assert numbers_of(committer.take_reports()) == [0]
    assert committer.error == ""


def test_closing_gives_up_what_the_log_does_not_take(log: SlowLog, committer: Committer) -> None:
    log.error = "gone away"
    log.gate.set()
    committer.submit([StoreSamples(1)])
    wait_until(lambda: committer.errors, "an attempt")
    committer.close()
    assert not committer._thread.is_alive()


def test_a_defect_in_the_thread_reaches_the_loop(log: SlowLog, committer: Committer) -> None:
    log.gate.set()
    log._execute = lambda *_: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    committer.submit([chunk_write(0)])
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: committer.take_reports() and False, "the defect")
