"""Writing claims into a card: the rest of the file, comments and order included, stays as its author wrote it."""

from __future__ import annotations

import tomllib
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from tomlkit import TOMLDocument

from robustness import cards
from robustness.cards.card import Card
from robustness.cards.schema import NO_CLAIM, CardFile
from robustness.errors import CardError
from robustness.util.atomic_write import replace

Rows = Mapping[str, Sequence[float | None]]
"""Metric → one threshold per strength; None if no claim is possible."""


def write_claims(
    card: Card, claims: Mapping[str, Rows], about: Mapping[str, Any], max_flip_rate: float | None = None
) -> Card:
    """
    Put ``claims`` (sweep → rows) and the ``[thresholds]`` table that tells where they come from into a card's file.

    ``max_flip_rate`` is what the card's ``[search]`` is to claim, if it has that table.

    The file is replaced whole or not at all, and given back as it loads. CardError if it was changed since
    ``card`` was loaded, in anything but these tables, or where the new text would not load.
    """
    content = card.path.read_bytes()
    text = content.decode("utf-8-sig")
    if _others(cards.load(card.path)) != _others(card):
        raise CardError(
            f"{card.path} changed while its thresholds were derived; nothing was written, run the command again"
        )
    new = with_claims(text, claims, about, max_flip_rate)
    try:
        table = tomllib.loads(new)
        CardFile.model_validate(cards.expand_profile(table, card.path, card.overrides.project))
        if _untouched(table) != _untouched(tomllib.loads(text)):
            raise ValueError("another table would change")
    except ValueError as error:  # which TOML's and pydantic's errors are
        raise CardError(
            f"{card.path}: its claims are written in a form that cannot be replaced ({error}); nothing was written; "
            "remove its [claims] and [thresholds] tables and run the command again"
        ) from error
    replace(card.path, BOM_UTF8 * content.startswith(BOM_UTF8) + new.encode())
    return cards.load(card.path)


def with_claims(
    text: str, claims: Mapping[str, Rows], about: Mapping[str, Any], max_flip_rate: float | None = None
) -> str:
    """
    Return a card's text with these claims; tables that are there are changed in place, others come last.

    >>> print(with_claims('name = "a"  # mine', {"clean": {"accuracy": [0.9], "f1": [None]}}, {"c": 3.0}))
    name = "a"  # mine
    <BLANKLINE>
    [claims.clean]
    accuracy = [0.9000]
    f1       = ["no claim possible"]
    <BLANKLINE>
    [thresholds]
    c = 3.0
    <BLANKLINE>
    """
    document = tomlkit.parse(text)
    new = []
    for sweep, rows in claims.items():
        there = document.get("claims", {}).get(sweep)
        if there is None:
            new.append(claims_table(sweep, rows))
        else:
            _put(there, tomlkit.parse(_lines(rows)))
    if max_flip_rate is not None:
        document["search"]["max_flip_rate"] = max_flip_rate
    provenance = "".join(f"{key} = {tomlkit.item(value).as_string()}\n" for key, value in about.items())
    if "thresholds" in document:
        there = document["thresholds"]
        for key in [key for key in there if key not in about]:
            del there[key]
        _put(there, tomlkit.parse(provenance))
    else:
        new.append("[thresholds]\n" + provenance)
    # New tables are text below the others': tomlkit would put some of them in the middle of those.
    return "\n".join([document.as_string().rstrip("\n") + "\n", *new])


def claims_table(sweep: str, rows: Rows) -> str:
    """
    Write the table of one sweep's claims.

    >>> print(claims_table("clean", {"accuracy": [0.9]}))
    [claims.clean]
    accuracy = [0.9000]
    <BLANKLINE>
    """
    return f"[claims.{tomlkit.key(sweep).as_string()}]\n{_lines(rows)}"


def _lines(rows: Rows) -> str:
    """Write rows in columns, each on a line."""
    cells = {key: [f'"{NO_CLAIM}"' if v is None else f"{v:.4f}" for v in row] for key, row in rows.items()}
    keys = {key: tomlkit.key(key).as_string() for key in rows}
    widths = [max(map(len, column)) + 2 for column in zip(*cells.values(), strict=True)]
    start = max(map(len, keys.values()), default=0)
    return "".join(
        f"{keys[key]:{start}} = [{_columns([f'{cell}, ' for cell in row], widths)}]\n" for key, row in cells.items()
    )


def _columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip().rstrip(",")


def _put(table: Any, values: TOMLDocument) -> None:
    for key, value in values.items():
        table[key] = value


def _others(card: Card) -> dict[str, Any]:
    return card.file.model_dump(exclude={"claims": True, "thresholds": True, "search": {"max_flip_rate"}})


def _untouched(table: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in table.items() if key not in ("claims", "thresholds")}
    if "search" in rest:
        rest["search"] = {key: value for key, value in rest["search"].items() if key != "max_flip_rate"}
    return rest
