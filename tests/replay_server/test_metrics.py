"""What the server's metrics say of what has happened to the replay."""

from __future__ import annotations

import math

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from common.wire.messages import Batch, Bye, LearnerReport, SampleRequest, Status
from replay_server.durability.recovery import RecoveryResult
from replay_server.metrics import ReplayCollector, Timings, make_registry
from replay_server.sessions.session import LEASE_S
from replay_server.sessions.waits import CAUSES
from tests.replay_server.runs import make_chunk, make_report, make_run
from tests.replay_server.test_replay import Room


class Watched(Room):
    """A replay and its metrics."""

    def __init__(self, **settings: object) -> None:
        super().__init__(make_run(**settings))
        self.registry = CollectorRegistry()
        self.registry.register(ReplayCollector(self.replay, lambda: self.now))

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"shoal_replay_{name}", labels)

    @property
    def status(self) -> Status:
        return self.replay.status(self.now)


@pytest.fixture
def room() -> Watched:
    room = Watched()
    room.open()
    return room


def test_before_any_run_nothing_is_said_of_transitions() -> None:
    room = Watched()
    assert room.metric("transitions") is None
    assert room.registry.get_sample_value("shoal_run_info") is None
    assert room.metric("peers", role="learner") == 0.0
    assert room.metric("rejected_total", reason="malformed") == 0.0


def test_the_run_is_named(room: Watched) -> None:
    labels = {"run": "run-1", "scenario": "tiny", "algorithm": room.run.spec.algorithm.name}
    assert room.registry.get_sample_value("shoal_run_info", labels) == 1.0


def test_counters_begin_with_the_server_while_the_runs_clock_goes_on(room: Watched) -> None:
    """A crash loses what was not acknowledged: the run's own counters may step back, which no counter of ours does."""
    room.fill("a", "actor", 3)
    room.say("L", SampleRequest(1, 8))
    room.advance("L")
    assert (room.metric("ingested_transitions_total"), room.metric("sampled_transitions_total")) == (30.0, 8.0)
    assert room.replay.table is not None
    room.replay.table.limiter.catch_up(1_000, 5_000, 30)
    assert (room.metric("ingested_transitions_total"), room.metric("sampled_transitions_total")) == (30.0, 8.0)
    assert room.metric("run_env_steps") == 1_000.0


def test_new_settings_of_a_run_take_nothing_from_its_counters(room: Watched) -> None:
    room.fill("a", "actor", 2)
    room.open(run=make_run(capacity=500))
    assert room.metric("capacity_transitions") == 500.0
    assert room.metric("ingested_transitions_total") == 20.0


@pytest.mark.parametrize(
    ("limit", "bounded"), [("strict", (True, True)), ("insert_only", (False, True)), ("off", (False, False))]
)
def test_a_side_that_never_waits_has_no_bound(limit: str, bounded: tuple[bool, bool]) -> None:
    room = Watched(limit=limit)
    room.open()
    bounds = room.metric("rate_limiter_lower_bound_samples"), room.metric("rate_limiter_upper_bound_samples")
    assert tuple(math.isfinite(bound) for bound in bounds if bound is not None) == bounded


# ---- peers and waits ----------------------------------------------------------------------------------------------


def test_a_free_ratio_has_no_target_and_serves_one_update_for_each_insert() -> None:
    room = Watched(samples_per_insert="auto", batch=8, min_size=20)
    room.open()
    room.fill("a", "actor", 3)
    served = 0
    for request in range(1, 60):
        room.say("L", SampleRequest(request, 8))
        served += sum(isinstance(reply, Batch) for reply in room.advance("L"))
    assert served == 10, "one for each transition after min_size"
    assert math.isnan(room.metric("target_samples_per_insert") or 0.0)
    assert room.metric("samples_per_insert") == 8.0
    assert room.metric("rate_limiter_lower_bound_samples") == room.metric("rate_limiter_error_samples")
    assert room.status.target_samples_per_insert == 8.0
    assert "needed to keep the ratio" in room.status.waiting[0]


def test_peers_count_while_they_hold_their_lease(room: Watched) -> None:
    room.hello("a", "one")
    room.hello("b", "two")
    assert (room.metric("peers", role="actor"), room.metric("peers", role="learner")) == (2.0, 1.0)
    room.now += LEASE_S + 1.0
    assert (room.metric("peers", role="actor"), room.metric("peers", role="learner")) == (0.0, 0.0)


def test_a_side_stands_still_until_it_gets_further(room: Watched) -> None:
    room.hello("a", "actor")
    room.say("L", SampleRequest(1, 8))
    room.advance("L")
    room.advance("L", 7.0)
    assert room.metric("standstill_seconds", side="learner", cause="warm_up") == 7.0
    assert room.metric("blocked_seconds_total", side="learner", cause="warm_up") == 7.0
    assert room.metric("standstill_seconds", side="learner", cause="actors") == 0.0
    room.fill("a", "actor", 3)
    room.advance("L")
    assert room.metric("standstill_seconds", side="learner", cause="warm_up") == 0.0
    assert room.metric("blocked_seconds_total", side="learner", cause="warm_up") == 7.0


