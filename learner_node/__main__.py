"""Runs the command `learner`."""

from learner_node.cli import main

if __name__ == "__main__":
    main()
