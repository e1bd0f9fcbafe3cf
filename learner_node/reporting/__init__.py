"""What the learner reports: to the replay servers, logs, Prometheus, metrics.jsonl, TensorBoard and trackers."""
