"""The tree of Shoal's errors, each with the exit code its process ends with.

    ShoalError                1  something failed
      ConfigError             2  bad usage or configuration: names the value and the way out
        FinishedError         2  a run has used its budget: `learner` takes it for an end, not for a mistake
      PeerError               3  a peer could not be reached, or will not serve us
      LastingError            1  the same would fail again: a supervisor ends the run instead of starting it again
      ProtocolError           1  what came over a wire is not what it must be
      WorldError              1  an environment broke its contract: names world, agent and step

A command shows the message of a ShoalError as one line and no traceback; anything else is a defect and shows one.
"""


class ShoalError(Exception):
    """Is the root of everything Shoal raises on purpose."""

    exit_code = 1


class ConfigError(ShoalError):
    """Says that an option, file or directory given by the user cannot be used, and what can."""

    exit_code = 2


class FinishedError(ConfigError):
    """Says that a run that shall be gone on with has used its budget."""


class PeerError(ShoalError):
    """Says that another process could not be reached or refuses to serve this one."""

    exit_code = 3


class LastingError(ShoalError):
    """Says that something failed in a way that repetition cannot mend: a supervisor does not try again."""


class ProtocolError(ShoalError):
    """Says that bytes from a wire or a file do not hold what they must."""


class WorldError(ShoalError):
    """Says that an environment broke its contract (a NaN reward, an agent that came back), or raised an exception."""

    def __init__(self, message: str, copy: int | None = None) -> None:
        super().__init__(message)
        self.copy = copy
        """Index of the copy that failed; None where the failure is of no single copy."""
