"""`shoal paper`: makes the tables of the MADDPG paper (Lowe et al. 2017, arXiv 1706.02275), with MADDPG and DDPG.

tasks.py    the tables: worlds, variants, measures, claims of the paper   plan.py  the runs of the tables
scores.py   the results over seeds                                        plot.py  a table as SVG (plot.svg)
page.py     all tables as Markdown (page.md)                              cli.py   the command
"""
