"""Why a worker ended, and what follows: decided from its exit code and its last words. Pure.

last words     exit code       is                                                    follows
config, peer   2, 3            the user's mistake; a peer that will not serve        the node ends with the error
again          any             it was asked to start anew: by its replay server, or  start again, up to a limit
                               by a signal that is not its node's
fault          any             an error of the environment, or a defect              `RestartPolicy` decides
none           0 .. 255        the environment ended the process (os._exit)          `RestartPolicy` decides, as a fault
none           a signal        killed from outside (KILL, TERM, INT, HUP)            start again, up to a limit
none           another signal  it crashed (SEGV, ABRT, ...)                          `RestartPolicy` decides, as a fault
"""

from __future__ import annotations

import traceback
from typing import Literal

import msgspec

from common.errors import ConfigError, LastingError, PeerError, ShoalError, WorldError
from common.process.restart_policy import GiveUp, RestartPolicy
from common.worlds.faults import FROM_OUTSIDE, described, process_ended

LONGEST_WORDS = 8_000
"""Characters of a failure that reach the supervisor: more than a pipe holds would never be sent."""
LONGEST_LINE = 200


class LastWords(msgspec.Struct, frozen=True):
    """What a worker sends before it ends by an error."""

    kind: Literal["config", "peer", "again", "fault"]
    text: str
    """One line that says what happened, then details."""

    @property
    def line(self) -> str:
        """The first line, cut."""
        return self.text.partition("\n")[0][:LONGEST_LINE]


class RestartRequested(msgspec.Struct, frozen=True):
    """The worker is to be started again after a while; `why` is the whole text, one line first."""

    delay_s: float
    why: str


def last_words(error: BaseException) -> LastWords:
    """Returns what is to be said of an error that ends a worker."""
    if isinstance(error, ConfigError):
        return LastWords("config", str(error)[:LONGEST_WORDS])
    if isinstance(error, PeerError):
        return LastWords("peer", str(error)[:LONGEST_WORDS])
    if isinstance(error, WorldError):
        return LastWords("fault", str(error)[:LONGEST_WORDS])
    if isinstance(error, ShoalError):
        return LastWords("again", str(error)[:LONGEST_WORDS])
    if isinstance(error, KeyboardInterrupt):
        # A worker takes the terminal's Ctrl-C otherwise: this one is the environment's.
        return LastWords("fault", str(described("the environment", error))[:LONGEST_WORDS])
    what = f"{type(error).__name__}: {error}"[: LONGEST_WORDS // 2]
    frames = "".join(traceback.format_tb(error.__traceback__))[-LONGEST_WORDS // 2 :]
    return LastWords("fault", f"{what}\n{frames.rstrip()}")


def decide(
    code: int, words: LastWords | None, restarts: RestartPolicy, *, collected: bool, doing: str, worker: int
) -> RestartRequested | ShoalError:
    """Returns when to start a worker again that ended with `code` (negative: by that signal), or why not to.

    collected: whether it collected a chunk; doing: the call of the user's code it was in;
    worker: its number in the node.
    """
    if words is not None and words.kind == "config":
        return ConfigError(words.text)
    if words is not None and words.kind == "peer":
        return PeerError(words.text)
    # Where there are words they are the reason: a worker that cannot end after them is killed by its node.
    how = words.text if words is not None else process_ended(code, doing)
    is_fault = words.kind == "fault" if words is not None else -code not in FROM_OUTSIDE
    fault = how if is_fault else ""
    decided = restarts.after(progressed=collected, fault=fault)
    if isinstance(decided, GiveUp):
        return LastingError(f"{how}\n(worker {worker} failed {decided.reason}; it is not started again)")
    return RestartRequested(decided.delay_s, how)
