"""`shoal paper`: the tables of the MADDPG paper (Lowe et al. 2017, arXiv 1706.02275), MADDPG against independent DDPG.

tasks.py    which tables there are, what is measure, what the paper says   plan.py  the runs they need
scores.py   what the runs came to, over seeds                               plot.py  the same as SVG (plot.svg)
page.py     all of it as Markdown (page.md)                                 cli.py   the command
"""
