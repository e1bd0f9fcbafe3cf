"""`shoal audit`: checks the delivery promises of a run against the audit files that its processes wrote.

ledger.py           reads the audit files and Redis: which chunks were sent, and which were stored
delivery_check.py   replays the ledger and counts lost, duplicate, reordered and altered chunks
"""
