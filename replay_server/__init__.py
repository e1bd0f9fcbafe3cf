"""The replay server: stores transitions, serves batches, and keeps the ratio between the two."""
