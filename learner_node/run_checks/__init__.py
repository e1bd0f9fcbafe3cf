"""Checks of a run: its sizes, its warm-up, the inputs of its networks, and weights that actors refuse."""
