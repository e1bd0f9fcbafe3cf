"""Benchmarks of one piece of code in one process: worlds, policies, the collection loop, and the learner's update."""
