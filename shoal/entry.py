"""Where the commands `shoal`, `replay`, `learner` and `actor` start, and the processes that they start.

As a file, this module runs another module of Shoal: `python shoal/entry.py MODULE ARGUMENT...` does what
`python -m MODULE ARGUMENT...` does, whatever packages the working directory and PYTHONPATH hold.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import runpy
import signal
import sys

_BAD_USAGE, _INTERRUPTED = 2, 130


def shoal() -> None:
    """Runs the command `shoal` and ends the process."""
    # numpy reads this once, when it is loaded, so it is set before the command imports numpy. Products of a few hundred
    # rows lose more to OpenBLAS' threads waiting for each other than they gain, most of all where every core has a run.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _run("shoal.cli", "shoal")


def replay() -> None:
    """Runs the command `replay` and ends the process."""
    _run("replay_server.cli", "replay")


def learner() -> None:
    """Runs the command `learner` and ends the process."""
    _run("learner_node.cli", "learner")


def actor() -> None:
    """Runs the command `actor` and ends the process."""
    _run("actor_node.cli", "actor")


def _run(module: str, name: str) -> None:
    """Imports a command and runs it: Ctrl-C is quiet from the start, and a clash of packages is one line."""
    from shoal import package_finder  # noqa: PLC0415  (this file may run before the package can be imported)

    if problem := package_finder.conflict():
        sys.stderr.write(f"{name}: {problem}\n")
        sys.exit(_BAD_USAGE)
    # Imports take up to a second, and an exception inside one of them may be swallowed or shown as a traceback.
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(_INTERRUPTED))
    main = importlib.import_module(module).main
    try:
        signal.signal(signal.SIGINT, before)
        main()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _load_package() -> None:
    """Loads the package `shoal` that this file is part of, whatever `sys.path` says."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  (pathlib takes its time to import)
    file = os.path.join(here, "__init__.py")  # noqa: PTH118
    spec = importlib.util.spec_from_file_location("shoal", file, submodule_search_locations=[here])
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is missing; install Shoal again")
    package = importlib.util.module_from_spec(spec)
    sys.modules["shoal"] = package
    spec.loader.exec_module(package)


def _run_module() -> None:
    """Runs the module that the command line names, as `python -m` does."""
    if not sys.flags.safe_path:
        sys.path[0] = os.getcwd()  # noqa: PTH109
    _, module, *arguments = sys.argv
    sys.argv = [module, *arguments]
    # The main module stays this file: multiprocessing's children run it first, and so prefer Shoal's packages as well.
    runpy.run_module(module, run_name="__main__", alter_sys=False)


if not __package__:
    _load_package()
    if __name__ == "__main__":
        _run_module()
