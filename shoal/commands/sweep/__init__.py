"""`shoal sweep`: trains runs with several seeds and settings and summarizes them in one table.

cli.py     the command                        runner.py   runs `shoal train` processes in parallel
plan.py    the runs of every combination      table.py    the table of results
search.py  combinations chosen by Optuna
"""
