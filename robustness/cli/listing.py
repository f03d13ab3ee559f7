"""Evidence as lines of text: a list of the store, the details of an entry, the result of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from robustness import cards, claims
from robustness.cli.inventory import SHORT, Litter, StoreEntry, entries
from robustness.errors import CardError, StoreError
from robustness.metrics.evidence import OK, Evidence
from robustness.util.text import pluralize, size
from robustness.workspace.store import Store


def entry_list(store: Store, projects: Mapping[str, Path], default: Path) -> Iterator[str]:
    """
    Return one line per entry of a store, by model and time; its last column says whether it is valid, or why not.

    ``projects`` maps models' names to the folders of their source files.
    """
    from tabulate import tabulate

    every = entries(store)
    rows = sorted((_row(store, entry, projects, default) for entry in every), key=_by_model_and_time)
    if rows:
        yield tabulate(rows, headers="keys", disable_numparse=True)
        yield ""
    yield f"{len(rows)} entries, {size(sum(entry.size for entry in every))}, in {store.root}" + (
        "; details of an entry: robustness evidence show KEY" if rows else ""
    )


def _by_model_and_time(row: Mapping[str, Any]) -> tuple[bool, str, str]:
    """Put what cannot be read at the end."""
    return "model" not in row, row.get("model", ""), row.get("made", "")


def projects(files: Sequence[Path]) -> dict[str, Path]:
    """Return the project of every readable card; the store is listed without the others too."""
    by_project = {}
    for file in files:
        with suppress(CardError):
            card = cards.load(file)
            by_project[card.name] = card.project
    return by_project


def _row(store: Store, entry: StoreEntry, projects: Mapping[str, Path], default: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"key": entry.key[:SHORT]}
    try:
        evidence = entry.read()
    except StoreError as error:
        return row | {"size": size(entry.size), "believed": f"no: {error}"}
    provenance = evidence.provenance
    model, _, sweep = str(provenance.get("label", "")).partition(":")
    reason = store.evidence(entry.key, projects.get(model, default))[1]
    return row | {
        "model": model,
        "sweep": sweep,
        "strengths": abbreviated(evidence.strengths),
        "n": len(evidence),
        "device": evidence.machine,
        "seed": provenance.get("seed", ""),
        "made": str(provenance.get("started", ""))[:16].replace("T", " "),
        "size": size(entry.size),
        "believed": f"no: {reason}" if reason else "yes",
    }


def described(entry: StoreEntry) -> Iterator[str]:
    """Return everything about one entry, line by line; StoreError if it cannot be read."""
    try:
        evidence = entry.read()
    except StoreError as error:
        raise StoreError(f"{entry.path}: {error}") from error
    yield f"key: {entry.key}"
    yield f"file: {entry.path} ({size(entry.size)})"
    yield f"digest: {evidence.digest}"
    yield f"classes: {', '.join(evidence.classes)}"
    for strength, status in zip(evidence.strengths, evidence.status, strict=True):
        measured = claims.describe(claims.measure(evidence, strength, "accuracy")) if status == OK else ""
        yield f"at {strength}: {status}" + (f", accuracy {measured}" if measured else "")
    yield from _nested({key: value for key, value in evidence.provenance.items() if key != "key"})


def _nested(about: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in about.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:"
            yield from _nested(value, f"{indent}  ")
        else:
            yield f"{indent}{key}: {'none' if value in (None, '', [], {}) else value}"


def sweep_summary(label: str, evidence: Evidence, run: str) -> Iterator[str]:
    """Return a sweep's result in a line, and a line per cell with an error; ``run`` tells new from stored evidence."""
    provenance = evidence.provenance
    failed = errors(evidence)
    yield (
        f"{label}  key {provenance['key'][:SHORT]}  n {len(evidence)}  strengths {abbreviated(evidence.strengths)}  "
        f"{'made' if provenance['run'] == run else 'from the store, made'} in {provenance['seconds']:.1f} s "
        f"({provenance['images_per_second']:,.0f} images/s)  {pluralize(len(failed), 'error')}"
    )
    yield from (f"  at {strength}: {status}" for strength, status in failed.items())


def prune_summary(
    store: Store, chosen: Sequence[StoreEntry], litter: Sequence[Litter] = (), *, only_say: bool = False
) -> Iterator[str]:
    """Remove entries and leftovers of killed processes, or only list them; one line each, and a total."""
    for entry in chosen:
        if not only_say:
            entry.remove()
        yield f"{entry.key}  {size(entry.size)}"
    for left in litter:
        if not only_say:
            left.remove()
        yield f"{left.path}  {size(left.size)}, {left.what}"
    done, total = "would remove" if only_say else "removed", sum(e.size for e in chosen) + sum(e.size for e in litter)
    beside = f" and {len(litter)} leftovers of killed processes" if litter else ""
    yield f"{done} {len(chosen)} entries{beside}, {size(total)}, from {store.root}"


def errors(evidence: Evidence) -> dict[str, str]:
    """Return the strengths without numbers, and why."""
    return {s: status for s, status in zip(evidence.strengths, evidence.status, strict=True) if status != OK}


def abbreviated(names: Sequence[str]) -> str:
    """
    List a few strengths, or the ends of many.

    >>> abbreviated(["0.1", "0.2", "0.3", "0.4"]), abbreviated(["0"])
    ('0.1 … 0.4 (4)', '0')
    """
    return ", ".join(names) if len(names) < 4 else f"{names[0]} … {names[-1]} ({len(names)})"
