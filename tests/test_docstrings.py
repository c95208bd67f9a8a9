"""Every public definition says what it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("dynaq", "cluster", "reward_service", "recommend_service", "jobs")

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def undocumented(source: str) -> Iterator[str]:
    """Names without a docstring: the module, its public classes and functions, and public members of those classes."""

    def below(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
        for node in parent.body:
            if not isinstance(node, Definition) or node.name.startswith("_") or is_overload(node):
                continue
            if not ast.get_docstring(node):
                yield f"{node.lineno} {prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from below(node, f"{prefix}{node.name}.")

    module = ast.parse(source)
    if not ast.get_docstring(module):
        yield "1 the module"
    yield from below(module, "")


def is_overload(node: Definition) -> bool:
    return any(isinstance(decorator, ast.Name) and decorator.id == "overload" for decorator in node.decorator_list)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_definition_has_a_docstring(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = [f"{file.relative_to(ROOT)}:{name}" for file in files for name in undocumented(file.read_text())]
    assert not found, "\n".join(["say what these are:", *found])


def test_a_definition_without_a_docstring_is_found() -> None:
    source = '''
class Public:
    def method(self): ...
    async def fetch(self): ...
    @property
    def size(self): ...
    def told(self):
        """Is told."""
    def _own(self): ...
class _Own:
    def method(self): ...
@overload
def one(a): ...
def one(a):
    def inside(): ...
'''
    assert list(undocumented(source)) == [
        "1 the module",
        "2 Public",
        "3 Public.method",
        "4 Public.fetch",
        "6 Public.size",
        "14 one",
    ]
