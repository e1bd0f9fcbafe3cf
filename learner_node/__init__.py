"""Transitions to weights: the learner and the only importer of torch."""
