"""Whom the replay server serves: actors with their credit, learners with their requests, and who waits for whom."""
