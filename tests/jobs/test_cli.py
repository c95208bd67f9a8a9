"""The command line before a verb works: help, completion, mistyped words, and what Ctrl-C says."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest

from jobs import cli
from jobs.cli import KEPT_BY_VERB, VERBS, run
from jobs.terminal.signatures import module_of, signature_of

HEAVY = ("ray", "torch", "pyarrow", "vllm")


@pytest.mark.parametrize("verb", VERBS)
def test_the_options_of_a_verb_are_known_without_importing_it(verb: str) -> None:
    real = import_module(module_of(verb)).main
    assert inspect.signature(signature_of(verb)) == inspect.signature(real)
    assert signature_of(verb).__doc__ == real.__doc__


def test_wrong_usage_and_help_wait_for_no_heavy_import() -> None:
    code = (
        "import sys; from jobs.cli import VERBS, run; codes = {run([verb, '--wings']) for verb in VERBS};"
        "codes |= {run(['train', '--help']), run(['trian']), run(['train', '--budget', '0'])};"
        f"print('LOADED', sorted(codes), [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "LOADED [0, 2] []"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian", "Did you mean 'train'"),
        ("train --budgte 3", "did you mean --budget?"),
        ("train --strategy llmm --store a --out b", "'llmm' is not one of 'cosine', 'llm', 'hybrid'"),
        ("fly", "No such command 'fly' (see --help)"),
    ],
)
def test_a_mistyped_word_gets_the_nearest_right_one(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words.split()) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("dynaq rec", {"recommend"}),
        ("dynaq train --actor", {"--actors", "--actor-cpus", "--actor-gpus"}),
        ("dynaq train --strategy ", {"cosine", "llm", "hybrid"}),
    ],
)
def test_the_shell_completes_verbs_options_and_values(words: str, offered: set[str]) -> None:
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_DYNAQ_COMPLETE": "complete_bash"}
    code = "from jobs.cli import run; run([])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=True, timeout=300
    )
    assert set(done.stdout.split()) == offered


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("train --store mongodb://u:secret@h/db --out runs/mine", "finished rounds are in runs/mine"),
        ("ingest --store mongodb://u:secret@h/db", "mongodb://***@h/db; the same command goes on"),
        ("evaluate --run runs/mine", "only reads"),
    ],
)
def test_ctrl_c_says_what_is_kept(
    words: str, kept: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: SimpleNamespace(main=interrupted))
    assert run(words.split()) == 130
    said = capsys.readouterr().err
    assert said.startswith("dynaq: interrupted: ")
    assert kept in said
    assert "secret" not in said


def test_what_is_kept_is_said_with_the_names_of_options() -> None:
    for verb, text in KEPT_BY_VERB.items():
        given = dict.fromkeys(inspect.signature(signature_of(verb)).parameters, "VALUE")
        assert "{" not in text.format(**given)
