"""A search space over the fields of DynaQConfig, in YAML that maps one to one to Ray Tune's search spaces.

gamma: [0.8, 0.9]                       a list: every value is tried
learning_rate: {loguniform: [1e-4, 1e-2]}
planning_updates: {randint: [1, 10]}    the upper bound is exclusive, as in Tune
q_hidden: {choice: [[64, 32], [128]]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.search.sample import Domain

from dynaq.agent.config import DynaQConfig
from dynaq.errors import InputError
from dynaq.settings import read_mapping

ARITY = {"uniform": 2, "loguniform": 2, "randint": 2, "lograndint": 2, "quniform": 3, "qloguniform": 3, "qrandint": 3}
INTEGERS = ("randint", "lograndint", "qrandint")
DISTRIBUTIONS = (*ARITY, "choice")
EXAMPLE = "such as `gamma: [0.8, 0.9]` or `learning_rate: {loguniform: [1e-4, 1e-2]}`"
SET_BY_OPTIONS = ("seed", "budget")  # fields that the comparison's options --seeds and --budget set


@dataclass(frozen=True)
class Space:
    """fields: setting -> a list of values, or {name of a distribution: its arguments}."""

    fields: Mapping[str, Any]

    @property
    def drawn(self) -> bool:
        """Whether a setting is drawn from a distribution, so that more samples try more."""
        return any(isinstance(values, dict) for values in self.fields.values())

    def grid(self) -> dict[str, Any]:
        """For Tune's own generator: every value of a list is tried, the rest is drawn."""
        return {
            name: tune.grid_search(values) if isinstance(values, list) else _domain(values)
            for name, values in self.fields.items()
        }

    def domains(self) -> dict[str, Domain]:
        """For a searcher, which draws everything: a list becomes a choice."""
        return {
            name: tune.choice(values) if isinstance(values, list) else _domain(values)
            for name, values in self.fields.items()
        }


def read_space(path: str | None, config: DynaQConfig) -> Space:
    """Read and check a space. Raises InputError naming the file and the setting that is wrong."""
    if path is None:
        return Space({})
    found = read_mapping("space file", path)
    if not found:
        raise InputError(f"space file {path} must map settings to values to try, {EXAMPLE}")
    fields = {str(name): _checked(path, str(name), values) for name, values in found.items()}
    for name, values in fields.items():
        if name in SET_BY_OPTIONS:
            raise InputError(f"space file {path}: {name} cannot be searched; use --seeds and --budget")
        for value in _extremes(values):
            try:
                DynaQConfig.load(None, config.model_dump() | {name: value})
            except InputError as error:
                raise InputError(f"space file {path}: {error}") from None
    return Space(fields)


def _checked(path: str, name: str, values: Any) -> Any:
    """The values with numbers as numbers (YAML reads 1e-4 as text)."""
    if isinstance(values, list) and values:
        return [_number(value) for value in values]
    if not (isinstance(values, dict) and len(values) == 1 and next(iter(values)) in DISTRIBUTIONS):
        raise InputError(
            f"space file {path}: {name} needs a list of values or one of {', '.join(DISTRIBUTIONS)}, {EXAMPLE}; "
            f"got {values!r}"
        )
    [(kind, arguments)] = values.items()
    if not isinstance(arguments, list) or not arguments:
        raise InputError(f"space file {path}: {name}: {kind} needs a list, {EXAMPLE}; got {arguments!r}")
    arguments = [_number(value) for value in arguments]
    if kind != "choice":
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in arguments)
        whole = kind not in INTEGERS or all(isinstance(value, int) for value in arguments)
        if len(arguments) != ARITY[kind] or not numbers or not whole or arguments[0] >= arguments[1]:
            what = "whole numbers" if kind in INTEGERS else "numbers"
            raise InputError(
                f"space file {path}: {name}: {kind} needs {ARITY[kind]} {what}, the lower bound first; got {arguments}"
            )
        if "log" in kind and arguments[0] <= 0:
            raise InputError(f"space file {path}: {name}: {kind} needs bounds above 0; got {arguments}")
    return {kind: arguments}


def _number(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _extremes(values: Any) -> list[Any]:
    """Values that the config has to accept: every listed one, and the bounds of a range."""
    if isinstance(values, list):
        return values
    [(kind, arguments)] = values.items()
    if kind == "choice":
        return list(arguments)
    upper = arguments[1] - 1 if kind in INTEGERS and kind != "qrandint" else arguments[1]
    return [arguments[0], upper]


def _domain(values: Mapping[str, Any]) -> Domain:
    [(kind, arguments)] = values.items()
    drawn: Domain = tune.choice(arguments) if kind == "choice" else getattr(tune, kind)(*arguments)
    return drawn
