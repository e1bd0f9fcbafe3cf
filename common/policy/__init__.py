"""Policies as actors execute them, in numpy: networks, action heads, and the policy file."""

from common.policy.network import Policy

__all__ = ["Policy"]
