"""`shoal diagnose`: finds problems of a run in its team, its networks and its log."""
