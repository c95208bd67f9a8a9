"""`from dynaq import …`: what a notebook needs, without making the command line wait for torch."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import dynaq

ROOT = Path(__file__).parents[2]
PACKAGES = ("dynaq", "cluster", "reward_service", "recommend_service", "jobs")


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def seen_by_type_checkers() -> dict[str, str]:
    """Name -> module, of the imports under TYPE_CHECKING."""
    guarded = next(node for node in ast.parse(Path(dynaq.__file__).read_text()).body if isinstance(node, ast.If))
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_every_public_name_is_the_one_that_type_checkers_see() -> None:
    seen = seen_by_type_checkers()
    assert {*seen, "__version__"} == set(dynaq.__all__)
    for name, module in seen.items():
        assert getattr(dynaq, name) is getattr(import_module(module), name), name


@pytest.mark.slow
def test_names_are_listed_before_they_are_imported() -> None:
    assert python("import dynaq; print(set(dynaq.__all__) <= set(dir(dynaq)), 'TensorCache' in vars(dynaq))") == (
        "True False\n"
    )
    assert python("from dynaq import *; print(TensorCache.__name__, open_store.__name__)") == "TensorCache open_store\n"


def test_a_name_that_is_not_there_is_an_error_of_the_usual_kind() -> None:
    with pytest.raises(AttributeError, match="module 'dynaq' has no attribute 'TensorCash'"):
        dynaq.TensorCash  # noqa: B018
    with pytest.raises(ImportError, match="TensorCash"):
        exec("from dynaq import TensorCash")


def test_the_version_is_that_of_pyproject() -> None:
    assert dynaq.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_command_line_answers_without_torch_or_ray(option: str) -> None:
    out = python(
        "import sys; from jobs.cli import run; code = run([sys.argv[1]]);"
        "print('LOADED', code, sorted({'torch', 'ray', 'numpy', 'pyarrow'} & set(sys.modules)))".replace(
            "sys.argv[1]", repr(option)
        )
    )
    assert out.splitlines()[-1] == "LOADED 0 []"
    if option == "--version":
        assert out.splitlines()[0] == f"dynaq {dynaq.__version__}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
    assert "py.typed" in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
