"""The process of one benchmark: prints result rows and progress messages, one JSON object a line.

usage: python -m shoal.commands.bench NAME CONFIG PARENT [WORLD]...
"""

from __future__ import annotations

import signal
import sys

import msgspec

from common.errors import ShoalError
from common.process.children.parent import die_with_parent
from common.process.exit import INTERRUPTED
from shoal.commands.bench import BENCHMARKS, BenchConfig, world_rates


def main() -> int:
    """Runs the benchmark named on the command line and returns the exit code."""
    name, text, parent, *names = sys.argv[1:]
    config = msgspec.json.decode(text, type=BenchConfig)
    # SIGTERM raises KeyboardInterrupt, so that processes started by the benchmark end with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    die_with_parent(int(parent))
    try:
        for line in world_rates.rows_of(names, config) if names else BENCHMARKS[name](config):
            sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
            sys.stdout.flush()
    except ShoalError as e:
        sys.stderr.write(f"shoal bench {name}: {e}\n")
        return e.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
