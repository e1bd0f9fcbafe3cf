"""The results of runs as files that other tools read: marl-eval's JSON, and CSV."""
