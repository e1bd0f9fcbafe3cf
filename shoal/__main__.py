"""Runs the command `shoal`. Little is imported before Ctrl-C is minded: the command's own imports take a second."""

import os
import sys

_INTERRUPTED = 130


def main() -> None:
    """Runs `shoal` and ends the process."""
    # Read once, when numpy is loaded: so before the command imports it. Products of a few hundred rows lose more to
    # OpenBLAS' threads waiting for each other than they gain, most of all where every core has a run of its own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from shoal.cli import main as run  # noqa: PLC0415  (see above)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
