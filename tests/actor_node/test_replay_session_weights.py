"""Which weights a session accepts, and which never act."""

import numpy as np
import pytest
import torch

from common.run.players import ALGORITHMS
from common.wire.weights import MAGIC, pack_weights
from learner_node.engine import make_engine
from tests.actor_node.peers import OTHERS, RUN, WEIGHTS
from tests.common.examples import BOXES, MIXED, make_frame, make_header, make_run, random_weights
from tests.learner_node.teams import TEAMS


def versions(peers):
    return peers.session.weights.header.version


def test_the_newest_broadcast_is_taken_and_only_that(peers):
    peers.subscribed()
    peers.admit()
    for version in range(2, 40):
        peers.publish(make_frame(RUN, version))
    seen = set()
    peers.until(lambda: seen.add(versions(peers)) or versions(peers) == 39)
    assert len(seen) < 30, "each was taken in turn"
    np.testing.assert_array_equal(peers.session.weights.flat, random_weights(RUN, seed=39))
    assert peers.session.weights_at == peers.now
    assert peers.session.weights_rejected == 0


def test_weights_published_again_prove_that_the_learner_lives(peers):
    peers.subscribed()
    peers.admit()
    first = peers.session.weights_at
    peers.now += 3.0
    peers.publish(WEIGHTS)
    peers.until(lambda: peers.session.weights_at == first + 3.0)


def test_older_weights_are_passed_over(peers):
    peers.subscribed()
    peers.admit(weights=make_frame(RUN, version=7))
    peers.publish(make_frame(RUN, version=6))
    peers.pump_for(10)
    assert versions(peers) == 7
    assert peers.session.weights_rejected == 0


def damaged(frame):
    return frame[:-1] + bytes([frame[-1] ^ 1])


WRONG = {
    "damaged": damaged(make_frame(RUN, version=2)),
    "cut short": make_frame(RUN, version=2)[:-10],
    "of another run": make_frame(OTHERS["run"], version=2),
    "of another world": make_frame(OTHERS["world"], version=2),
    "of another team": make_frame(make_run(MIXED), version=2),
    "of another size": pack_weights(make_header(RUN, version=2), np.zeros(3, np.float32)),
    "nothing but magic": MAGIC,
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_weights_never_act_and_are_counted(peers, what):
    peers.subscribed()
    peers.admit()
    peers.publish(WRONG[what])
    peers.until(lambda: peers.session.weights_rejected == 1, "rejected")
    assert versions(peers) == 1
    assert peers.session.rejection_reason
    peers.publish(make_frame(RUN, version=2))
    peers.until(lambda: versions(peers) == 2, "the right ones are taken afterwards")
    assert peers.session.rejection_reason == ""


@pytest.mark.parametrize("what", WRONG)
def test_wrong_weights_in_a_welcome_never_act_either(peers, what):
    peers.admit(weights=WRONG[what])
    assert peers.session.weights_rejected == 1
    assert peers.session.waiting_for() == (
        "weights",
        f"the learner's first weights (rejected: {peers.session.rejection_reason})",
    )


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "layer norm"])
def test_weights_with_and_without_layer_norm_do_not_act_for_each_other(peers, norm):
    runs = [make_run(BOXES, network={"policy_hidden": [8], "policy_layer_norm": on}) for on in (norm, not norm)]
    right, wrong = (make_frame(run) for run in runs)
    peers.admit(run=runs[0], weights=wrong)
    assert peers.session.weights_rejected == 1
    # Two agents with 3 inputs, 8 hidden units and 2 outputs; the norm has 16 numbers more for each.
    plain, normed = 2 * (4 * 8 + 9 * 2), 2 * (4 * 8 + 16 + 9 * 2)
    sizes = (plain, normed) if norm else (normed, plain)
    assert "{} numbers do not fit policies of {}".format(*sizes) in peers.session.rejection_reason
    peers.welcome(run=runs[0], weights=right)
    peers.until(lambda: peers.session.weights is not None, "the right ones are taken afterwards")


def test_broadcasts_that_are_no_weights_do_not_even_arrive(peers):
    peers.subscribed()
    peers.admit()
    peers.publish(b"SHW2" + WEIGHTS[4:])
    peers.publish(make_frame(RUN, version=2))
    peers.until(lambda: versions(peers) == 2)
    assert peers.session.weights_rejected == 0


def test_broadcasts_before_the_run_is_known_are_passed_over(peers):
    peers.subscribed()
    peers.publish(make_frame(RUN, version=9))
    peers.pump_for(10)
    assert peers.session.weights is None
    assert peers.session.weights_rejected == 0
    peers.admit(weights=None)
    assert peers.session.waiting_for()[0] == "weights"


@pytest.mark.slow
@pytest.mark.parametrize("team", ["tag", "discrete", "mixed"])
@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "sides"])
def test_the_weights_of_a_learner_fit_whatever_it_learns_by(peers, team, algorithm):
    """The frame is a learner's own; neither its size nor the players are counted here."""
    joint = TEAMS[team]
    if algorithm == "sides":
        algorithm = ",".join(f"{side}={name}" for side, name in zip(joint.sides, ("joint", "iddpg"), strict=False))
    run = make_run(joint, algorithm={"name": algorithm})
    engine = make_engine(run, torch.zeros(()))
    peers.admit(run=run, weights=pack_weights(make_header(run), engine.policy_weights()))
    assert peers.session.weights_rejected == 0
    assert versions(peers) == 1
