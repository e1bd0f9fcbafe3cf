"""Vocabulary and wire of Shoal: what at least two of its processes import. Decides nothing, runs no loop."""
