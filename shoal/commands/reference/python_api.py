"""The page of the public Python API, with the docstrings of the code."""

from __future__ import annotations

import ast
from importlib import import_module

from shoal.commands.reference import markdown as md
from shoal.commands.reference.source import Function, Source, fields, is_property, methods, signature

FRONT_DOOR: dict[str, tuple[str, ...]] = {
    "shoal.training": ("train", "Run", "evaluate"),
    "shoal.team": ("load", "Team"),
}
"""What `import shoal` offers, by the module that defines it."""
PUBLIC_NAMES: dict[str, tuple[str, ...]] = {
    "common.worlds": ("make_world", "world_spec", "scenarios"),
    "common.worlds.world": ("World", "Step"),
    "shoal.testing": ("check_world", "WorldCheck"),
    "common.spec": (
        "joint_spec",
        "JointSpec",
        "AgentsSpec",
        "AgentSpec",
        "PlayersSpec",
        "PlayerSpec",
        "Box",
        "Categorical",
    ),
    "common.policy.file": ("load_policy", "save_policy", "PolicyFile"),
    "common.policy.network": ("Policy",),
    "common.run.run": ("Run", "make_run_spec"),
    "common.run.directory": ("RunDirectory",),
    "actor_node.evaluation.evaluate": ("evaluate", "Evaluation"),
    "actor_node.rendering.film": ("render",),
    "common.errors": ("ShoalError", "ConfigError", "PeerError", "ProtocolError", "WorldError"),
}
"""The public names by module."""

_INTRODUCTION = """
The public names. Array shapes are given in brackets, as in `[copies, agents]`; names contain units. Everything else is
internal and may change.
"""

_FRONT_DOOR = """
`import shoal` offers these names, and `make_world`, `scenarios`, `Evaluation` and the errors of the modules below.
[python.md](../python.md) shows them at work.
""".strip()


def python_api_page() -> str:
    """Returns the page as Markdown."""
    sections = [_module(name, names) for name, names in PUBLIC_NAMES.items()]
    return md.page("From Python", _INTRODUCTION, _front_door(), *sections)


def _front_door() -> str:
    """Returns the section of what `import shoal` offers."""
    parts = ["## shoal", _FRONT_DOOR]
    for name, names in FRONT_DOOR.items():
        source = Source.of(import_module(name))
        parts += [_item(source, source.find(item)) for item in names]
    return "\n\n".join(parts)


def _module(name: str, names: tuple[str, ...]) -> str:
    source = Source.of(import_module(name))
    parts = [_item(source, source.find(item)) for item in names]
    return "\n\n".join([f"## {name}", *parts])


def _item(source: Source, node: ast.ClassDef | Function) -> str:
    if not isinstance(node, ast.ClassDef):
        return _function(node, node.name, "###", bound=False)
    parts = [f"### {node.name}", _doc(node)]
    docs = source.field_docs(node.name)
    rows = [[md.code(name), md.code(kind), docs.get(name, "")] for name, kind in fields(node)]
    rows += [
        [md.code(method.name), md.code(_result(method)), _doc(method)]
        for method in methods(node)
        if is_property(method)
    ]
    if rows:
        parts.append(md.table(["attribute", "type", "meaning"], rows))
    parts += [
        _function(method, f"{node.name}.{method.name}", "####", bound=True)
        for method in methods(node)
        if not is_property(method)
    ]
    return "\n\n".join(parts)


def _function(node: Function, name: str, level: str, *, bound: bool) -> str:
    return f"{level} {name}\n\n{md.block(node.name + signature(node, bound=bound), 'python')}\n\n{_doc(node)}"


def _result(node: Function) -> str:
    return ast.unparse(node.returns) if node.returns else ""


def _doc(node: ast.ClassDef | Function) -> str:
    return ast.get_docstring(node) or ""
