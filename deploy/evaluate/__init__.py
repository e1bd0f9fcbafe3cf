"""`shoal evaluate`: one run's figures, or several runs' as one table.

cli.py   the command             summary.py   which runs there are, and what their seeds come to
words.py for people              exports.py   the table as CSV and as LaTeX
"""
