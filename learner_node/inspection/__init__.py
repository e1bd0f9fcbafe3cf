"""Measurements for `shoal diagnose` and `shoal bench`: networks of a checkpoint, and the speed of the update."""
