"""`shoal evaluate`: one run's figures, or several runs' as one table.

cli.py   the command             summary.py   which runs there are, and what their seeds come to
rows.py  the table, row by row   text.py     it, and one run, for people
                                 exports.py   it as CSV and as LaTeX
"""
