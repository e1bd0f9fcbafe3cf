"""The peers of the replay server: actors with their credit, learners with their requests, and their waits."""
