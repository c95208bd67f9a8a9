"""The OpenAPI document as an HTML page that needs neither scripts nor network."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape

PAGE = Path(__file__).parent / "page"  # static files and templates


@cache
def _environment() -> Environment:
    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=select_autoescape(default=True))
    environment.filters["pretty"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    environment.filters["type"] = _type
    return environment


def docs_page(document: dict[str, Any]) -> str:
    """The HTML page of an OpenAPI document."""
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = document.get("components", {}).get("schemas", {})
    return (
        _environment()
        .get_template("docs.html.j2")
        .render(info=document["info"], operations=operations, schemas=schemas)
    )


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(_type(part) for part in schema[union])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    text = str(schema.get("format") or schema.get("type", "anything"))
    bounds = [f"{name} {schema[name]}" for name in ("minimum", "maximum", "maxLength") if name in schema]
    return ", ".join([text, *bounds])
