"""The process of one final task of `shoal train`, started by final_task.py.

usage: python -m shoal.commands.train.final_task_process PIPE PARENT
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from multiprocessing.connection import Connection

import msgspec

from common.errors import ShoalError
from common.process.children.child_process import kill_session_with_parent, make_pipe_private
from common.process.exit import DONE
from shoal.commands.train.final_task import FinalTask, FinalTaskResult, run_task


def main() -> None:
    """Runs one task for the parent and ends the process at once, even if the environment left threads running."""
    pipe, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    make_pipe_private(pipe)
    kill_session_with_parent(parent)
    logging.basicConfig(level="WARNING")
    task = msgspec.json.decode(pipe.recv_bytes(), type=FinalTask)
    try:
        result = run_task(task)
    except ShoalError as e:
        result = FinalTaskResult(error=str(e))
    except Exception as e:  # noqa: BLE001  (the user's code may raise anything; the parent prints it)
        result = FinalTaskResult(error=f"{type(e).__name__}: {e}")
    with contextlib.suppress(OSError):  # the parent has stopped waiting
        pipe.send_bytes(msgspec.json.encode(result))
    os._exit(DONE)


if __name__ == "__main__":
    main()
