"""A process that makes a diagnosis or a film: `python -m shoal.commands.train.final_task_process PIPE PARENT`.

Started by final_task.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from multiprocessing.connection import Connection

import msgspec

from common.errors import ShoalError
from common.process.child_process import kill_session_with_parent, make_pipe_private
from common.process.exit import DONE
from shoal.commands.train.final_task import FinalTask, FinalTaskResult, make


def main() -> None:
    """Does one task for the parent and ends the process at once, whatever the copies left running."""
    pipe, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    make_pipe_private(pipe)
    kill_session_with_parent(parent)
    logging.basicConfig(level="WARNING")
    task = msgspec.json.decode(pipe.recv_bytes(), type=FinalTask)
    try:
        answer = make(task)
    except ShoalError as e:
        answer = FinalTaskResult(error=str(e))
    except Exception as e:  # noqa: BLE001  (the user's code may raise anything; the parent says it)
        answer = FinalTaskResult(error=f"{type(e).__name__}: {e}")
    with contextlib.suppress(OSError):  # the parent waits no longer
        pipe.send_bytes(msgspec.json.encode(answer))
    os._exit(DONE)


if __name__ == "__main__":
    main()
