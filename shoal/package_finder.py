"""Finders that prefer Shoal's packages over other packages of the same name in a process that imports `shoal`.

A user's project may contain a package called `common` or `deploy`, in the working directory or on PYTHONPATH, and
Python imports the first one on `sys.path`. A finder before `sys.path` resolves these names to the packages that were
installed with this file, in the command's process and in the processes that it starts (`shoal/entry.py`).

    import common.worlds       # Shoal's package, whatever the working directory
    import common.maps         # ModuleNotFoundError: names the user's package and says what to do
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

PACKAGES = ("actor_node", "common", "deploy", "learner_node", "replay_server")
"""Top-level packages that are installed beside `shoal`."""
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  (importing pathlib is slow)


class PackageFinder:
    """A finder for Shoal's top-level packages that precedes `sys.path`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Returns the spec of one of Shoal's packages; None for any other module."""
        return PathFinder.find_spec(name, [ROOT], target) if path is None and name in PACKAGES else None


class HiddenPackageErrors:
    """A last finder that explains why an import failed: a package of Shoal hides another one of the same name."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Raises ModuleNotFoundError for a module of a hidden package; returns None for any other module."""
        _ = path, target
        package, _, module = name.partition(".")
        if module and package in PACKAGES and (other := _other_package(package)):
            raise ModuleNotFoundError(
                f"No module named {name!r}: {package!r} is a package of Shoal and hides {other}. Rename that package, "
                f"or move it into a package of another name.",
                name=name,
            )
        return None


def install() -> None:
    """Installs both finders in this process."""
    if PackageFinder not in sys.meta_path:
        sys.meta_path.insert(0, PackageFinder)
        sys.meta_path.append(HiddenPackageErrors)


def conflict() -> str:
    """Returns a message if another package with the name of one of Shoal's is already imported; empty otherwise."""
    for name in PACKAGES:
        module = sys.modules.get(name)
        if module is not None and not _is_installed_with_shoal(name, module):
            return (
                f"the package {name!r} of {_location(module)} was imported before Shoal's package of that name. Import "
                f"shoal first, or rename the other package."
            )
    return ""


def refuse_conflict() -> None:
    """Raises ImportError if another package with the name of one of Shoal's is already imported."""
    if problem := conflict():
        raise ImportError(problem)


def _is_installed_with_shoal(name: str, module: ModuleType) -> bool:
    expected = os.path.realpath(os.path.join(ROOT, name))  # noqa: PTH118  (as above)
    return any(os.path.realpath(path) == expected for path in getattr(module, "__path__", ()))


def _location(module: ModuleType) -> str:
    return (
        next(iter(getattr(module, "__path__", ())), None) or getattr(module, "__file__", None) or "an unknown location"
    )


def _other_package(name: str) -> str:
    """Returns the path of another package or module of this name on `sys.path`; empty if there is none."""
    for entry in sys.path:
        directory = os.path.realpath(entry or ".")
        if directory != os.path.realpath(ROOT):
            for found in (os.path.join(directory, name), os.path.join(directory, f"{name}.py")):  # noqa: PTH118
                if os.path.exists(found):  # noqa: PTH110
                    return found
    return ""
