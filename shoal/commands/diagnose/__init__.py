"""`shoal diagnose`: finds problems of a run in its team, its networks and its log.

cli.py            the command            log_figures.py    figures of the training log
diagnosis.py      all figures of a run   log_warnings.py   warnings from the figures of the log
warning.py        one warning            team_warnings.py  warnings from the figures of messages, values and networks
"""
