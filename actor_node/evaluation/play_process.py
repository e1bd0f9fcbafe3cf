"""A process that plays episodes for another one: `python -m actor_node.evaluation.play_process PIPE PARENT`.

Started by actor_node/evaluation/process_pool.py, which also has what it does.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection

from actor_node.collector import Interrupted
from actor_node.evaluation.process_pool import play_for
from common.process.exit import DONE, FAILED


def main() -> None:
    """Plays for the parent, a process id, at the other end of the pipe, a file descriptor.

    Ends without a wait for threads and processes that the environment has left behind; the parent kills these.
    """
    pipe, parent = (int(argument) for argument in sys.argv[1:3])
    code = DONE
    try:
        play_for(Connection(pipe), parent)
    except Interrupted:
        code = 128 + signal.SIGTERM
    except (EOFError, OSError):
        code = FAILED  # the parent is gone
    except BaseException:  # noqa: BLE001  (the process ends here)
        traceback.print_exc()
        code = FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
