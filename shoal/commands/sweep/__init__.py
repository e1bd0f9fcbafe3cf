"""`shoal sweep`: seeds and settings, each a plain run in a directory of its own, and one table of all."""
