"""Policies as actors execute them, in numpy: layers, action heads, and the file they are stored in."""

from common.policy.network import Policy

__all__ = ["Policy"]
