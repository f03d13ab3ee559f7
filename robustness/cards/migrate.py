"""Rewriting names in a card that have changed; comments, order and layout stay as their author wrote them."""

from __future__ import annotations

import tomllib
from codecs import BOM_UTF8
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.container import Container
from tomlkit.items import AoT, Array, InlineTable, Item, SingleKey, String, StringType, Table

from robustness.cards import renames
from robustness.cards.renames import Change
from robustness.errors import CardError
from robustness.util import paths
from robustness.util.atomic_write import replace


def migrate(path: Path) -> list[Change]:
    """
    Rewrite a card, or a pyproject.toml with profiles, whole or not at all; return what changed.

    CardError if the file cannot be read, or is written in a way that cannot be rewritten.
    """
    try:
        content = paths.read_bytes(path)
        table = paths.parse_toml(content)
    except (OSError, ValueError) as error:
        raise CardError(f"{path}: not a readable TOML file: {error}") from error
    expected, changes = renames.renamed(table)
    if not changes:
        return []
    try:
        text = with_new_names(content.decode("utf-8-sig"))
        if repr(tomllib.loads(text)) != repr(expected):  # nan differs from itself
            raise ValueError("another table would change")
    except ValueError as error:  # which TOML's errors are
        listed = "; ".join(map(str, changes))
        raise CardError(
            f"{path}: cannot be rewritten in the way it is written ({error}); nothing was written; rename by hand: "
            f"{listed}"
        ) from error
    replace(path, BOM_UTF8 * content.startswith(BOM_UTF8) + text.encode())
    return changes


def with_new_names(text: str) -> str:
    """
    Return a card's text with the names of now.

    >>> with_new_names('starts = "by command"  # of no recipe'), with_new_names('model.entry = "a"  # mine')
    ('starts = "by command"  # of no recipe', 'model.checkpoint_key = "a"  # mine')
    """
    document = tomlkit.parse(text)
    _rename(document, tomllib.loads(text), "")
    return document.as_string()


def _rename(container: Container, table: Mapping[str, Any], place: str) -> None:
    """Rename the keys and values of a container in place; ``table`` is the whole table that it is a part of."""
    kind, aligned = renames.sweep_kind(place, table), _is_aligned(_lines(container))
    changed = False
    for index, (key, item) in enumerate(container.body):
        if key is None:
            continue
        old = key.as_string()
        new = renames.new_key(place, key.key, kind)
        value = _renamed(item, table.get(key.key), renames.below(place, new))
        if new != key.key:
            key, changed = SingleKey(new, sep=key.sep, original=new + " " * (len(old) - len(old.rstrip()))), True
        container.body[index] = (key, value)
    if aligned and changed:
        lines = _lines(container)
        width = max(len(text.rstrip()) for text in lines.values()) + 1
        for index, text in lines.items():
            key, item = container.body[index]
            assert key is not None
            padded = SingleKey(key.key, sep=key.sep, original=text.rstrip().ljust(width))
            container.body[index] = (padded, item)


def _renamed(item: Item, value: Any, place: str) -> Item:
    """Return an item with the names of now: tables and arrays in place, a word as a new item."""
    if isinstance(item, AoT):
        for part, each in zip(item.body, value, strict=True):
            _rename(part.value, each, place)
    elif isinstance(item, Table | InlineTable):
        _rename(item.value, value, place)
    elif isinstance(item, Array):
        for index, each in enumerate(value):
            if isinstance(each, dict | list):
                _renamed(item[index], each, place)
            elif (new := renames.new_value(place, each)) != each:
                item[index] = new
    elif isinstance(item, String) and (new := renames.new_value(place, value)) != value:
        return String(StringType.SLB, new, new, item.trivia)
    return item


def _lines(container: Container) -> dict[int, str]:
    """Return the keys, as written, of what a table holds in lines of its own, by their place in its body."""
    inside = ((index, key) for index, (key, item) in enumerate(container.body) if not isinstance(item, Table | AoT))
    return {index: key.as_string() for index, key in inside if key is not None}


def _is_aligned(lines: Mapping[int, str]) -> bool:
    """Return whether the equal signs stand below each other on purpose."""
    texts = set(lines.values())
    return len({len(text) for text in texts}) == 1 and any(text.endswith("  ") for text in texts)
