"""`shoal evaluate`: prints the evaluation of one run, or of several runs as one table.

cli.py              the command                             progress.py     progress of commands that play episodes
episode_options.py  options of commands that play episodes  table_rows.py   the rows of the table, for any output format
summary.py          means over runs that differ by seed     csv_latex.py    the table as CSV and as LaTeX
text.py             one run and the table as text
"""
