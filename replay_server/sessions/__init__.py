"""The sessions of the replay server's peers: actors and their credit, learners and their requests, and waits."""
