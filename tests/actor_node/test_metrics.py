import multiprocessing

import numpy as np
import pytest
from prometheus_client import generate_latest

from actor_node.metrics import make_registry
from actor_node.monitoring.shared_metrics import (
    COLUMNS,
    COUNTERS,
    GAUGES,
    AckTimes,
    WorkerMetrics,
    allocate_node_memory,
)


@pytest.fixture
def counters():
    return WorkerMetrics(allocate_node_memory(multiprocessing.get_context("spawn"), 3))


def scrape(counters, alive=3, restarts=0):
    text = generate_latest(make_registry(counters, lambda: [-1] * alive, lambda: restarts)).decode()
    samples = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in samples}


def test_figures_are_kept_worker_by_worker(counters):
    counters.add(0, "env_steps", 5)
    counters.add(2, "env_steps", 7)
    counters.add(2, "env_steps", 1)
    counters.set(1, "weights_version", 4)
    counters.set(1, "weights_version", 3)
    assert counters.column("env_steps").tolist() == [5.0, 0.0, 8.0]
    assert counters.column("weights_version").tolist() == [0.0, 3.0, 0.0]
    assert len(set(COLUMNS)) == len(COUNTERS) + len(GAUGES)


def test_two_views_of_the_same_memory_see_the_same_figures():
    shared = allocate_node_memory(multiprocessing.get_context("spawn"), 2)
    WorkerMetrics(shared).add(1, "episodes", 3)
    assert WorkerMetrics(shared).column("episodes").tolist() == [0.0, 3.0]


def test_a_column_is_a_copy(counters):
    column = counters.column("env_steps")
    counters.add(0, "env_steps", 1)
    assert not column.any()


def test_totals_are_summed_over_workers(counters):
    for worker in range(3):
        for place, figure in enumerate(COUNTERS):
            counters.add(worker, figure, 10 * place + worker)
    metrics = scrape(counters)
    for figure, name in {
        "env_steps": "env_steps_total",
        "episodes": "episodes_total",
        "episode_return_sum": "episode_return_sum",
        "chunks": "chunks_total",
        "chunk_bytes": "chunk_bytes_total",
        "chunks_resent": "chunks_resent_total",
        "weights_rejected": "weights_rejected_total",
        "collecting_s": "collecting_seconds_total",
        "waiting_for_replay_s": 'waiting_seconds_total{for="replay"}',
        "waiting_for_weights_s": 'waiting_seconds_total{for="weights"}',
        "waiting_for_credit_s": 'waiting_seconds_total{for="credit"}',
    }.items():
        assert metrics[f"shoal_actor_{name}"] == 30 * COUNTERS.index(figure) + 3, figure


def test_returns_may_fall(counters):
    counters.add(0, "episode_return_sum", -70.5)
    assert scrape(counters)["shoal_actor_episode_return_sum"] == -70.5


def test_the_worst_worker_stands_for_the_age_and_version_of_the_weights(counters):
    for worker, (version, age) in enumerate([(5, 1.0), (3, 9.5), (4, 0.5)]):
        counters.set(worker, "weights_version", version)
        counters.set(worker, "weights_age_s", age)
        counters.set(worker, "chunks_unacknowledged", worker + 1)
    metrics = scrape(counters, alive=2, restarts=7)
    assert metrics["shoal_actor_weights_version"] == 3.0
    assert metrics["shoal_actor_weights_age_seconds"] == 9.5
    assert metrics["shoal_actor_chunks_unacknowledged"] == 6.0
    assert metrics["shoal_actor_workers_alive"] == 2.0
    assert metrics["shoal_actor_worker_restarts_total"] == 7.0


def test_nothing_is_not_finite_before_anything_has_happened(counters):
    assert np.isfinite(list(scrape(counters).values())).all()


# ---- the run ------------------------------------------------------------------------------------------------------


def test_the_node_tells_the_run_once_a_worker_knows_it():
    shared = allocate_node_memory(multiprocessing.get_context("spawn"), 2)
    node, worker = WorkerMetrics(shared), WorkerMetrics(shared)
    assert node.run == {}
    assert not [name for name in scrape(node) if name.startswith("shoal_run")]
    worker.run = {"run": "first", "scenario": "simple_spread", "algorithm": "agent=iddpg,adversary=maddpg"}
    assert scrape(node)['shoal_run_info{algorithm="agent=iddpg,adversary=maddpg",run="first",scenario="simple_spread"}']
    worker.run = {"run": "b", "scenario": "x" * 200, "algorithm": "\N{GREEK SMALL LETTER ALPHA}" * 200}
    assert node.run == worker.run
    assert node.run["algorithm"] == "\N{GREEK SMALL LETTER ALPHA}" * 200


# ---- workers that end ---------------------------------------------------------------------------------------------


def test_what_a_worker_that_ended_left_behind_counts_on_but_stands_for_nothing(counters):
    counters.add(0, "env_steps", 7)
    counters.set(0, "weights_version", 3)
    counters.set(0, "weights_age_s", 100.0)
    counters.set(0, "chunks_unacknowledged", 8)
    counters.reset_gauges(0)
    metrics = scrape(counters)
    assert metrics["shoal_actor_env_steps_total"] == 7.0
    assert metrics["shoal_actor_weights_age_seconds"] == 0.0
    assert metrics["shoal_actor_chunks_unacknowledged"] == 0.0


def test_workers_wanted_and_running_are_told_apart(counters):
    metrics = scrape(counters, alive=2)
    assert (metrics["shoal_actor_workers"], metrics["shoal_actor_workers_alive"]) == (3.0, 2.0)


# ---- times to the acknowledgement ---------------------------------------------------------------------------------


def test_each_chunk_is_timed_from_its_collection_to_its_acknowledgement(counters):
    first, second = AckTimes(counters, 0), AckTimes(counters, 2)
    first.sent(1, now=10.0)
    first.sent(2, now=10.5)
    first.sent(3, now=10.75)
    second.sent(1, now=10.0)
    first.acknowledged(0, now=10.9)
    assert scrape(counters)["shoal_actor_chunk_ack_seconds_count"] == 0.0
    first.acknowledged(2, now=10.75)
    first.acknowledged(2, now=99.0)
    second.acknowledged(1, now=30.0)
    metrics = scrape(counters)
    buckets = {
        bound: metrics[f'shoal_actor_chunk_ack_seconds_bucket{{le="{bound}"}}'] for bound in (0.1, 0.25, 1.0, 10.0)
    }
    assert buckets == {0.1: 0.0, 0.25: 1.0, 1.0: 2.0, 10.0: 2.0}, "a bucket holds its own bound"
    assert metrics['shoal_actor_chunk_ack_seconds_bucket{le="+Inf"}'] == 3.0
    assert metrics["shoal_actor_chunk_ack_seconds_count"] == 3.0
    assert metrics["shoal_actor_chunk_ack_seconds_sum"] == 0.75 + 0.25 + 20.0
