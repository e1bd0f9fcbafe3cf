"""Runs the command `shoal`. Little is imported before Ctrl-C is minded: the command's own imports take a second."""

import sys

_INTERRUPTED = 130


def main() -> None:
    """Runs `shoal` and ends the process."""
    try:
        from deploy.cli import main as run  # noqa: PLC0415  (see above)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
