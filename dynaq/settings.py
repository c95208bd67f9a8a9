"""Settings from a YAML file and flags, validated by a pydantic model. Every configuration is read through here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dynaq.errors import InputError, did_you_mean

Settings = TypeVar("Settings", bound=BaseModel)


def load_settings(
    model: type[Settings],
    what: str,
    path: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
) -> Settings:
    """Merge the defaults, a preset, the YAML file and the overrides that are not None; later ones win.

    Args:
        model: declares and validates the fields.
        what: name of the configuration in error messages.
        path: YAML file of `name: value` lines, or None.
        overrides: name -> value, as given by flags.
        presets: name -> values; the field `preset` picks one, by default `default`.

    Raises InputError naming the file and each invalid field. Values of fields with `repr=False` (keys) are not shown.
    """
    values = {} if path is None else read_mapping(what, path)
    values |= {name: value for name, value in (overrides or {}).items() if value is not None}
    if presets is not None:
        preset = values.pop("preset", "default")
        if str(preset) not in presets:
            raise InputError(f"preset {preset!r} does not exist; use one of {', '.join(presets)}")
        values = {**presets[str(preset)], **values}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{what}: {'; '.join(_problem(model, e, presets) for e in error.errors())}") from None


def read_mapping(what: str, path: str | Path) -> dict[str, Any]:
    """The `name: value` lines of a YAML file. Raises InputError naming `what` and the file; an empty file is empty."""
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{what} {str(path)!r} cannot be read: {' '.join(str(error).split())}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(
            f"{what} {str(path)!r} must be a mapping: expected `name: value` lines, found {type(found).__name__}"
        )
    return found


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Setting -> its meaning in words: the field's description, else what the class's docstring says in `Args:`."""
    _, _, text = inspect.cleandoc(model.__doc__ or "").partition("\nArgs:\n")
    entries = re.findall(r"^ {4}([a-z_, ]+): ((?:.|\n {5,})+)", text, re.MULTILINE)
    documented = {name: " ".join(meaning.split()) for names, meaning in entries for name in names.split(", ")}
    return {name: field.description or documented.get(name, "") for name, field in model.model_fields.items()}


def _model_at(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The model of a nested setting; None when that is none."""
    for name in path:
        field = model.model_fields.get(str(name))
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        nested = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not nested:
            return None
        model = nested[0]
    return model


def _problem(model: type[BaseModel], error: ErrorDetails, presets: Mapping[str, Any] | None) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return message  # a check across several fields, whose message names them
    name = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"needs {name}; name it with --{name} or in the file" if len(error["loc"]) == 1 else f"needs {name}"
    if error["type"] == "extra_forbidden" and (parent := _model_at(model, error["loc"][:-1])) is not None:
        known = [*parent.model_fields, *(["preset"] if presets and parent is model else [])]
        return f"{name}: there is no such setting{did_you_mean(str(error['loc'][-1]), known)}"
    field = model.model_fields.get(str(error["loc"][0]))
    shown = field is not None and field.repr
    return f"{name}: {message} (got {error['input']!r})" if shown else f"{name}: {message}"
