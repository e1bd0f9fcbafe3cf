"""Evaluations while a run trains: when weights are evaluated, and the process that evaluates them."""
