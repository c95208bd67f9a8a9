"""dynaq tune: strategies, and settings if a space is given, compared as Ray Tune trials."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from cluster.runfolder import REPORT, RunFolder
from cluster.session import ray_session
from cluster.trainer import ActorSize
from cluster.tuning import Trial
from dynaq.config import DynaQConfig
from dynaq.errors import InputError
from dynaq.pretrain import Pretrained
from jobs.cli import run_verb
from jobs.comparison import compare, show_comparison
from jobs.console import say
from jobs.judges import judge_backend
from jobs.report import write_report
from jobs.training import check_strategies, prepare, report_failures


def main(
    store: Annotated[str, typer.Option(help="folder or mongodb:// URI")],
    out: Annotated[str, typer.Option(help="run folder: a path, s3:// or gs:// URI")],
    cohort: Annotated[str, typer.Option(help="all, a file with ids, or id,id")] = "all",
    strategies: Annotated[str, typer.Option(help="separated by commas")] = "cosine,llm,hybrid",
    judge: Annotated[str, typer.Option(help="vllm, vllm:CONFIG.yaml or ledger:PATH")] = "vllm",
    budget: Annotated[int | None, typer.Option(min=1, help="judgements per applicant")] = None,
    qrels: Annotated[str | None, typer.Option(help="relevance file; default: the store's")] = None,
    space: Annotated[str | None, typer.Option(help="YAML: setting -> list of values to try")] = None,
    layout: Annotated[str | None, typer.Option(help="classic or extended; default: the store's")] = None,
    config: Annotated[str | None, typer.Option(help="YAML with the agents' settings")] = None,
    seed: Annotated[int | None, typer.Option(help="of all agents")] = None,
    pretrained: Annotated[str | None, typer.Option(help="folder that dynaq pretrain wrote")] = None,
    actors: Annotated[int | None, typer.Option(min=1, help="per trial; default: as many as fit")] = None,
    address: Annotated[
        str | None, typer.Option(help="running Ray cluster; default: RAY_ADDRESS, else a local one")
    ] = None,
) -> None:
    """Compare strategies on one cohort."""
    settings = DynaQConfig.load(config, {"budget": budget, "seed": seed})
    names = list(dict.fromkeys(part.strip() for part in strategies.split(",") if part.strip()))
    if not names:
        raise InputError(f"--strategies {strategies!r} names none; use cosine,llm,hybrid")
    check_strategies(names, settings)
    trials = make_trials(names, read_space(space, settings))
    prepared = prepare(store, cohort, layout, qrels)
    backend = judge_backend(judge)
    folder = RunFolder.at(out)
    with ray_session(address):
        result = compare(
            trials,
            prepared,
            settings,
            folder,
            judge,
            backend,
            pretrained=Pretrained.load(pretrained) if pretrained else None,
            size=ActorSize(actors=actors, reserved_cpus=backend.cpus, trials=len(trials)),
        )
    show_comparison(result)
    write_report(folder, prepared.store_uri, qrels)
    say(f"Best by judge reward: {result.best}. Report: {folder.uri}/{REPORT}")
    report_failures(result.failures)


def read_space(path: str | None, config: DynaQConfig) -> dict[str, list[Any]]:
    """Setting -> values. Raises InputError on an unknown setting or one without a list of valid values."""
    if path is None:
        return {}
    try:
        space = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"space file {path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(space, dict) or not all(isinstance(values, list) and values for values in space.values()):
        raise InputError(f"space file {path} must map settings to lists of values, such as `gamma: [0.8, 0.9]`")
    for name, values in space.items():
        for value in values:
            DynaQConfig.load(None, config.model_dump() | {name: value})
    return space


def make_trials(strategies: list[str], space: dict[str, list[Any]]) -> list[Trial]:
    """Every strategy with every combination of the space's values."""
    trials = []
    for strategy, values in itertools.product(strategies, itertools.product(*space.values())):
        overrides = dict(zip(space, values, strict=True))
        suffix = "".join(f"-{name}={value}" for name, value in overrides.items())
        trials.append(
            Trial("".join(c if c.isalnum() or c in "-_=." else "_" for c in strategy + suffix), strategy, overrides)
        )
    return trials


if __name__ == "__main__":
    run_verb("tune")
