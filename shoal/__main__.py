"""Runs the command `shoal`: `python -m shoal`."""

from shoal.entry import shoal as main

if __name__ == "__main__":
    main()
