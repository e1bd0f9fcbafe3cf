"""Runs the command `replay`."""

from replay_server.cli import main

if __name__ == "__main__":
    main()
