"""`shoal tournament`: cross-play of runs, stand-ins and frozen opponents as matrices and heat maps.

cli.py        the command                       matrices.py   a tournament as matrices, and their colours
text.py      matrices and standings for people heat_map.py   the same as one SVG file (heat_map.svg)
"""
