"""A process that plays episodes for another one: `python -m actor_node.play_process PIPE PARENT`.

Started by actor_node/pool.py, which also has what it does.
"""

from __future__ import annotations

import contextlib
import sys
from multiprocessing.connection import Connection

from actor_node.pool import play_for


def main() -> None:
    """Plays for the parent, a process id, at the other end of the pipe, a file descriptor."""
    pipe, parent = (int(argument) for argument in sys.argv[1:3])
    with Connection(pipe) as connection, contextlib.suppress(EOFError):
        play_for(connection, parent)


if __name__ == "__main__":
    main()
