"""The tree of Shoal's errors, each with the exit code of a process that ends with it.

    ShoalError                1  an operation failed
      ConfigError             2  bad usage or configuration: names the value and what to do
        FinishedError         2  a run to resume has used its budget: `learner` then exits with code 0
      PeerError               3  a peer cannot be reached, or refuses to serve this process
      LastingError            1  a retry would fail again: a supervisor ends the run instead of restarting the process
      ProtocolError           1  malformed data from a wire or a file
      WorldError              1  an environment broke its contract: names world, agent and step

A command prints the message of a ShoalError in one line without a traceback. Any other exception is a defect of Shoal
and prints its traceback.
"""


class ShoalError(Exception):
    """The base class of all errors that Shoal raises deliberately."""

    exit_code = 1


class ConfigError(ShoalError):
    """An option, file or directory of the user cannot be used; the message names the value and what to do."""

    exit_code = 2


class FinishedError(ConfigError):
    """A run to resume has used its budget."""


class PeerError(ShoalError):
    """Another process cannot be reached, or refuses to serve this one."""

    exit_code = 3


class LastingError(ShoalError):
    """A failure that a retry cannot fix, so that a supervisor does not restart the process."""


class ProtocolError(ShoalError):
    """Bytes from a wire or a file are malformed."""


class WorldError(ShoalError):
    """An environment broke its contract (a NaN reward, an agent that returned after its end) or raised an error."""

    def __init__(self, message: str, copy: int | None = None) -> None:
        super().__init__(message)
        self.copy = copy
        """Index of the copy that failed; None if the failure does not belong to one copy."""
