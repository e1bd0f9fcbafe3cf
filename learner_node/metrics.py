"""The learner's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from learner_node.algorithms.losses import Losses


class Metrics:
    """One registry and the metrics in it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.url = ""
        """Where they are served."""
        self.updates = self._counter("updates", "Updates of all agents' critics and policies.")
        self.samples = self._counter("samples", "Transitions learnt from, repeats counted.")
        self.update_seconds = Histogram(
            "shoal_learner_update_seconds",
            "Time of one update.",
            buckets=(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.5),
            registry=self.registry,
        )
        self.waiting_seconds = self._counter("waiting_seconds", "Time without a batch to learn from.")
        self.weights_published = self._counter("weights_published", "Broadcasts of weights.")
        self.weights_version = self._gauge("weights_version", "Newest version of the weights.")
        self.progress = self._gauge("progress_ratio", "Share of the budget used.")
        self.rejected = self._gauge("batches_rejected", "Batches thrown away for non-finite numbers.")
        self.critic_loss = self._gauge("critic_loss", "Mean over agents, last measured.")
        self.policy_loss = self._gauge("policy_loss", "Mean over agents, last measured.")
        self.value = self._gauge("q_mean", "Mean over agents and batch of the critics' values, last measured.")
        self.critic_gradient_norm = self._gauge("critic_gradient_norm", "Largest over agents, before clipping.")
        self.policy_gradient_norm = self._gauge("policy_gradient_norm", "Largest over agents, before clipping.")
        self.last_update = self._gauge("last_update_timestamp_seconds", "When the last update ended.")
        self.last_checkpoint = self._gauge("last_checkpoint_timestamp_seconds", "When the last checkpoint was written.")

    def observe(self, losses: Losses | None, progress: float, rejected: int) -> None:
        """Sets what is looked at once a second."""
        self.progress.set(progress)
        self.rejected.set(rejected)
        if losses is None:
            return
        self.critic_loss.set(float(losses.critic_loss.mean()))
        self.policy_loss.set(float(losses.policy_loss.mean()))
        self.value.set(float(losses.value.mean()))
        self.critic_gradient_norm.set(float(losses.critic_gradient_norm.max()))
        self.policy_gradient_norm.set(float(losses.policy_gradient_norm.max()))

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"shoal_learner_{name}", text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"shoal_learner_{name}", text, registry=self.registry)
