"""`shoal evaluate`: prints the evaluation of one run, or of several runs as one table.

cli.py         the command                        progress.py    options and progress of commands that play episodes
summary.py     means over runs that differ by     table_rows.py  the rows of the table, for any output format
               their seed                         csv_latex.py   the table as CSV and as LaTeX
text.py        one run and the table as text
"""
