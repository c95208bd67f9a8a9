"""The OpenAPI document as an HTML page that needs neither scripts nor network."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup, escape

PAGE = Path(__file__).parent / "page"  # static files and templates
# Example values, by the name of a parameter or field; they are those of docs/start.md.
EXAMPLES: Mapping[str, Any] = {
    "applicant_id": "ann",
    "job_id": "j1",
    "event": "apply",
    "action": "block",
    "operator": "jd",
    "reason": "closed",
    "minutes": 60,
    "k": 5,
    "preference": "remote work with Python",
    "explain": True,
    "search": "software",
    "limit": 10,
    "bio": "I build web services.",
    "hard_skills": ["Python", "SQL"],
    "left": "similarity",
    "right": "similarity",
    "name": "cv.txt",
}
GROUPS = (  # heading, and the paths below it, the first that fits
    ("Oversight and runs", r"decisions|/runs|comparison"),
    ("Keys and rights", r"tokens|export|/me$|^DELETE"),
    ("What is known and was said", r"profile|documents|/applicants/\{.*\}/(feedback|exposures|changes|learning)"),
    ("Lists and feedback", r"recommendations|feedback|filters|/jobs"),
    ("Applicants", r"/applicants"),
    ("Operation", r""),
)


@cache
def _environment() -> Environment:
    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=select_autoescape(default=True))
    environment.filters["type"] = type_of
    environment.filters["prose"] = prose
    return environment


def docs_page(document: dict[str, Any]) -> str:
    """The HTML page of an OpenAPI document."""
    schemas = document.get("components", {}).get("schemas", {})
    groups: dict[str, list[dict[str, Any]]] = {heading: [] for heading, _ in GROUPS}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            name = f"{method.upper()} {path}"
            heading = next(heading for heading, pattern in GROUPS if re.search(pattern, name))
            curl, python = examples(method, path, operation, schemas)
            shown = {"method": method.upper(), "path": path, "id": operation["operationId"], "operation": operation}
            groups[heading].append(shown | {"curl": curl, "python": python})
    ordered = sorted((heading, shown) for heading, shown in groups.items() if shown)
    template = _environment().get_template("docs.html.j2")
    return template.render(info=document["info"], groups=ordered, schemas=schemas)


def examples(method: str, path: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> tuple[str, str]:
    """A call in curl and in Python, with $URL for the service's address; both are run by the tests as they stand."""
    parameters = operation.get("parameters", ())
    for one in parameters:
        if one["in"] == "path":
            path = path.replace(f"{{{one['name']}}}", quote(str(EXAMPLES[one["name"]])))
    query = {
        one["name"]: json.dumps(value) if isinstance(value := EXAMPLES[one["name"]], bool) else value
        for one in parameters
        if one["in"] == "query" and one["name"] in EXAMPLES
    }
    contents = operation.get("requestBody", {}).get("content", {})
    kind = next(iter(contents), None)
    address = path + (f"?{urlencode(query, quote_via=quote)}" if query else "")
    curl = [f'curl -s{"" if method == "get" else f" -X {method.upper()}"} "$URL{address}"']
    asked = [f'url + "{path}"', *([f"params={query!r}"] if query else [])]
    if kind == "application/json":
        body = sample(contents[kind]["schema"], schemas)
        curl += ['-H "Content-Type: application/json"', f"-d {shlex.quote(json.dumps(body))}"]
        asked.append(f"json={body!r}")
    elif kind is not None:
        curl.append("--data-binary @cv.txt")
        asked.append('content=open("cv.txt", "rb").read()')
    call = f"httpx.{method}({', '.join(asked)})"
    if len(call) > 88:
        call = f"httpx.{method}(\n    " + ",\n    ".join(asked) + ",\n)"
    return " \\\n  ".join(curl), f"import httpx\n\nresponse = {call}\nprint(response.text)"


def sample(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    """A value that fits a schema: the required fields of an object, and those that have an example."""
    if "$ref" in schema:
        return sample(schemas[_name(schema)], schemas)
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return sample(schema[union][0], schemas)
    fields = schema.get("properties", {})
    required = schema.get("required", ())
    return {
        name: EXAMPLES[name] if name in EXAMPLES else sample(field, schemas)
        for name, field in fields.items()
        if name in required or name in EXAMPLES
    }


def prose(text: str | None) -> Markup:
    """A docstring's text: paragraphs, and what is between backticks as code."""
    paragraphs = [" ".join(one.split()) for one in re.split(r"\n\s*\n", text or "") if one.strip()]
    coded = [re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(one))) for one in paragraphs]
    return Markup("".join(f"<p>{one}</p>" for one in coded))


def type_of(schema: Mapping[str, Any]) -> Markup:
    """A schema in a few words, with a link where it has a name."""
    return Markup(" ").join(_words(schema))


def _words(schema: Mapping[str, Any]) -> Iterator[Markup]:
    if "$ref" in schema:
        name = _name(schema)
        yield Markup('<a href="#schema-{0}">{0}</a>').format(name)
        return
    for union in ("anyOf", "oneOf"):
        if union in schema:
            yield Markup(" or ").join(type_of(part) for part in schema[union])
            return
    if "enum" in schema or "const" in schema:
        yield Markup(" | ").join(escape(value) for value in schema.get("enum", [schema.get("const")]))
        return
    if schema.get("type") == "array":
        yield Markup("list of {}").format(type_of(schema.get("items", {})))
        return
    inner = schema.get("additionalProperties")
    if schema.get("type") == "object" and isinstance(inner, dict):
        yield Markup("object of {}").format(type_of(inner))
        return
    yield escape(schema.get("format") or schema.get("type", "anything"))
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        yield escape(f"{least} to {most}")
    if "maxLength" in schema and schema["maxLength"] > 1:
        yield escape(f"up to {schema['maxLength']} characters")


def _name(schema: Mapping[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]
