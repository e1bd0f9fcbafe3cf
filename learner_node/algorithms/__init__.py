"""The algorithms: settings of one update."""
