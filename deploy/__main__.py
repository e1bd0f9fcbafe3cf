"""Runs the command `shoal`."""

from deploy.cli import main

if __name__ == "__main__":
    main()
