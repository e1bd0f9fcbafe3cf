"""The replay server: remembers transitions, hands out batches, and holds the ratio between the two."""
