"""A constant's name has one meaning in the whole project."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("dynaq", "cluster", "reward_service", "recommend_service", "jobs", "bench")

# Defined in several modules, with the same meaning in each.
SHARED = {
    "APPLICANTS",
    "ATTRIBUTION",
    "BUDGET",
    "BUDGETS",
    "COSINE_SLOPE",
    "FOLDS",
    "JOBS",
    "MIB",
    "OBSERVATION_VARIANCE",
    "PROCESS_VARIANCE",
    "SECONDS_BUCKETS",
    "SIZE",
    "T",
    "_BULLET",
}


def constants(source: str) -> Iterator[str]:
    """The names in capitals that a module assigns at its top."""
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for node in (node for target in targets for node in ast.walk(target)):
                if isinstance(node, ast.Name) and node.id.isupper():
                    yield node.id


def test_a_constant_has_one_meaning() -> None:
    modules: dict[str, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for name in constants(file.read_text(encoding="utf-8")):
                modules[name].add(file.relative_to(ROOT).as_posix())
    shared = {name: sorted(files) for name, files in modules.items() if len(files) > 1}
    new = {name: files for name, files in shared.items() if name not in SHARED}
    assert not new, f"choose names that say which is which, import the constant, or add it to SHARED: {new}"
    assert shared.keys() == SHARED, "SHARED names constants that are no longer in several modules"


def test_constants_are_found_however_they_are_assigned() -> None:
    source = "A = 1\nB: int = 2\nC, D = 3, 4\n_E = 5\nlower = 6\ndef f():\n    F = 7\n"
    assert list(constants(source)) == ["A", "B", "C", "D", "_E"]
