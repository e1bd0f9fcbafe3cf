"""How chunks outlive the replay server: the journal, the committer and the log in Redis."""
