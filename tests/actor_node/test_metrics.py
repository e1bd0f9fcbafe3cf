import multiprocessing

import numpy as np
import pytest
from prometheus_client import generate_latest

from actor_node.counters import FIGURES, LEVELS, TOTALS, Counters, shared_figures
from actor_node.metrics import make_registry


@pytest.fixture
def counters():
    return Counters(shared_figures(multiprocessing.get_context("spawn"), 3))


def scrape(counters, alive=3, restarts=0):
    text = generate_latest(make_registry(counters, lambda: alive, lambda: restarts)).decode()
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
    assert len(set(FIGURES)) == len(TOTALS) + len(LEVELS)


def test_two_views_of_the_same_memory_see_the_same_figures():
    shared = shared_figures(multiprocessing.get_context("spawn"), 2)
    Counters(shared).add(1, "episodes", 3)
    assert Counters(shared).column("episodes").tolist() == [0.0, 3.0]


def test_a_column_is_a_copy(counters):
    column = counters.column("env_steps")
    counters.add(0, "env_steps", 1)
    assert not column.any()


def test_totals_are_summed_over_workers(counters):
    for worker in range(3):
        for place, figure in enumerate(TOTALS):
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
        assert metrics[f"shoal_actor_{name}"] == 30 * TOTALS.index(figure) + 3, figure


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
