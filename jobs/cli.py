"""The `dynaq` command: finds the verb, runs it, and turns errors into one line and an exit code.

A verb is a module of this package with a `main` whose signature is its options; it is imported only when it is asked
for, since Ray and torch take seconds to import. `python -m jobs.train` is the same as `dynaq train`.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from dynaq.errors import DynaqError, InputError
from jobs.terminal.console import speaking_to_people

VERBS = {
    "demo": "Real occupations, a real LLM judge, three strategies compared; nothing to prepare.",
    "ingest": "Read jobs and candidates from files into a store and embed them.",
    "pretrain": "Fit the networks that agents start from on other applicants' judgements.",
    "train": "Train one agent per applicant and write a run folder.",
    "tune": "Compare strategies and settings as Ray Tune trials.",
    "evaluate": "Ranking quality and judge reward of a run.",
    "recommend": "The best jobs of a run for one applicant.",
    "judge": "Ask the judge about pairs, measure it, calibrate it, move its ledger.",
    "serve": "Serve the judge, or recommendations and their page, over HTTP.",
    "promote": "Let a run serve, if it is complete and the log does not show it to be worse.",
    "simulate": "Let a judge play the applicants against a running API.",
    "forget": "Erase all that is held about one applicant.",
    "export-person": "Everything that is held about one applicant, as JSON.",
    "report": "Write the report page of a run.",
    "submit": "Run a command on a Ray cluster: submit [--address URL] -- COMMAND …",
    "doctor": "Check Ray, GPU, store, model, disk and versions.",
}
MANY_VALUES = {
    "ingest": ("--jobs", "--candidates", "--map"),
    "forget": ("--runs",),
    "export-person": ("--runs",),
}  # options that take several values in a row

USAGE = "Usage: dynaq [--debug] COMMAND [OPTIONS]"


def module_of(verb: str) -> str:
    """The module of a verb."""
    return f"jobs.{verb.replace('-', '_')}"


def main() -> NoReturn:
    """Entry point of the `dynaq` console script."""
    sys.exit(run(sys.argv[1:]))


def run_verb(verb: str) -> NoReturn:
    """Entry point of `python -m jobs.<verb>`."""
    sys.exit(run([verb, *sys.argv[1:]]))


def run(arguments: list[str]) -> int:
    """Run one command line. Returns 0, 1 for a failure, 2 for wrong usage or bad input, 130 when interrupted."""
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in ours
    if debug:
        arguments = [*arguments]
        arguments.remove("--debug")
    try:
        with speaking_to_people(machine_reads_stdout="--json" in ours):
            return _dispatch(arguments)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except TyperException as error:
        return _complain(f"{error.format_message()} (see --help)", error.exit_code)
    except InputError as error:
        if debug:
            raise
        return _complain(str(error), 2)
    except DynaqError as error:
        if debug:
            raise
        return _complain(str(error), 1)
    except Exception as error:
        if debug:
            raise
        reason = (str(error).strip().splitlines() or [""])[0]
        return _complain(f"unexpected {type(error).__name__}: {reason} (add --debug for the traceback)", 1)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h"):
        width = max(map(len, VERBS)) + 2
        commands = "\n".join(f"  {verb:{width}}{text}" for verb, text in VERBS.items())
        print(f"{USAGE}\n\nCommands:\n{commands}\n\n--debug shows the traceback of an error; --version the version.")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from dynaq import __version__  # read from the installed package's metadata, which a source tree may lack

        print(f"dynaq {__version__}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        raise InputError(f"there is no command {verb!r}; the commands are {', '.join(VERBS)}")
    warnings.filterwarnings("ignore", category=FutureWarning)
    module = importlib.import_module(module_of(verb))
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(verb)(module.main)
    for option in MANY_VALUES.get(verb, ()):
        rest = _repeat(rest, option)
    return app(rest, standalone_mode=False, prog_name=f"dynaq {verb}") or 0


def _repeat(arguments: list[str], option: str) -> list[str]:
    """`--jobs a b` as `--jobs a --jobs b`, the form that the option parser knows."""
    spread: list[str] = []
    inside = False
    for argument in arguments:
        if argument.startswith("-"):
            inside = argument == option
        elif inside and spread[-1] != option:
            spread.append(option)
        spread.append(argument)
    return spread


def _complain(message: str, code: int) -> int:
    print(f"dynaq: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
