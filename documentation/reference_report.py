"""The page of the report's JSON: every key with type and meaning, from the models that write and read it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from robustness.reporting.report import FORMAT, RunReport

Schema = Mapping[str, Any]

HEAD = f"""# Keys of the report's JSON

Generated from the report's types; [the report](../report.md) explains how to read one. The same as a JSON Schema is in
[report.schema.json](report.schema.json). `format` is `{FORMAT}`; the number is raised when a key is removed or changes
its meaning, and keys may be added without. `[]` stands for each entry of a list, `.*` for a key that is a name. An
empty key is null, or absent.
"""
WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "null": "null",
}


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a report."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **RunReport.model_json_schema()}


def schema_text() -> str:
    """Write the JSON Schema of a report."""
    return json.dumps(schema(), indent=1) + "\n"


def tables(whole: Schema) -> dict[str, tuple[str, Schema]]:
    """Return every table of the report by its name in the schema, outer ones first: where it stands, and its schema."""
    found: dict[str, tuple[str, Schema]] = {}
    waiting: list[tuple[str, str, Schema]] = [("RunReport", "", whole)]
    while waiting:
        name, place, table = waiting.pop(0)
        if name not in found:
            found[name] = place, table
            for key, value in table["properties"].items():
                here = f"{place}.{key}".removeprefix(".")
                waiting += [(each, here + suffix, whole["$defs"][each]) for each, suffix in _inside(value)]
    return found


def _inside(value: Schema) -> Iterator[tuple[str, str]]:
    """Return the tables that a value may hold, and what stands between its key and theirs."""
    if "$ref" in value:
        yield value["$ref"].rpartition("/")[2], ""
    for part in value.get("anyOf", ()):
        yield from _inside(part)
    for key, mark in (("items", "[]"), ("additionalProperties", ".*")):
        if isinstance(value.get(key), dict):
            yield from ((name, mark + suffix) for name, suffix in _inside(value[key]))


def shown(value: Schema) -> str:
    """
    Write a type in words.

    >>> shown({"anyOf": [{"items": {"type": "integer"}, "type": "array"}, {"type": "null"}]})
    'list of whole number, or null'
    >>> shown({"enum": ["passed", "failed"], "type": "string"})
    '`passed`, `failed`'
    """
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[table](#{name.lower()})"
    if "anyOf" in value:
        return ", or ".join(shown(part) for part in value["anyOf"])
    if "const" in value or "enum" in value:
        return ", ".join(f"`{word}`" for word in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        return f"list of {shown(value['items'])}"
    if value.get("type") == "object":
        inner = value.get("additionalProperties")
        return f"by name, {shown(inner)}" if isinstance(inner, dict) else "by name, anything"
    return WORDS.get(value.get("type", ""), "anything")


def meaning(value: Schema, whole: Schema) -> str:
    """Return what a key means; pydantic leaves it out where the table that the key holds says the same."""
    own: str = value.get("description") or whole["$defs"][value["$ref"].rpartition("/")[2]]["description"]
    return own


def page() -> str:
    """Write the page."""
    parts, whole = [HEAD.rstrip()], schema()
    for name, (place, table) in tables(whole).items():
        title = f"`{place}`" if place else "At the top"
        text = " ".join(re.split(r"\n\s*\n", table.get("description", ""))[0].split())
        parts.append(f"## {title} {{ #{name.lower()} }}\n\n{text}")
        rows = [f"| `{key}` | {shown(value)} | {meaning(value, whole)} |" for key, value in table["properties"].items()]
        parts.append("\n".join(["| key | type | meaning |", "| --- | --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"
