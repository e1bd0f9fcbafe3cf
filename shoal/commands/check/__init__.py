"""What a user must know of a world before training on it: its contract, sizes, scales, returns and speed.

check.py (the caller's process)          check_process.py (a child: the user's code may hang or crash it)
--- Task ----------------------------->
<-- Began("random actions"), ... ------  the stage that starts
<-- Agents, Contract, Play, ... -------  each stage's figures as soon as they are known
findings.py                                 turns the figures into problems, advice and settings
text.py, cli.py                             show them
"""
