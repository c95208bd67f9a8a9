"""dynaq config: every setting of the configuration files, its default and its meaning, as a file that can be used."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dynaq.agent.config import PRESETS, DynaQConfig
from dynaq.settings import meanings
from jobs.cli import run_verb
from jobs.terminal.console import console
from recommend_service.config import RecommendConfig
from reward_service.config import JudgeConfig

WIDTH = 100  # characters of a line of text
LONG = 10**6  # a value is never broken


Kind = Literal["agents", "judge", "recommender"]


@dataclass(frozen=True)
class Described:
    """A kind of configuration file.

    Args:
        model: its settings.
        used: where the file is named.
        presets: of the setting `preset`.
    """

    model: type[BaseModel]
    used: str
    presets: Mapping[str, Any] = field(default_factory=dict)


FILES: Mapping[Kind, Described] = {
    "agents": Described(DynaQConfig, "dynaq train, dynaq tune: --config FILE", PRESETS),
    "judge": Described(JudgeConfig, "--judge vllm:FILE; dynaq serve --reward: --config FILE"),
    "recommender": Described(RecommendConfig, "dynaq serve --recommend: --config FILE"),
}


def main(
    show: Annotated[
        bool, typer.Option("--show", help="print the settings, which is all that this command does")
    ] = True,
    of: Annotated[Kind | None, typer.Option(help="the settings of one kind of file only; default: all")] = None,
) -> None:
    """Print every setting with its default and its meaning. `--of agents` alone is a file that --config takes."""
    for kind in [of] if of else FILES:
        for line in _lines(kind, FILES[kind]):
            console.print(line, style="dim" if line.startswith("#") else "", markup=False, soft_wrap=True)


def _lines(kind: Kind, file: Described) -> Iterator[str]:
    yield f"# {kind} ({file.used})"
    yield ""
    if file.presets:
        yield f"# where to start from, before the settings that a file names; one of {', '.join(file.presets)}"
        yield "# preset: default"
        yield ""
    explained = meanings(file.model)
    for name, setting in file.model.model_fields.items():
        text = explained[name].removesuffix(".").replace("None", "null") + _choices(setting)  # as YAML spells it
        yield from textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False)
        if setting.is_required():
            yield f"# {name}: (must be given)"
        else:
            default = setting.get_default(call_default_factory=True, validated_data={})
            value = list(default) if isinstance(default, tuple) else default
            shown = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=LONG).removesuffix("...\n")
            yield f"{name}: {shown.rstrip()}"
        yield ""


def _choices(setting: FieldInfo) -> str:
    """`; one of trust, bayes, mlp` where a setting has few values."""
    kinds = [setting.annotation, *(get_args(setting.annotation) if isinstance(setting.annotation, UnionType) else ())]
    values = [str(value) for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
    return f"; one of {', '.join(values)}" if values else ""


if __name__ == "__main__":
    run_verb("config")
