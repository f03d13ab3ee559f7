"""Messages about invalid tables: one sentence with the key, the value, and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from robustness.errors import nearest, plain, shown


def format_problem(error: dict[str, Any], table: Mapping[str, Any], root: type[BaseModel]) -> str:
    """Return one of pydantic's problems with a ``root`` as a sentence: key, value, what is allowed."""
    place = ".".join(_place(error["loc"], table))
    message = error["msg"].removeprefix("Value error, ")
    value = error["input"]
    written = shown(value)
    if error["type"] == "extra_forbidden":
        known = _allowed(error["loc"][:-1], root)
        return f"{place} = {written}: unknown key; allowed: {', '.join(known)}{nearest(error['loc'][-1], known)}"
    if error["type"] == "missing":
        return f"{place}: missing; add it"
    if error["type"] == "union_tag_invalid":
        tags = re.findall(r"'([^']+)'", str(error["ctx"]["expected_tags"]))
        tag = error["ctx"]["tag"]
        return f"{place}.kind = {tag!r}: allowed: {', '.join(tags)}{nearest(tag, tags)}"
    if isinstance(value, (dict, list)) or value is table:
        return f"{place}: {message}" if place else message
    return f"{place} = {written}: {message}"


def _place(location: tuple[Any, ...], table: Any) -> list[str]:
    """Return the keys that lead to a place in the file, without the names of tables that pydantic puts between them."""
    keys = []
    for i, part in enumerate(location):
        try:
            table = table[part]
        except (KeyError, IndexError, TypeError):
            if i < len(location) - 1:
                continue
        keys.append(plain(str(part)))
    return keys


def _allowed(location: tuple[Any, ...], root: type[BaseModel]) -> list[str]:
    """Return the keys that the table at a place may have."""
    models: list[type[BaseModel]] = [root]
    for part in location:
        fields = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        named = [
            model
            for model in models
            if part in (model.__name__, getattr(model.model_fields.get("kind"), "default", None))
        ]
        models = [inner for field in fields for inner in _tables(field)] or named or models
    return list(dict.fromkeys(key for model in models for key in model.model_fields))


def _tables(annotation: Any) -> list[type[BaseModel]]:
    """Return the tables that an annotation names, wherever in it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables(part)]
