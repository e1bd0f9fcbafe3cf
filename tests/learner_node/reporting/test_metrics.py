"""What the learner's metrics say beyond what is set in them directly."""

import pytest

from learner_node.reporting.metrics import Metrics
from learner_node.update.update_stats import Losses
from tests.replay_server.runs import make_run


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"shoal_{name}", labels)


def test_the_run_and_how_often_it_is_saved_are_told():
    metrics, run = Metrics(), make_run()
    metrics.describe(run, 20.0)
    labels = {"run": run.id, "scenario": "tiny", "algorithm": run.spec.algorithm.name}
    assert value(metrics, "run_info", **labels) == 1.0
    assert value(metrics, "learner_checkpoint_interval_seconds") == 20.0


def test_rejected_batches_are_counted_from_their_total():
    metrics = Metrics()
    for total in (0, 2, 2, 5):
        metrics.observe(None, 0.5, total)
    assert value(metrics, "learner_batches_rejected_total") == 5.0
    assert value(metrics, "learner_progress_ratio") == 0.5


def test_entropy_and_temperature_are_means_over_stochastic_players():
    metrics = Metrics()
    assert value(metrics, "learner_temperature") == 0.0
    metrics.observe(Losses(*[[1.0] * 3] * 5, entropy=[0.5, 0.0, 1.5], temperature=[0.1, 0.0, 0.3]), 0.5, 0)
    assert value(metrics, "learner_entropy") == pytest.approx(1.0)
    assert value(metrics, "learner_temperature") == pytest.approx(0.2)


def test_without_a_gpu_none_of_its_memory_is_held():
    assert value(Metrics(), "learner_gpu_memory_bytes") == 0.0
