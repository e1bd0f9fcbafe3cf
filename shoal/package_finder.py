"""Shoal's own packages win over other packages of the same name in every process that imports `shoal`.

A user's project may have a package called `common` or `deploy`, in the working directory or on PYTHONPATH. Python would
take whichever comes first on `sys.path`. A finder in front of `sys.path` resolves these names to the packages that were
installed with this file, in the command's process and in the processes that it starts (`shoal/entry.py`).

    import common.worlds       # Shoal's, wherever the working directory is
    import common.maps         # ModuleNotFoundError that names the user's package and the way out
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

PACKAGES = ("actor_node", "common", "deploy", "learner_node", "replay_server")
"""Top-level packages that are installed beside `shoal`."""
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120  (pathlib takes its time to import)


class PackageFinder:
    """Finds Shoal's top-level packages before `sys.path` is searched."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Returns where one of Shoal's own packages is; None for any other module."""
        return PathFinder.find_spec(name, [ROOT], target) if path is None and name in PACKAGES else None


class HiddenPackageErrors:
    """Explains an import that failed because Shoal's own package hides another one of the same name."""

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
    """Makes Shoal's own packages win in this process from now on."""
    if PackageFinder not in sys.meta_path:
        sys.meta_path.insert(0, PackageFinder)
        sys.meta_path.append(HiddenPackageErrors)


def conflict() -> str:
    """Returns which other package has taken a name of Shoal's in this process, and the way out; empty if none has."""
    for name in PACKAGES:
        module = sys.modules.get(name)
        if module is not None and not _is_installed_with_shoal(name, module):
            return (
                f"the package {name!r} of {_home(module)} was imported before Shoal's own package of that name. Import "
                f"shoal first, or rename the other package."
            )
    return ""


def refuse_conflict() -> None:
    """Raises ImportError where another package has taken a name of Shoal's in this process."""
    if problem := conflict():
        raise ImportError(problem)


def _is_installed_with_shoal(name: str, module: ModuleType) -> bool:
    expected = os.path.realpath(os.path.join(ROOT, name))  # noqa: PTH118  (as above)
    return any(os.path.realpath(path) == expected for path in getattr(module, "__path__", ()))


def _home(module: ModuleType) -> str:
    return next(iter(getattr(module, "__path__", ())), None) or getattr(module, "__file__", None) or "an unknown place"


def _other_package(name: str) -> str:
    """Returns the path of another package or module of this name on `sys.path`; empty if there is none."""
    for entry in sys.path:
        directory = os.path.realpath(entry or ".")
        if directory != os.path.realpath(ROOT):
            for found in (os.path.join(directory, name), os.path.join(directory, f"{name}.py")):  # noqa: PTH118
                if os.path.exists(found):  # noqa: PTH110
                    return found
    return ""
