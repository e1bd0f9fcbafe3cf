"""The former home of common.policy.file; imports of it keep working."""

from common.policy.file import PolicyFile, load_policy, save_policy

__all__ = ["PolicyFile", "load_policy", "save_policy"]
