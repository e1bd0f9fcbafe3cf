"""`shoal sweep`: trains runs with several seeds and settings and summarizes them in one table.

cli.py     the command                        runner.py   runs `shoal train` processes in parallel
plan.py    the runs of every combination      claims.py   which process executes a run of a shared directory
search.py  combinations chosen by Optuna      table.py    the table of results
"""
