"""The former module of common.policy.file; it still exports the same names."""

from common.policy.file import PolicyFile, load_policy, save_policy

__all__ = ["PolicyFile", "load_policy", "save_policy"]
