"""Every public definition says what it is."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("dynaq", "cluster", "reward_service", "recommend_service", "jobs")

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def documented_members(sources: Iterable[str]) -> dict[str, set[str]]:
    """Class name -> its members that have a docstring, its bases' included: what says how they are to behave."""
    classes = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    own = {c.name: {n.name for n in c.body if isinstance(n, Definition) and ast.get_docstring(n)} for c in classes}
    for _ in range(3):  # bases of bases
        for one in classes:
            own[one.name] |= set().union(*(own.get(base, set()) for base in base_names(one)))
    return own


@functools.cache
def documented_in_project() -> dict[str, set[str]]:
    """`documented_members` of all packages."""
    return documented_members(file.read_text() for one in PACKAGES for file in (ROOT / one).rglob("*.py"))


def base_names(node: ast.ClassDef) -> list[str]:
    return [base.id for base in node.bases if isinstance(base, ast.Name)]


def undocumented(source: str, inherited: Mapping[str, set[str]] = MappingProxyType({})) -> Iterator[str]:
    """Names without a docstring: the module, its public classes and functions, and public members of those classes.

    A member that overrides one of a base in `inherited` has that one's docstring, as `inspect.getdoc` has it.
    """

    def below(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
        bases = base_names(parent) if isinstance(parent, ast.ClassDef) else []
        said = set().union(*(inherited.get(base, set()) for base in bases))
        for node in parent.body:
            if not isinstance(node, Definition) or node.name.startswith("_") or is_overload(node):
                continue
            if not ast.get_docstring(node) and node.name not in said:
                yield f"{node.lineno} {prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from below(node, f"{prefix}{node.name}.")

    module = ast.parse(source)
    if not ast.get_docstring(module):
        yield "1 the module"
    yield from below(module, "")


def is_overload(node: Definition) -> bool:
    return any(isinstance(decorator, ast.Name) and decorator.id == "overload" for decorator in node.decorator_list)


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_definition_has_a_docstring(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    inherited = documented_in_project()
    found = [f"{f.relative_to(ROOT)}:{name}" for f in files for name in undocumented(f.read_text(), inherited)]
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


def test_an_override_has_the_docstring_of_its_base() -> None:
    source = '''"""A module."""
class Base:
    """Is a base."""
    def said(self):
        """Is said."""
class Middle(Base):
    """Adds nothing."""
class Own(Middle):
    """Overrides."""
    def said(self): ...
    def new(self): ...
'''
    assert list(undocumented(source, documented_members([source]))) == ["11 Own.new"]
