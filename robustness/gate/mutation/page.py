"""Results of mutation testing, as lines for a terminal, as a page, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from robustness.gate.mutation import results
from robustness.mutations.kinds import MutationError
from robustness.util import atomic_write
from robustness.util.text import markdown, one_line

DASH = "—"

Plain = Mapping[str, Any]
Shown = Callable[[object], str]


def lines(document: Plain, shown: Shown = one_line) -> Iterator[str]:
    """
    Return one model's results: claims and gate, every level, the mildest level detected, false alarms.

    ``shown`` escapes text from elsewhere.
    """
    from tabulate import tabulate

    yield _checked_by(document, shown)
    yield ""
    levels = list(_levels(document))
    yield tabulate(levels, _heads(document, "damage", "level"), tablefmt="github", disable_numparse=True)
    yield ""
    columns = [by for by in ("claims", "gate") if _has(document, by)]
    rows = [[d["title"], *(_from(d, by) for by in columns)] for d in document["damage"]]
    yield tabulate(rows, ["damage", *(f"detected by {_the(by)} from" for by in columns)], tablefmt="github")
    yield ""
    yield from _remarks(document, shown)


def _checked_by(document: Plain, shown: Shown) -> str:
    gate, claims = document["gate"], document["claims"]
    held = [f"{claims} claims in {document['groups']} groups (a sweep and a metric)"] if claims else []
    if gate is not None:
        held.append(f"its {gate['kind']} gate ({gate['accepted']} accepted, α = {gate['alpha']:g})")
    return (
        f"{shown(document['model'])} on {shown(document['data'])}, n = {document['n']}, seed {document['seed']}, "
        f"{document['device']}, {document['scale']} scale, tested by {' and '.join(held)}."
    )


def _has(document: Plain, by: str) -> bool:
    return bool(document["claims"]) if by == "claims" else document["gate"] is not None


def _the(by: str) -> str:
    return "the gate" if by == "gate" else by


def _from(damage: Plain, by: str) -> str:
    first = damage["caught_from"][by]
    every = "" if first is None or damage["rows"][-1]["says"] != first else " (the mildest tested)"
    return f"{first}{every}" if first else "not detected"


def _heads(document: Plain, *first: str) -> list[str]:
    heads = [*first, "clean accuracy"]
    heads += ["failed claims", "failed groups"] if _has(document, "claims") else []
    return heads + (["gate"] if _has(document, "gate") else [])


def _levels(document: Plain) -> Iterator[list[str]]:
    yield ["none", DASH, *_cells(document, document["undamaged"])]
    for damage in document["damage"]:
        for row in reversed(damage["rows"]):
            yield [damage["title"], row["says"], *_cells(document, row)]


def _cells(document: Plain, row: Plain) -> list[str]:
    if row["error"]:
        return ["error", *(DASH for _ in _heads(document)[1:])]
    accuracy = row["clean_accuracy"]
    cells = [DASH if accuracy is None else f"{accuracy:.3f}"]
    if _has(document, "claims"):
        cells += [f"{row['red']} of {document['claims']}", f"{len(row['red_groups'])} of {document['groups']}"]
    return cells + ([row["gate"]] if _has(document, "gate") else [])


def _remarks(document: Plain, shown: Shown) -> Iterator[str]:
    retrainings, alarms = document["retrainings"], document["false_alarms"]
    if retrainings:
        each = ", ".join(f"{alarms[by]} by {_the(by)}" for by in ("claims", "gate") if _has(document, by))
        seeds = f"seeds {retrainings[0]['seed']}–{retrainings[-1]['seed']}"
        failed = f"{alarms['either']} of {len(retrainings)} undamaged retrainings"
        yield f"False alarms: {failed} ({seeds}) fail; {each}."
    if thresholds := document["thresholds"]:
        yield (
            f"The thresholds are derived from healthy seeds {thresholds.get('seeds', DASH)}; "
            f"with each seed left out in turn, {thresholds.get('left_out_red', 'an unknown number')} fail."
        )
    if names := document["sweeps_left_out"]:
        why = "because its generator would have to be refitted to each damaged model"
        yield f"Left out: {shown(', '.join(names))}, {why}."
    yield from (f"Left out: {what}: {shown(reason)}." for what, reason in document["left_out"].items())
    yield from (f"Note: {shown(note)}." for note in document["notes"])
    for damage in document["damage"]:
        for row in damage["rows"]:
            if row["error"]:
                yield f"Error: {damage['title']}, {row['says']}: {shown(row['error'])}."


def page(documents: Sequence[Plain]) -> str:
    """Write the page of some models, with its interpretation."""
    names = " ".join(markdown(one["model"]) for one in documents)
    parts = [f"## {markdown(one['model'])}\n\n" + "\n".join(lines(one, markdown)) for one in documents]
    return f"""# What claims and gates detect

A threshold that never fails proves nothing. This page shows which deliberate faults the claims and the gate of these
models detect (mutation testing), and how often they reject a healthy model.

`robustness mutate {names}` computes it; `--output FILE.md` writes such a page, `--output FILE.json` all its data.

Each kind of damage starts at its worst level and goes down to the first level that nothing detects. *From* is the
mildest level such that it and all worse ones are detected.

{(chr(10) * 2).join(parts)}

## Interpretation

The undetected levels matter as much. The thresholds tolerate retraining (another seed changes accuracy under strong
noise by several points), and so does a `retraining` gate. Damage smaller than the effect of retraining passes both.
To compare one weights file with another, image by image, use a [`paired` gate](gate.md).
"""


def write(path: Path, documents: Sequence[Plain]) -> None:
    """Write the results of some models, as JSON or Markdown by the file's suffix; CardError if that is impossible."""
    check(path)
    text = page(documents) if path.suffix == ".md" else results.text({"models": documents})
    atomic_write.replace(path, text.encode())


def check(path: Path) -> None:
    """Raise MutationError for another suffix or a missing folder, before anything is measured."""
    if path.suffix not in (".json", ".md"):
        raise MutationError(f"--output must be a .json or .md file, got {path}")
    if not path.parent.is_dir():
        raise MutationError(f"--output {path}: there is no folder {path.parent}; create it first")
