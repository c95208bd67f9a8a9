"""The `dynaq` command: finds the verb, runs it, and turns errors into one line and an exit code.

A verb is a module of this package with a `main` whose signature is its options; it is imported only when its options
are right, since Ray and torch take seconds to import. `python -m jobs.train` is the same as `dynaq train`.
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException
from typer.main import get_command

from dynaq.errors import DynaqError, InputError
from jobs.terminal.console import speaking_to_people
from jobs.terminal.signatures import module_of, signature_of

VERBS = {
    "demo": "Real occupations, a real LLM judge, three strategies compared; nothing to prepare.",
    "ingest": "Read jobs and candidates from files into a store and embed them.",
    "pretrain": "Fit the networks that agents start from on other applicants' judgements.",
    "train": "Train one agent per applicant and write a run folder.",
    "tune": "Compare strategies and settings as Ray Tune trials.",
    "evaluate": "Ranking quality and judge reward of a run.",
    "audit": "Differences by protected attributes, in a judge's answers and a run's lists.",
    "recommend": "The best jobs of a run for one applicant.",
    "judge": "Ask the judge about pairs, measure it, calibrate it, move its ledger.",
    "serve": "Serve the judge, or recommendations and their page, over HTTP.",
    "promote": "Let a run serve, if it is complete and the log does not show it to be worse.",
    "simulate": "Let a judge play the applicants against a running API.",
    "forget": "Erase all that is held about one applicant.",
    "export-person": "Everything that is held about one applicant, as JSON.",
    "report": "Write the report page of a run.",
    "submit": "Run a command on a Ray cluster: submit [--address URL] -- COMMAND …",
    "config": "Every setting of a --config file: its default and its meaning.",
    "doctor": "Check Ray, GPU, store, model, disk and versions.",
}
MANY_VALUES = {
    "ingest": ("--jobs", "--candidates", "--map"),
    "forget": ("--runs",),
    "export-person": ("--runs",),
}  # options that take several values in a row

_RESUMES = (
    "the finished rounds are in {out} and the judge's answers in the store's ledger; the same command with --resume "
    "continues, and pays for no answer again"
)
# What is still there after Ctrl-C, by verb; `{name}` stands for an option's value.
KEPT_BY_VERB = {
    "demo": "the judge's answers so far are in the ledger of {store}; the next demo does not ask for them again",
    "ingest": "what was read and embedded so far is in {store}; the same command goes on with the rest",
    "pretrain": "no networks were written; the ledger that they learn from is as it was",
    "train": _RESUMES,
    "tune": _RESUMES,
    "judge": "what --applicant asked is in the store's ledger as far as it was answered; no file was written",
    "audit": "the judge's answers so far are in {out}; the same command does not ask for them again",
    "serve": "feedback that was acknowledged is in the store",
    "promote": "the run that served before still serves, unless this command has named another",
    "simulate": "what the applicants sent so far is in the service's store",
    "submit": "what was sent to the cluster goes on there, unless the line above says that it is being stopped",
    "forget": "what was erased so far stays erased; the same command finishes the rest",
    "report": "{run} is as it was; the report is written anew by the same command",
}
NOTHING_LOST = "this command only reads, so nothing is lost"


class Interrupted(Exception):
    """Ctrl-C or SIGTERM while a verb worked; its text says what is kept."""


class Verbs(TyperGroup):
    """The verbs as commands. Listing them needs their names only; the one that is called reads its options."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {verb: TyperCommand(verb, short_help=text) for verb, text in VERBS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of a verb and its own arguments. An unknown verb is an error that names the nearest."""
        verb, command, rest = super().resolve_command(ctx, args)
        if verb is None or command is None:
            return verb, command, rest
        for option in MANY_VALUES.get(verb, ()):
            rest = _repeat(rest, option)
        return verb, _command(verb), rest


app = typer.Typer(cls=Verbs, name="dynaq", rich_markup_mode=None)


def _show_version(wanted: bool) -> None:
    if wanted:
        from dynaq import __version__  # read from the installed package's metadata, which a source tree may lack

        print(f"dynaq {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,  # see `run`
) -> None:
    """Learn which jobs each applicant would apply to, from few judgements of an LLM."""


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
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        with speaking_to_people(machine_reads_stdout="--json" in ours):
            return app(arguments or ["--help"], standalone_mode=False, prog_name="dynaq") or 2 * (not arguments)
    except Interrupted as error:
        return _complain(f"interrupted: {error}", 130)
    except KeyboardInterrupt:
        return _complain("interrupted before anything was done", 130)
    except TyperException as error:
        return _complain(_wrong_usage(error), error.exit_code)
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


def _command(verb: str) -> TyperCommand:
    """The command of a verb, which imports the verb's module when it is called."""
    signature = signature_of(verb)

    @functools.wraps(signature)
    def work(**given: Any) -> Any:
        try:
            return importlib.import_module(module_of(verb)).main(**given)
        except KeyboardInterrupt as error:
            raise Interrupted(_kept(verb, given)) from error

    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(verb)(work)
    command = get_command(alone)
    assert isinstance(command, TyperCommand)
    return command


def _kept(verb: str, given: dict[str, Any]) -> str:
    from dynaq.stores import mask_uri  # here, since it takes a second

    shown = {name: mask_uri(value) if isinstance(value, str) else value for name, value in given.items()}
    return KEPT_BY_VERB.get(verb, NOTHING_LOST).format(**shown)


def _wrong_usage(error: TyperException) -> str:
    """The error of the option parser, with its suggestions as a question."""
    nearest = getattr(error, "possibilities", None)
    message = (
        f"{error.message}; did you mean {nearest[0]}?"
        if nearest
        else error.format_message().rstrip(".").replace("Value error, ", "")
    )
    return f"{message} (see --help)"


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
