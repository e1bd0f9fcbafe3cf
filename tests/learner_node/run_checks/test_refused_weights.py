"""A run whose weights no actor accepts ends; as long as one of them may still act, it goes on."""

import msgspec
import pytest

from common.errors import LastingError
from common.wire.messages import ActorStatus, Status
from learner_node.run_checks.refused_weights import REFUSAL_TIMEOUT_S, RefusedWeights
from tests.learner_node.fake_replay import FakeReplay, small_run

WRONG = "3 numbers do not fit policies of 25487"


def actor(refused: str = WRONG, version: int = 0) -> ActorStatus:
    return ActorStatus("a", 1, 0.1, 0, 0, version, 0.0, "weights", 1.0, "", weights_refused=refused)


@pytest.fixture
def empty():
    with FakeReplay(small_run()) as replay:
        yield replay.make_status()


def of(empty: Status, *actors: ActorStatus, connected: int | None = None) -> list[Status]:
    refusing = sum(bool(one.weights_refused) and not one.weights_version for one in actors)
    fields = {"actors": actors, "actor_count": len(actors) if connected is None else connected}
    return [msgspec.structs.replace(empty, **fields, actors_without_weights=refusing)]


def test_weights_that_every_actor_refuses_end_the_run_with_the_reason(empty):
    watch = RefusedWeights()
    watch.check(of(empty, actor(), actor()), 100.0)
    watch.check(of(empty, actor(), actor()), 100.0 + REFUSAL_TIMEOUT_S - 0.1)
    with pytest.raises(LastingError, match=rf"every connected actor \(2\) refuses .*: {WRONG}\. Run actors"):
        watch.check(of(empty, actor(), actor()), 100.0 + REFUSAL_TIMEOUT_S)


def test_actors_of_all_replay_servers_count(empty):
    watch = RefusedWeights()
    watch.check(of(empty, actor()) + of(empty, actor("")), 0.0)
    watch.check(of(empty, actor()) + of(empty, actor("")), 60.0)
    watch.check(of(empty, actor()) + of(empty), 61.0)
    with pytest.raises(LastingError):
        watch.check(of(empty, actor()) + of(empty), 61.0 + REFUSAL_TIMEOUT_S)


@pytest.mark.parametrize(
    "others",
    [
        {"actors": ()},
        {"actors": (actor(), actor(""))},
        {"actors": (actor(), actor(version=7))},
        {"actors": (actor(),), "connected": 300},
    ],
    ids=["none is connected", "one has refused nothing", "one has weights", "most are not listed"],
)
def test_while_any_actor_may_act_the_run_goes_on_and_the_time_counts_anew(empty, others):
    watch = RefusedWeights()
    actors = others["actors"]
    rest = {"connected": others["connected"]} if "connected" in others else {}
    watch.check(of(empty, actor()), 0.0)
    watch.check(of(empty, *actors, **rest), REFUSAL_TIMEOUT_S + 1.0)
    watch.check(of(empty, actor()), REFUSAL_TIMEOUT_S + 2.0)
    watch.check(of(empty, actor()), 2 * REFUSAL_TIMEOUT_S)
    with pytest.raises(LastingError):
        watch.check(of(empty, actor()), 2 * REFUSAL_TIMEOUT_S + 2.0)


def test_before_any_server_has_answered_nothing_ends():
    RefusedWeights().check([], 1_000.0)
