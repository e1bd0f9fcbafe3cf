"""The entry points of the commands `shoal`, `replay`, `learner` and `actor`, and of the processes that they start.

As a script, this file runs another module of Shoal: `python shoal/entry.py MODULE ARGUMENT...` equals
`python -m MODULE ARGUMENT...`, but finds Shoal's packages first, whatever the working directory and PYTHONPATH contain.
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
    # numpy reads the variable on import. In products of a few hundred rows, OpenBLAS threads lose more time by waiting
    # for each other than they gain, above all if every core has a run.
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
    """Imports and runs a command; Ctrl-C during the import and a conflict of packages print no traceback."""
    from shoal import package_finder  # noqa: PLC0415  (this file may run before the package can be imported)

    if problem := package_finder.conflict():
        sys.stderr.write(f"{name}: {problem}\n")
        sys.exit(_BAD_USAGE)
    # Imports take up to a second; a KeyboardInterrupt inside one may be swallowed or printed as a traceback.
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
    """Loads the package `shoal` that contains this file, whatever `sys.path` contains."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  (importing pathlib is slow)
    file = os.path.join(here, "__init__.py")  # noqa: PTH118
    spec = importlib.util.spec_from_file_location("shoal", file, submodule_search_locations=[here])
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is missing. Install Shoal again.")
    package = importlib.util.module_from_spec(spec)
    sys.modules["shoal"] = package
    spec.loader.exec_module(package)


def _run_module() -> None:
    """Runs the module named on the command line, as `python -m` does."""
    if not sys.flags.safe_path:
        sys.path[0] = os.getcwd()  # noqa: PTH109
    _, module, *arguments = sys.argv
    sys.argv = [module, *arguments]
    # This file remains the main module: multiprocessing's children run it first, so they find Shoal's packages, too.
    runpy.run_module(module, run_name="__main__", alter_sys=False)


if not __package__:
    _load_package()
    if __name__ == "__main__":
        _run_module()
