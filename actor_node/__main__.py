"""Entry point of `python -m actor_node`: the command `actor`."""

from actor_node.cli import main

if __name__ == "__main__":
    main()
