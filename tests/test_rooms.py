"""Who may import whom: packages point one way, their rooms have no circle, a run is read without a cluster."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {"dynaq": 0, "cluster": 1, "reward_service": 2, "recommend_service": 2, "jobs": 3}
VERBS = {
    "audit",
    "config",
    "demo",
    "doctor",
    "evaluate",
    "export_person",
    "forget",
    "ingest",
    "judge",
    "pretrain",
    "promote",
}
VERBS |= {"recommend", "report", "serve", "simulate", "submit", "train", "tune"}


def imports() -> Iterator[tuple[str, str]]:
    """Every (module, module of ours that it imports), wherever in the file it does, for types only included."""
    modules = {}
    for package in FLOORS:
        for file in (ROOT / package).rglob("*.py"):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            modules[name.removesuffix(".__init__")] = file
    for module, file in modules.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module} has a relative import"
                base = node.module or ""
                found = [f"{base}.{one.name}" if f"{base}.{one.name}" in modules else base for one in node.names]
            else:
                continue
            yield from ((module, name) for name in found if name.partition(".")[0] in FLOORS)


def room(module: str) -> str:
    """`dynaq.agent` of `dynaq.agent.dyna_q`; a file at the top is a room of its own."""
    return ".".join(module.split(".")[:2])


def circular(graph: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Every (room, imported room) that lies on a circle: a way leads back from the imported room."""

    def reaches(start: str, goal: str) -> bool:
        seen, todo = set(), [start]
        while todo:
            at = todo.pop()
            if at == goal:
                return True
            if at not in seen:
                seen.add(at)
                todo += graph.get(at, ())
        return False

    return sorted((a, b) for a, imported in graph.items() for b in imported if reaches(b, a))


def test_packages_import_one_way() -> None:
    upwards = []
    for module, imported in imports():
        a, b = module.partition(".")[0], imported.partition(".")[0]
        if a != b and FLOORS[b] >= FLOORS[a]:
            upwards.append(f"{module} imports {imported}")
    assert upwards == []


def test_the_rooms_of_the_packages_have_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    why: dict[tuple[str, str], list[str]] = {}
    for module, imported in imports():
        a, b = room(module), room(imported)
        # The public face of a package looks into every room, lazily; it is none of them.
        if a != b and a not in FLOORS and b not in FLOORS:
            graph.setdefault(a, set()).add(b)
            why.setdefault((a, b), []).append(f"{module} imports {imported}")
    found = [f"{a} → {b}: {', '.join(dict.fromkeys(why[a, b]))}" for a, b in circular(graph)]
    assert not found, "\n".join(found)


def test_a_circle_is_found_however_long() -> None:
    assert circular({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [("a", "b"), ("b", "c"), ("c", "a")]
    assert circular({"a": {"b", "c"}, "b": {"c"}}) == []


@pytest.mark.slow
@pytest.mark.parametrize("module", ["dynaq", "dynaq.runs.reading", "dynaq.evaluation.comparison"])
def test_reading_a_run_needs_no_cluster_no_engine_and_no_http(module: str) -> None:
    heavy = ("ray", "vllm", "fastapi", "httpx")
    code = f"import sys, {module}; print(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_command_imports_another() -> None:
    verbs = {f"jobs.{verb}" for verb in VERBS}
    assert [f"{module} imports {imported}" for module, imported in imports() if imported in verbs] == []


def test_jobs_holds_the_commands_and_nothing_else() -> None:
    assert {file.stem for file in (ROOT / "jobs").glob("*.py")} == VERBS | {"__init__", "cli"}
