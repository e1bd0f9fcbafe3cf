"""Processes that a process starts: how they are started, end with their parent, report a failure, and start again.

child_process.py    a child at the other end of a pipe      parent.py          the end of a parent ends its child
python_command.py   the command line of a child             failure_note.py    why a child failed, for its parent
restart_policy.py   whether a child that ended starts again
"""
