"""No import cycles: a module can be read, and tested, after the modules that it imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("shoal", "deploy", "actor_node", "learner_node", "replay_server", "common")


def module_name(path: Path) -> str:
    """Returns the name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.Module) -> Iterator[str]:
    """Yields the names that a module imports when it is imported itself, or for its type hints."""
    bodies: list[list[ast.stmt]] = [tree.body]
    while bodies:
        for statement in bodies.pop():
            match statement:
                case ast.Import(names):
                    yield from (alias.name for alias in names)
                case ast.ImportFrom(module=str(module), names=names, level=0):
                    yield from (f"{module}.{alias.name}" for alias in names)
                case ast.If() | ast.Try():
                    bodies += [statement.body, statement.orelse]
                    bodies += [handler.body for handler in getattr(statement, "handlers", [])]


def graph_of(sources: dict[str, str]) -> dict[str, set[str]]:
    """Returns the modules that each module imports, of those in `sources`, which are texts by module name.

    `from package import name` counts as an import of the module `package.name` if there is one, else of `package`.
    """
    graph = {}
    for name, source in sources.items():
        found = (target if target in sources else target.rpartition(".")[0] for target in imports_of(ast.parse(source)))
        graph[name] = {target for target in found if target in sources and target != name}
    return graph


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """Returns the modules of one cycle; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        return list(e.args[1])
    return []


@pytest.mark.parametrize(
    ("sources", "cyclic"),
    [
        ({"a": "import b", "b": "import c", "c": ""}, False),
        ({"a": "import b", "b": "import c", "c": "from a import x"}, True),
        ({"p": "", "p.a": "from p import b", "p.b": "if TYPE_CHECKING:\n    from p.a import A"}, True),
        ({"p": "", "p.a": "from p import b", "p.b": "def later():\n    from p.a import A"}, False),
    ],
    ids=["a chain", "a cycle", "for types only", "inside a function"],
)
def test_cycles_are_found(sources: dict[str, str], cyclic: bool) -> None:
    assert bool(cycle_in(graph_of(sources))) == cyclic


def test_no_module_is_part_of_an_import_cycle() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    graph = graph_of({module_name(path): path.read_text("utf-8") for path in files})
    assert len(graph) > 200, "the files were not found"
    assert cycle_in(graph) == []
