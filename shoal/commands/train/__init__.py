"""`shoal train`: trains a run with all its processes on this machine, evaluates it and writes its report.

cli.py        the command               artifacts.py            machine.json, dashboard, warnings, films and report
session.py    the steps of a session    final_task.py           diagnosis and films, if needed in a child process
dashboard.py  the live page             final_task_process.py   the child process
"""