def test_actors_stand_still_while_the_learner_takes_nothing(room: Watched) -> None:
    room.hello("a", "actor")
    seq = 0
    while room.replay.actors_wait.reason.cause != "learner":
        seq += 1
        room.send("a", "actor", seq)
        room.advance("a")
    room.advance("a", 5.0)
    assert room.metric("standstill_seconds", side="actors", cause="learner") == 5.0
    others = [cause for cause in CAUSES["actors"] if cause != "learner"]
    assert {room.metric("standstill_seconds", side="actors", cause=cause) for cause in others} == {0.0}


# ---- what is told of the run --------------------------------------------------------------------------------------


def test_returns_are_told_once_there_are_any(room: Watched) -> None:
    room.hello("a", "actor")
    assert room.metric("episode_return") is None
    room.say("a", make_report("actor", episodes=4, return_sum=-40.0))
    assert room.metric("episode_return") == -10.0
    assert room.metric("agent_episode_return", agent="red") == -2.5
    assert room.metric("agent_episode_return", agent="blue") == -7.5


def test_lag_is_counted_chunk_by_chunk(room: Watched) -> None:
    for newest, used in [(1, 1), (4, 3), (300, 299), (300, 0)]:
        room.replay.recent.lag.note_published(newest)
        room.replay.recent.lag.add(used)
    below = {bound: room.metric("policy_lag_versions_bucket", le=bound) for bound in ("0.0", "1.0", "200.0", "+Inf")}
    assert below == {"0.0": 1.0, "1.0": 3.0, "200.0": 3.0, "+Inf": 4.0}
    assert room.metric("policy_lag_versions_sum") == 302.0


def test_a_learner_that_is_done_is_told(room: Watched) -> None:
    assert room.metric("run_finished") == 0.0
    room.say("L", LearnerReport("learner-L", 10, 1.0, 1, 1.0, 0.0, 0.0, "", 0.0, 1.0, True, ""))
    assert room.metric("run_finished") == 1.0
    room.say("L", LearnerReport("learner-L", 11, 1.0, 1, 0.5, 0.0, 0.0, "", 0.0, 1.0, False, ""))
    assert room.metric("run_finished") == 0.0, "resumed with a larger budget"


def test_rejections_are_told_by_reason(room: Watched) -> None:
    room.hello("a", "actor")
    message, payload = make_chunk(room.run, "actor", 1)
    room.say("a", message, payload[:-1] + b"\xff")
    room.say("a", message, payload[:-4])
    assert room.metric("rejected_total", reason="checksum") == 1.0
    assert room.metric("rejected_total", reason="size") == 1.0


def test_what_the_start_found_is_told() -> None:
    registry = make_registry()
    Timings(registry).set_recovery(RecoveryResult(500, 7, damaged=2, missing=1, payload_bytes=9_000, seconds=1.5))
    found = {name: registry.get_sample_value(f"shoal_replay_{name}") for name in ("recovery_seconds",)}
    assert found == {"recovery_seconds": 1.5}
    assert registry.get_sample_value("shoal_replay_recovered_transitions") == 500.0
    assert registry.get_sample_value("shoal_replay_recovery_skipped_chunks") == 3.0


def test_a_reward_is_shared_where_every_actor_that_has_ended_episodes_says_so(room: Watched) -> None:
    for peer in "ab":
        room.hello(peer, f"actor-{peer}")
    assert not room.status.shared_reward, "nobody has ended an episode"
    room.say("a", msgspec.structs.replace(make_report("actor-a", 4, -40.0), shared_reward=True))
    room.say("b", make_report("actor-b", 0, 0.0))
    assert room.status.shared_reward
    room.say("b", make_report("actor-b", 4, -40.0))
    assert not room.status.shared_reward


def test_a_run_whose_actors_have_left_waits_for_a_peer_that_is_gone(room: Watched) -> None:
    assert room.status.absent == "", "no transition has come"
    room.fill("a", "actor", 1)
    assert room.status.absent == ""
    room.say("a", Bye("actor", 1))
    assert room.status.absent == "actors: none is connected"
    room.replay.journal.error = "connection refused"
    assert room.status.absent == "Redis: connection refused"


def test_returns_of_each_agent_are_known_from_the_first_episodes_on(room: Watched) -> None:
    """A worker's first report comes before its first chunk, when it does not know its agents."""
    room.hello("a", "actor")
    room.say("a", msgspec.structs.replace(make_report("actor", 0, 0.0), return_sums=()))
    room.say("a", make_report("actor", 4, -40.0))
    assert room.status.return_means == (-2.5, -7.5)
