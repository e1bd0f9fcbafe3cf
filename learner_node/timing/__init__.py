"""Time and progress of a run: clocks.py measures them, schedule.py derives rates and exploration from them."""
