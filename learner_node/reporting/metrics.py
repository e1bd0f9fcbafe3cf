"""The learner's Prometheus metrics."""

from __future__ import annotations

import math
from statistics import fmean

import torch
from prometheus_client import Counter, Gauge, Histogram, Info

from common.process.monitoring import metrics as process_metrics
from common.run.run import Run
from learner_node.engine_choice import engine_of
from learner_node.run_checks.inputs import InputStats
from learner_node.update.update_stats import Losses


class Metrics:
    """The Prometheus registry of a learner and its metrics."""

    def __init__(self) -> None:
        self.registry = process_metrics.make_registry("learner", libraries=("torch",))
        self.url = ""
        """The URL of the metrics."""
        self.updates = self._counter("updates", "Updates of all agents' critics and policies.")
        self.samples = self._counter("samples", "Transitions learnt from, repeats counted.")
        self.update_seconds = Histogram(
            "shoal_learner_update_seconds",
            "Time of one update.",
            buckets=(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0),
            registry=self.registry,
        )
        self.waiting_seconds = self._counter("waiting_seconds", "Time spent waiting for batches.")
        self.weights_published = self._counter("weights_published", "Broadcasts of weights.")
        self.weights_version = self._gauge("weights_version", "Newest version of the weights.")
        self.progress = self._gauge("progress_ratio", "Fraction of the budget used, 0 to 1.")
        self.rejected = self._counter("batches_rejected", "Batches dropped because of non-finite numbers.")
        self.critic_loss = self._gauge("critic_loss", "Critic loss, mean over agents, of the last measured update.")
        self.policy_loss = self._gauge("policy_loss", "Policy loss, mean over agents, of the last measured update.")
        self.value = self._gauge(
            "q_mean", "Q-value of the critics, mean over agents and batch, of the last measured update."
        )
        self.critic_gradient_norm = self._gauge(
            "critic_gradient_norm", "Norm of the critic gradient before clipping, largest over agents."
        )
        self.policy_gradient_norm = self._gauge(
            "policy_gradient_norm", "Norm of the policy gradient before clipping, largest over agents."
        )
        self.entropy = self._gauge(
            "entropy",
            "Entropy of the policies [nats], mean over agents with stochastic policies, of the last measured update; 0"
            " without such agents.",
        )
        self.temperature = self._gauge(
            "temperature",
            "Weight of the entropy in the reward (alpha), mean over agents with stochastic policies, of the last"
            " measured update; 0 without such agents.",
        )
        self.observation_size = self._gauge(
            "observation_size", "Root mean square of one number of the observations, the largest of all, last measured."
        )
        self.reward_size = self._gauge(
            "reward_size", "Root mean square of the scaled rewards other than 0, largest over agents, last measured."
        )
        self.last_update = self._gauge(
            "last_update_timestamp_seconds", "When the last update ended; 0 before the first."
        )
        self.last_checkpoint = self._gauge(
            "last_checkpoint_timestamp_seconds", "When the last checkpoint was written; 0 before the first."
        )
        self.checkpoint_seconds = Histogram(
            "shoal_learner_checkpoint_seconds",
            "Time to write one checkpoint.",
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0),
            registry=self.registry,
        )
        self.evaluation_return = self._gauge(
            "evaluation_return",
            "Mean return of the newest evaluation while the run trains, summed over agents; NaN before the first.",
        )
        self.evaluation_return.set(math.nan)
        self.evaluating_seconds = self._counter("evaluating_seconds", "Time of evaluations while the run trains.")
        self.checkpoint_interval = self._gauge("checkpoint_interval_seconds", "Time between checkpoints.")
        self._gauge("gpu_memory_bytes", "Memory that torch holds on the GPU.").set_function(_gpu_memory_bytes)
        self._rejected = 0

    def describe(self, run: Run, checkpoint_every_s: float) -> None:
        """Sets the labels of the run and the time between checkpoints."""
        Info("shoal_run", "The run that this process works for.", registry=self.registry).info(
            process_metrics.run_labels(run)
        )
        engine = engine_of(run)
        Info("shoal_learner_engine", "What computes the updates, and why.", registry=self.registry).info(
            {"engine": engine.name, "reason": engine.reason}
        )
        self.checkpoint_interval.set(checkpoint_every_s)

    def observe(self, losses: Losses | None, progress: float, rejected: int) -> None:
        """Sets the metrics that are updated once a second."""
        self.progress.set(progress)
        self.rejected.inc(rejected - self._rejected)
        self._rejected = rejected
        if losses is None:
            return
        self.critic_loss.set(fmean(losses.critic_loss))
        self.policy_loss.set(fmean(losses.policy_loss))
        self.value.set(fmean(losses.q_mean))
        self.critic_gradient_norm.set(max(losses.critic_gradient_norm))
        self.policy_gradient_norm.set(max(losses.policy_gradient_norm))
        # The temperature of a deterministic player is 0.
        stochastic = [(h, alpha) for h, alpha in zip(losses.entropy, losses.temperature, strict=True) if alpha > 0]
        if stochastic:
            self.entropy.set(fmean(entropy for entropy, _ in stochastic))
            self.temperature.set(fmean(alpha for _, alpha in stochastic))

    def observe_evaluation(self, return_mean: float, seconds: float) -> None:
        """Sets the metrics of an evaluation while the run trains; seconds: how long it took."""
        self.evaluation_return.set(return_mean)
        self.evaluating_seconds.inc(seconds)

    def observe_inputs(self, stats: InputStats | None, reward_scale: float) -> None:
        """Sets the metrics of the sizes of observations and rewards."""
        if stats is not None:
            self.observation_size.set(max(stats.obs_size))
            self.reward_size.set(max(stats.reward_size) * reward_scale)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"shoal_learner_{name}", text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"shoal_learner_{name}", text, registry=self.registry)


def _gpu_memory_bytes() -> float:
    in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return float(torch.cuda.memory_reserved()) if in_use else 0.0
