"""`shoal sweep`: trains runs with several seeds and settings and summarizes them in one table."""
