"""The page of the card's schema: every key with type, default and meaning, from the models that read a card."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from robustness.cards.schema import CardFile, ClaimTable, SweepTable
from robustness.perturbations import PERTURBATIONS
from robustness.perturbations.base import Perturbation

HEAD = """# Keys of a card

Generated from the card's schema. [Model cards](../cards.md) explains how a card is used, and how far it is trusted. Any
other key is an error that suggests the nearest one.
"""

PLACES = {
    "RecipeTable": "[recipe]",
    "ModelTable": "[model]",
    "DataSpec": "[data]",
    "Decoding": "[data.images]",
    "SweepTable": "[sweeps.NAME]",
    "ClaimTable": "[claims.NAME]",
    "SearchTable": "[search]",
    "GateTable": "[gate]",
    "WaiverTable": "[[waivers]]",
    "CardFile": "At the top",
}
"""Where a table stands in a card; others are called by the key that holds them."""
NO_KEYS = {(SweepTable, "perturbation"), (ClaimTable, "thresholds")}
"""Fields whose keys stand in the same table, not in one below it."""


def tables() -> dict[type[BaseModel], str]:
    """Return all tables that a card may hold, each once, outer ones first; and how each is called."""
    found: dict[type[BaseModel], str] = {}
    waiting: list[tuple[type[BaseModel], str]] = [(CardFile, "")]
    while waiting:
        table, key = waiting.pop(0)
        if table not in found and table is not Perturbation:
            found[table] = _title(table, key)
            waiting += [(each, name) for name, f in table.model_fields.items() for each in _inside(f.annotation)]
    kinds = {kind: f'`[sweeps.NAME]` with `kind = "{name}"`' for name, kind in PERTURBATIONS.items() if name != "clean"}
    return found | kinds


def _title(table: type[BaseModel], key: str) -> str:
    place = PLACES.get(table.__name__)
    if place is not None:
        return f"`{place}`" if place.startswith("[") else place
    kind = table.model_fields.get("kind")
    return f"`{key}`" if kind is None else f'`{key}` with `kind = "{kind.default}"`'


def _inside(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _inside(part)


def meanings(table: type[BaseModel]) -> dict[str, str]:
    """Return the text that stands under each field, in the class or in those that it is made of."""
    found: dict[str, str] = {}
    for each in reversed([cls for cls in table.__mro__ if issubclass(cls, BaseModel) and cls is not BaseModel]):
        body = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def shown(annotation: Any) -> str:
    """
    Write a type as a reader of TOML would.

    >>> shown(tuple[float, ...] | None), shown(typing.Literal["a", 1])
    ('list of number', '`"a"`, `1`')
    """
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{_toml(part)}`" for part in parts)
    if origin is typing.Annotated:
        return shown(parts[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(shown(part) for part in parts if part is not type(None)))
    if origin is tuple:
        inner = [part for part in parts if part is not ...]
        if len(parts) == len(inner) and len(inner) > 1:
            return f"list of {len(inner)}: {', '.join(shown(part) for part in inner)}"
        return f"list of {shown(inner[0])}"
    if origin is dict:
        return f"table of {shown(parts[1])}" if parts[1] is not Any else "table"
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        kind = annotation.model_fields.get("kind")
        name = PLACES.get(annotation.__name__) or (str(kind.default) if kind else "table")
        return f"[`{name}`](#{_anchor(annotation)})"
    words = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml(part) for part in value)}]"
    if isinstance(value, BaseModel):
        return f"{{ {', '.join(f'{key} = {_toml(part)}' for key, part in value.model_dump().items())} }}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return f"`{_toml(value)}`" if value not in (None, "", {}, ()) else "—"


def _anchor(table: type[BaseModel]) -> str:
    return table.__name__.lower()


def _rows(table: type[BaseModel]) -> list[str]:
    known, rows = meanings(table), []
    for name, field in table.model_fields.items():
        text = known.get(name, "")
        if name == "kind" and name not in known:
            text = "Names this form of the table."
        key, form = ("…", "keys") if (table, name) in NO_KEYS else (f"`{name}`", shown(field.annotation))
        rows.append(f"| {key} | {form} | {_default(field)} | {text.replace('``', '`').replace('|', chr(92) + '|')} |")
    return rows


def page() -> str:
    """Write the page."""
    parts = [HEAD.rstrip()]
    for table, title in tables().items():
        text = " ".join((inspect.getdoc(table) or "").split("\n\n")[0].split()).replace("``", "`")
        parts.append(f"## {title} {{ #{_anchor(table)} }}\n\n{text}")
        parts.append("\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *_rows(table)]))
    return "\n\n".join(parts) + "\n"
