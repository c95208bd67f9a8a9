"""The documentation: the site builds without a warning and loads nothing; its commands and files are what we take."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from fastapi.testclient import TestClient

from cluster.tuning.space import read_space
from dynaq.agent.config import DynaQConfig
from dynaq.stores import open_store
from jobs.cli import VERBS, run
from jobs.terminal.signatures import module_of
from recommend_service.api import make_app
from recommend_service.config import RecommendConfig
from recommend_service.promotions import ServingFolder
from recommend_service.service import Recommender
from reward_service.config import JudgeConfig

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "bench/*.md")
    for path in ROOT.glob(pattern)
)
# Programs that are not ours; what follows their names is not checked.
OTHERS = {"cd", "curl", "docker", "export", "grafana", "hf", "kubectl", "pip", "prometheus", "ray", "serve"}
OTHERS |= {"tensorboard", "uv"}
OURS = {"dynaq", "make", "python"}
SHELL = ("bash", "sh", "console")


@dataclass(frozen=True)
class Block:
    """A fenced or indented block of a page: its language and title, if it names them, and its text."""

    language: str
    title: str
    text: str


def blocks(text: str) -> Iterator[Block]:
    """The code blocks of a page in Markdown."""
    fenced = re.compile(r"^```(\w*)(?: title=\"([^\"]*)\")?\n(.*?)^```$", re.M | re.S)
    for language, title, body in fenced.findall(text):
        yield Block(language, title, body)
    for body in re.findall(r"(?:\A|\n)\n((?: {4}.*\n)+)", fenced.sub("", text)):
        yield Block("", "", re.sub(r"^ {4}", "", body, flags=re.M))


def commands(block: Block) -> Iterator[str]:
    """The command lines of a block; without a language, those that begin with one of our programs."""
    for line in re.sub(r"\s*\\\n\s*", " ", block.text).splitlines():
        line = re.sub(r"^(?:[A-Z_]+=\S+ +)+", "", line).removeprefix(".venv/bin/")
        ours = block.language in SHELL or (not block.language and line.split(" ", 1)[0] in OURS)
        if ours and words(line):
            yield line


def words(command: str) -> list[str]:
    """A command as the shell splits it: a comment begins a word, so that `https://host/v1#MODEL` has none."""
    return shlex.split(re.sub(r"(^|\s)#.*", "", command))


def mentioned(text: str) -> Iterator[str]:
    """Commands of ours in running text, which may lack options that are needed."""
    for span in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)):
        command = " ".join(span.split()).removeprefix(".venv/bin/")
        if command.split(" ", 1)[0] in OURS and " " in command:
            yield command


def complaint(command: str, monkeypatch: pytest.MonkeyPatch, *, whole: bool = True) -> str:
    """What is wrong with a command, or nothing. It is parsed, and not run. whole: it has all options that it needs."""
    program, *arguments = words(command)
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets = [word for word in arguments if "=" not in word]
        variables = [word.partition("=")[0] for word in arguments if "=" in word]
        known = all(re.search(rf"^{re.escape(target)}:", makefile, re.M) for target in targets)
        return "" if known and all(f"$({name})" in makefile for name in variables) else "not in the Makefile"
    if program == "python":
        return module_complaint(arguments)
    if program == "docker" and "dynaq" in arguments:  # in a container
        program, arguments = "dynaq", arguments[arguments.index("dynaq") + 1 :]
    if program == "dynaq":
        return dynaq_complaint(arguments, monkeypatch, whole=whole and "…" not in arguments)
    return "" if program in OTHERS else f"what is {program}?"


def dynaq_complaint(arguments: list[str], monkeypatch: pytest.MonkeyPatch, *, whole: bool) -> str:
    """What is wrong with the verb and options of `dynaq`."""
    if not arguments or arguments[0].startswith("-"):
        return ""
    verb, *rest = arguments
    if verb not in VERBS:
        return f"no command {verb}"
    if "--" in rest:  # dynaq submit -- train …
        sent = rest[rest.index("--") + 1 :]
        said = dynaq_complaint(sent, monkeypatch, whole=whole)
        rest, whole = rest[: rest.index("--")], False
        if said:
            return said
    module = importlib.import_module(module_of(verb))
    if not whole:
        unknown = {word for word in rest if re.match(r"--?[a-z]", word)} - options(verb)
        return f"no option {', '.join(unknown)}" if unknown else ""

    def parsed(**_: Any) -> None: ...

    errors = io.StringIO()
    with monkeypatch.context() as patch, contextlib.redirect_stderr(errors):
        patch.setattr(module, "main", functools.wraps(module.main)(parsed))
        code = run(arguments)
    return "" if code == 0 else errors.getvalue()


@functools.cache
def options(verb: str) -> set[str]:
    """The options of a verb."""
    app = typer.Typer(add_completion=False)
    app.command(verb)(importlib.import_module(module_of(verb)).main)
    parameters = typer.main.get_command(app).params
    return {name for one in parameters for name in (*one.opts, *one.secondary_opts)} | {"--help", "--debug"}


def module_complaint(arguments: list[str]) -> str:
    """What is wrong with the module, options and words of `python -m MODULE …`."""
    if arguments[:1] != ["-m"]:
        return ""
    module, *rest = arguments[1:]
    if module == "pytest":
        paths = [word for word in rest if "/" in word]
        return "" if all((ROOT / path).exists() for path in paths) else "no such tests"
    file = ROOT / f"{module.replace('.', '/')}.py"
    if not file.exists():
        top = module.partition(".")[0]
        return f"no module {module}" if (ROOT / top).exists() or not importlib.util.find_spec(top) else ""
    if module.startswith("jobs."):
        return ""
    source = file.read_text()
    unknown = [word for word in rest if re.match(r"--[a-z]", word) and f'"{word}"' not in source]
    return f"no option {unknown[0]}" if unknown else ""


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_ours(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / page).read_text()
    shown = {command: complaint(command, monkeypatch) for block in blocks(text) for command in commands(block)}
    named = {command: complaint(command, monkeypatch, whole=False) for command in mentioned(text)}
    assert {command: wrong for command, wrong in (shown | named).items() if wrong} == {}


@pytest.mark.parametrize(
    "command",
    [
        "dynaq trian --store data/mine",
        "dynaq train --store data/mine",  # --out is missing
        "dynaq train --store data/mine --out runs/mine --budgte 5",
        "dynaq judge --store data/mine --pairs many",
        "dynaq submit -- train --stroe data/mine …",
        "make bench-qualty",
        "make bench-quality ONTE=FOLDER",
        "python -m bench.qualty",
        "python -m bench.quality --ontology FOLDER",
        "dynac train",
    ],
)
def test_a_command_that_is_not_ours_is_found(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complaint(command, monkeypatch)


def test_commands_are_found_wherever_a_page_has_them() -> None:
    text = "a\n\n    dynaq train \\\n      --x 1\n    not ours\n\n```sh\nls # all\n# no\n```\n\n`dynaq\nserve` `x`\n"
    assert [command for block in blocks(text) for command in commands(block)] == ["ls # all", "dynaq train --x 1"]
    assert list(mentioned(text)) == ["dynaq serve"]


def test_the_configurations_that_pages_show_are_valid(tmp_path: Path) -> None:
    readers = {
        "judge.yaml": JudgeConfig.load,
        "remembers.yaml": JudgeConfig.load,
        "endpoint.yaml": JudgeConfig.load,
        "agents.yaml": DynaQConfig.load,
        "space.yaml": lambda path: read_space(str(path), DynaQConfig()),
    }
    seen = set()
    for page in PAGES:
        for block in blocks((ROOT / page).read_text()):
            title = block.title or next(iter(re.findall(r"\A# (\w+\.yaml)\b", block.text)), "")
            if title.endswith(".yaml"):
                (tmp_path / title).write_text(block.text)
                assert readers[title](tmp_path / title)
                seen.add(title)
    assert seen == set(readers)


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_names_the_command_that_makes_it(page: str) -> None:
    text = (ROOT / page).read_text()
    for figure in re.finditer(r"!\[[^\]]*\]\((?P<file>[^)]+)\)", text):
        below = text[figure.end() : figure.end() + 400]
        made = re.search(r"`(make|dynaq|tensorboard|\.venv/bin/python|python) [^`]*`|Drawn by hand", below)
        assert made, f"{page}: say below {figure['file']} which command makes it"


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session_fixture")
def test_the_tasks_of_the_howto_are_done_by_its_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them but those that need a model that is not there, a GPU or a second terminal."""
    monkeypatch.chdir(tmp_path)
    page = list(blocks((ROOT / "docs" / "howto.md").read_text()))
    for block in page:
        if block.title:
            Path(block.title).write_text(block.text)
    elsewhere = re.compile(r"--strategy hybrid|--judge |dynaq (serve|doctor)|^(hf|curl) ")
    done = [command for block in page for command in commands(block) if not elsewhere.search(command)]
    for command in done:
        assert run(words(command)[1:]) == 0, command
    assert len(done) == 10
    assert "Data engineer" in capsys.readouterr().out
    assert (tmp_path / "runs/first/report.html").exists()
    assert "Truck driver" in (tmp_path / "joe.json").read_text()
    with open_store("data/mine", read_only=True) as store:
        assert store.ids("candidate") == ["ann"]
    current = ServingFolder("data/serving").current()
    assert current is not None
    assert current.run.endswith("/runs/first")
    asked = [
        words(command)
        for name in ("howto", "serving")
        for block in blocks((ROOT / "docs" / f"{name}.md").read_text())
        for command in commands(block)
        if command.startswith("curl ")
    ]
    service = make_app(Recommender(RecommendConfig(store="data/mine", run="runs/first")))
    with TestClient(service, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 5000)) as client:
        for call in asked:
            (url,) = (word for word in call if word.startswith("http://"))
            body = json.loads(call[call.index("-d") + 1]) if "-d" in call else None
            answer = client.post(url, json=body) if body else client.get(url)
            assert answer.status_code in (200, 201), (call, answer.text)
            if "explain=true" in url:
                first = answer.json()["recommendations"][0]["explanation"]
                assert set(first) == set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/howto.md").read_text(), re.M))
    assert len(asked) == 3


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. `--strict` makes every warning an error: links, anchors, pages outside the navigation."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert {"index.html", "rl-formulation.html", "CONTRIBUTING.html", "bench/trust.html", "api/agent.html"} <= {
        page.relative_to(site).as_posix() for page in pages
    }
    for page in pages:
        html = page.read_text()
        assert not re.findall(r"<(?:script|img|iframe|source)[^>]+src=\"(?:https?:)?//[^\"]*", html), page
        assert not re.findall(r"<link[^>]+href=\"(?:https?:)?//[^\"]*", html), page
        assert 'class="mermaid"' not in html, f"{page}: the theme would load mermaid from a server"
    assert not [css for css in site.rglob("*.css") if re.search(r"(?:@import|url\()\s*[\"']?https?:", css.read_text())]


@pytest.mark.slow
def test_the_reference_has_the_docstrings(site: Path) -> None:
    assert "Agents of <code>applicant_ids</code> over the catalogue" in (site / "api" / "agent.html").read_text()
