"""The tables of a churn, from samples and an audit made by hand."""

from __future__ import annotations

import msgspec
import pytest

from shoal.commands.audit.delivery_check import AuditResult
from tests.soak.churn.processes import REPLAY, ROLES, WORKER, Process, Sample
from tests.soak.churn.report import TrainedRun, broken_promises, faults_table, role_figures, roles_table, tables

AUDIT = AuditResult(
    sent=1_010,
    acknowledged=1_000,
    stored=1_005,
    present=80,
    overwritten=925,
    acknowledged_lost=0,
    acknowledged_lost_with_ram=0,
    unacknowledged_lost=2,
    most_lost_with_an_actor=1,
    duplicates=0,
    out_of_order=0,
    altered=0,
    worker_lives=4,
    server_lives=2,
    torn_files=0,
    broken=[],
)


def process(role: str, ages: range, memory: float, per_hour: float = 0.0) -> Process:
    made = Process(role, None, 0.0)
    made.samples = [Sample(float(age), memory + per_hour * age / 3_600, 26, 9) for age in ages]
    return made


def trained(lives: list[Process], together: int = 0) -> TrainedRun:
    return TrainedRun(
        minutes=12.0,
        roles=role_figures(lives),
        faults={"kill": {WORKER: 3, REPLAY: 1}, "pause": {WORKER: 2}, "network": {}},
        fault_s={"pause": 90.0},
        together=together,
        env_steps=257_280,  # 256 in each of 1,005 chunks
        most_steps_per_s=1_280.0,
        result={"updates": 4_321, "return_mean": -19.5, "return_ci95": [-20.25, -19.0]},
    )


def test_a_role_has_its_longest_life_its_highest_figure_and_the_slope_of_all() -> None:
    lives = [
        process(REPLAY, range(0, 606, 2), 50.0, per_hour=36.0),
        process(REPLAY, range(0, 306, 2), 58.0, per_hour=36.0),
        process(REPLAY, range(0, 40, 2), 90.0),
    ]
    found = role_figures(lives)[REPLAY]
    assert found.lives == 3
    memory = found.figures["memory"]
    # From 60 s to 598 s, the last three samples left out, at 0.01 MiB a second; the short life had the most.
    assert (memory.first, memory.last) == (pytest.approx(50.6), pytest.approx(55.98))
    assert memory.highest == pytest.approx(90.0)
    assert memory.slope.per_hour == pytest.approx(36.0)
    assert memory.slope.hours == pytest.approx((538 + 238) / 3_600)
    assert (found.figures["threads"].last, found.figures["descriptors"].last) == (9, 26)


def test_the_table_of_roles_has_a_row_for_each() -> None:
    rows = roles_table(trained([process(REPLAY, range(0, 606, 2), 50.0, per_hour=36.0)]))
    assert len(rows) == 2 + len(ROLES)
    assert rows[0].startswith("| role | kills | pauses | lives |")
    [replay] = [row for row in rows if row.startswith("| replay server")]
    assert replay.startswith("| replay server | 1 | 0 | 1 | 9 | 51 to 56, at most 56 | +36.0 (+36.0 to +36.0) |")
    [worker] = [row for row in rows if row.startswith("| worker")]
    assert worker == "| worker | 3 | 2 | 0 | 0 | - | - | - | - | - | - |"
    assert len({row.count("|") for row in rows}) == 1


def test_the_table_of_faults_says_what_was_disturbed_and_for_how_long() -> None:
    kills, pauses, network = faults_table(trained([]))[2:]
    assert kills == "| kill | 4 | - | worker 3, replay server 1 |"
    assert pauses == "| pause | 2 | 1.5 | worker 2 |"
    assert network == "| network | 0 | - | - |"


def test_all_tables_and_the_json_of_a_run() -> None:
    run = trained([process(REPLAY, range(0, 606, 2), 50.0)], together=1)
    text = tables(run, msgspec.structs.replace(run, faults={}), AUDIT)
    assert "6 faults; the disturbed run took 12.0 minutes" in text
    assert "| acknowledged | 1,000 |" in text
    assert "| with 6 faults | 257,280 | 4,321 | -19.50 | -20.25 to -19.00 |" in text
    assert "killed together 1 times" in text
    decoded = msgspec.json.decode(msgspec.json.encode(run))
    assert decoded["roles"][REPLAY]["figures"]["memory"]["slope"][0] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("lost", "together", "is_broken"), [(1, 0, True), (10, 1, False), (11, 1, True), (20, 2, False)]
)
def test_two_seconds_of_chunks_may_go_with_redis_and_replay_server(lost: int, together: int, is_broken: bool) -> None:
    """1,280 steps a second in chunks of 256: ten chunks in two seconds."""
    audit = msgspec.structs.replace(AUDIT, acknowledged_lost=lost, broken=[f"{lost} acknowledged chunks are lost"])
    assert bool(broken_promises(audit, trained([], together))) is is_broken


def test_other_broken_promises_are_never_excused() -> None:
    audit = msgspec.structs.replace(AUDIT, duplicates=1, broken=["1 chunks are stored twice"])
    assert broken_promises(audit, trained([], together=3)) == ["1 chunks are stored twice"]
