"""Environments of others: made from a name, checked against their contract, stepped copy by copy."""
