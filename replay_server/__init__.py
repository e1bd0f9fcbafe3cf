"""The replay server: stores transitions, serves batches, and controls the ratio of samples to inserts."""
