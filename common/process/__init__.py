"""Process support that every role uses.

command.py    command lines from config structs         durations.py    durations as options and as text
stop.py       signals and requests to stop              exit.py         exit codes
posix.py      what needs a POSIX system
children/     processes that a process starts           monitoring/     logs, metrics, health, resources
"""
