"""Benchmarks of the replay server and of weights on the network, with the load generators and baselines they need."""
