"""The options of a verb, read from the source of its module, which is not imported for that.

A verb imports Ray, torch and vLLM, which takes seconds; help, completion and a mistyped option need none of them. So
only those statements of its module are executed that the signature of its `main` refers to, which are imports and
constants. These must be light, which a test checks for every verb.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterator
from importlib.abc import InspectLoader
from typing import Any


def module_of(verb: str) -> str:
    """The module of a verb."""
    return f"jobs.{verb.replace('-', '_')}"


def signature_of(verb: str) -> Callable[..., Any]:
    """`main` of the verb's module with its options, defaults and docstring, but without its body."""
    name = module_of(verb)
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert isinstance(spec.loader, InspectLoader)
    source = spec.loader.get_source(name)
    assert source is not None
    statements = ast.parse(source).body
    main = next(one for one in statements if isinstance(one, ast.FunctionDef) and one.name == "main")
    main.body = main.body[:1]  # the docstring
    module = ast.Module([*_needed(statements, main), main], type_ignores=[])
    names: dict[str, Any] = {"__name__": name}
    exec(compile(module, str(spec.origin), "exec"), names)  # with this file's `annotations` in effect, as in the module
    found: Callable[..., Any] = names["main"]
    return found


def _needed(statements: list[ast.stmt], main: ast.FunctionDef) -> list[ast.stmt]:
    """The statements that bind what the arguments of `main` refer to, directly or through each other, in order."""
    found: set[int] = set()
    wanted = set(_names(main.args))
    while wanted:
        name = wanted.pop()
        for place, one in enumerate(statements):
            if place not in found and name in _bound(one):
                found.add(place)
                wanted |= set(_names(one))
    return [statements[place] for place in sorted(found)]


def _names(node: ast.AST) -> Iterator[str]:
    return (one.id for one in ast.walk(node) if isinstance(one, ast.Name))


def _bound(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.Import(names) | ast.ImportFrom(names=names):
            return {one.asname or one.name.partition(".")[0] for one in names}
        case ast.Assign(targets):
            return {name for target in targets for name in _names(target)}
    return set()
