"""`shoal tournament`: cross-play of runs and baselines as matrices and heat maps.

cli.py    the command                             matrices.py         a tournament as coloured matrices
text.py   matrices and standings for a terminal   heat_map.py         the matrices as one SVG file (heat_map.svg)
                                                  make_opponents.py   trains the frozen teams
"""
