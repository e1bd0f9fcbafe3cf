"""Shoal from Python and from the command line: train, evaluate and play teams of agents."""
