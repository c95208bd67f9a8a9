"""What others get: the wheel, the source distribution, and the files by which a project introduces itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest
import yaml

from jobs.cli import VERBS, module_of

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("dynaq", "cluster", "reward_service", "recommend_service", "jobs")
SHARE = PurePosixPath("share/dynaq-jobs")  # below the environment's prefix
# What the documentation names for those who develop, and only the repository has.
FOR_DEVELOPERS = ("tests", "pyproject.toml", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff")
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
IMPORT_ALL = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"


def tracked() -> set[str]:
    """Every file under version control. Skips the test where this is not a git checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode or not listed.stdout:
        pytest.skip("not a git checkout")
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}


def named_by_the_documentation() -> set[str]:
    """Files and folders of the repository that README and docs name, and the pictures of the benchmarks' pages.

    A link counts from its page's folder.
    """
    files = tracked()
    known = files | {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
    found = set()
    for page in ("README.md", *pages_of_docs(files)):
        for word in re.findall(r"[\w.-]+(?:/[\w.-]+)*/?", (ROOT / page).read_text()):
            if "/" not in word and "." not in word:
                continue
            path = word.rstrip("/.")
            found |= {path, str(PurePosixPath(page).parent / path)} & known
    for page in sorted(name for name in files if re.fullmatch(r"bench/\w+\.md", name)):
        pictures = re.findall(r"!\[[^]]*\]\(([\w./-]+)\)", (ROOT / page).read_text())
        found |= {str(PurePosixPath(page).parent / picture) for picture in pictures}
    return found


def pages_of_docs(files: set[str]) -> list[str]:
    return sorted(name for name in files if re.fullmatch(r"docs/[\w-]+\.md", name))


def in_a_folder_of(path: str, folders: tuple[str, ...]) -> bool:
    return PurePosixPath(path).parts[0] in folders


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel that was built from it, as by `make build`; no network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "uv", "build", "--offline", "--no-build-isolation", "--python", sys.executable]
    done = subprocess.run([*command, "--out-dir", str(folder), str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a folder of its own, without its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = dist.glob("*.whl")
    command = [sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--python", sys.executable]
    done = subprocess.run([*command, "--target", str(folder), str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_the_wheel_carries_what_the_documentation_names(installed: Path) -> None:
    named = {path for path in named_by_the_documentation() if not in_a_folder_of(path, FOR_DEVELOPERS)}
    assert {"ray_config.yaml", "cluster/kuberay", "examples/walkthrough.ipynb", "bench/trust.svg"} <= named
    missing = {path for path in named if not (installed / path).exists() and not (installed / SHARE / path).exists()}
    assert missing == set()


@pytest.mark.slow
def test_the_wheel_carries_every_file_of_the_packages_unchanged(installed: Path) -> None:
    own = {name for name in tracked() if in_a_folder_of(name, PACKAGES)}
    assert {name for name in own if not (installed / name).is_file()} == set()
    assert {name for name in own if (installed / name).read_bytes() != (ROOT / name).read_bytes()} == set()


@pytest.mark.slow
def test_the_wheel_says_under_which_licence_it_is(dist: Path) -> None:
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        info = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")).rpartition("/")[0]
        assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert wheel.read(f"{info}/licenses/NOTICE") == (ROOT / "NOTICE").read_bytes()
        assert b"License-Expression: Apache-2.0\n" in wheel.read(f"{info}/METADATA")


@pytest.mark.slow
def test_every_command_is_imported_from_the_installed_wheel(installed: Path, tmp_path: Path) -> None:
    where = "import jobs.cli, reward_service.app, recommend_service.app; print(jobs.cli.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", f"{IMPORT_ALL}; {where}", *map(module_of, VERBS)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert Path(done.stdout.strip()).is_relative_to(installed)


@pytest.mark.slow
def test_the_source_distribution_is_the_whole_repository(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        carried = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked() - carried == set()


def test_the_documentation_names_no_file_that_is_not_there() -> None:
    files = tracked()
    rooms = {PurePosixPath(name).parts[0] for name in files if "/" in name}
    for page in (*PAGES, *pages_of_docs(files)):
        text = (ROOT / page).read_text()
        in_prose, in_a_tree = r"`([\w.-]+/[\w./-]+)`", r"^    ([\w.-]+/[\w./-]*) {2,}"
        for word in re.findall(in_prose, text) + re.findall(in_a_tree, text, re.M):
            if in_a_folder_of(word, tuple(rooms)) and not re.search(r"-v\d$", word):  # an id of Gymnasium
                assert (ROOT / word).exists(), f"{page} names {word}"
        for link in re.findall(r"\]\(([\w./-]+)\)", text):
            assert (ROOT / page).parent.joinpath(link).exists(), f"{page} links to {link}"


def test_the_tree_of_the_readme_has_a_line_for_every_room() -> None:
    files = tracked()
    tree = set(re.findall(r"^    ([\w./-]+/) {2,}", (ROOT / "README.md").read_text(), re.M))
    rooms = {str(PurePosixPath(name).parent) + "/" for name in files if name.endswith(".py")}
    rooms = {room for room in rooms if not room.startswith("tests/")} | {"tests/"}
    assert rooms - tree == set()


def test_version_and_licence_are_the_same_wherever_they_are_written() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    releases = re.findall(r"^## \[?(\d+\.\d+\.\d+)\]?", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert citation["version"] == PROJECT["version"] == releases[0]
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert "Apache License\n                           Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()


def test_a_commit_is_linted_as_the_test_suite_is() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^test: lint$", makefile, re.M)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for repository in hooks for hook in repository["hooks"]] == ["make lint"]


def test_the_workflow_runs_what_the_readme_tells_a_person_to_run() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert "make test" in [step.get("run") for step in job["steps"]]
    assert job["timeout-minutes"] <= 60
    assert workflow["permissions"] == {"contents": "read"}
