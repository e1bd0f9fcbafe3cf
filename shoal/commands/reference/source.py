"""Signatures and attribute docstrings read from the source of a module."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType
from typing import NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Source(NamedTuple):
    """The parsed source of a module."""

    name: str
    tree: ast.Module

    @classmethod
    def of(cls, module: ModuleType) -> Source:
        """Parses a module's file."""
        return cls(module.__name__, ast.parse(inspect.getsource(module)))

    def find(self, name: str) -> ast.ClassDef | Function:
        """Returns the class or function with the given name; raises LookupError if there is none."""
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
                return node
        raise LookupError(f"{self.name} defines no {name}")

    def field_docs(self, name: str) -> dict[str, str]:
        """Returns the docstrings of the fields of a class: the string literal directly below each field."""
        node = self.find(name)
        docs: dict[str, str] = {}
        for field, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and (found := _text(text)):
                docs[field.target.id] = found
        return docs


def fields(node: ast.ClassDef) -> list[tuple[str, str]]:
    """Returns the public fields of a class with their types as written."""
    return [
        (field.target.id, ast.unparse(field.annotation))
        for field in node.body
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and not field.target.id.startswith("_")
    ]


def methods(node: ast.ClassDef) -> list[Function]:
    """Returns the public methods and properties of a class."""
    return [
        method
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and not method.name.startswith("_")
    ]


def is_property(function: Function) -> bool:
    """Returns whether a function is a property."""
    return any(isinstance(mark, ast.Name) and mark.id == "property" for mark in function.decorator_list)


def signature(function: Function, *, bound: bool = False) -> str:
    """Returns the parameters and return type of a function; `bound`: without `self` or `cls`."""
    arguments = function.args
    if bound and arguments.args:
        arguments = ast.arguments(**{**dict(ast.iter_fields(arguments)), "args": arguments.args[1:]})
    result = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    # Every parameter is annotated, so every equals sign precedes a default.
    return f"({ast.unparse(arguments).replace('=', ' = ')}){result}"


def _text(node: ast.stmt) -> str:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return node.value.value if is_text else ""  # type: ignore[attr-defined]
