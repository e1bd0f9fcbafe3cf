"""A run that is disturbed all the time: what it loses, what grows, and what it learns all the same.

    python -m tests.soak.churn --minutes 30

Trains twice with `shoal train --audit`: while faults happen, and undisturbed for the same number of steps.

    processes.py   the processes of the run, with their memory, descriptors and threads over time
    faults.py      the faults: kills, pauses, a bad network, a full Redis, a clock that is set
    links.py       the network: proxies between the processes; train.py starts `shoal train` over them
    clock.py       the clock of the run's processes
    growth.py      slopes with their 95 % interval
    report.py      the tables, and the same figures as JSON
    __main__.py    the options, and both runs
"""
