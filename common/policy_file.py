"""An alias of common.policy.file, for programs that import its former name."""

from common.policy.file import PolicyFile, load_policy, save_policy

__all__ = ["PolicyFile", "load_policy", "save_policy"]
