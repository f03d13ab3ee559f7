"""What was caught, as lines for a terminal, as a page, and as JSON."""

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


def lines(found: Plain, shown: Shown = one_line) -> Iterator[str]:
    """
    Return what was caught of one model's damage: what it is held to, every level, from where on, false alarms.

    ``shown`` makes text from elsewhere harmless.
    """
    from tabulate import tabulate

    yield _held_to(found, shown)
    yield ""
    yield tabulate(list(_levels(found)), _heads(found, "damage", "level"), tablefmt="github", disable_numparse=True)
    yield ""
    columns = [by for by in ("claims", "gate") if _has(found, by)]
    rows = [[d["title"], *(_from(d, by) for by in columns)] for d in found["damage"]]
    yield tabulate(rows, ["damage", *(f"caught by {_the(by)} from" for by in columns)], tablefmt="github")
    yield ""
    yield from _remarks(found, shown)


def _held_to(found: Plain, shown: Shown) -> str:
    gate = found["gate"]
    held = [f"{found['claims']} claims in {found['groups']} groups (a sweep and a metric)"] if found["claims"] else []
    if gate is not None:
        held.append(f"a {gate['kind']} gate ({gate['accepted']} accepted, α = {gate['alpha']:g})")
    return (
        f"{shown(found['model'])} on {shown(found['data'])}, n = {found['n']}, seed {found['seed']}, "
        f"{found['device']}, {found['scale']} scale, held to {' and '.join(held)}."
    )


def _has(found: Plain, by: str) -> bool:
    return bool(found["claims"]) if by == "claims" else found["gate"] is not None


def _the(by: str) -> str:
    return "the gate" if by == "gate" else by


def _from(damage: Plain, by: str) -> str:
    first = damage["caught_from"][by]
    every = "" if first is None or damage["rows"][-1]["says"] != first else " (the least that was tried)"
    return f"{first}{every}" if first else "not caught"


def _heads(found: Plain, *first: str) -> list[str]:
    heads = [*first, "clean accuracy"]
    heads += ["red claims", "red groups"] if _has(found, "claims") else []
    return heads + (["gate"] if _has(found, "gate") else [])


def _levels(found: Plain) -> Iterator[list[str]]:
    yield ["none", DASH, *_cells(found, found["undamaged"])]
    for damage in found["damage"]:
        for row in reversed(damage["rows"]):
            yield [damage["title"], row["says"], *_cells(found, row)]


def _cells(found: Plain, row: Plain) -> list[str]:
    if row["error"]:
        return ["error", *(DASH for _ in _heads(found)[1:])]
    accuracy = row["clean_accuracy"]
    cells = [DASH if accuracy is None else f"{accuracy:.3f}"]
    if _has(found, "claims"):
        cells += [f"{row['red']} of {found['claims']}", f"{len(row['red_groups'])} of {found['groups']}"]
    return cells + ([row["gate"]] if _has(found, "gate") else [])


def _remarks(found: Plain, shown: Shown) -> Iterator[str]:
    retrainings, alarms = found["retrainings"], found["false_alarms"]
    if retrainings:
        each = ", ".join(f"{alarms[by]} by {_the(by)}" for by in ("claims", "gate") if _has(found, by))
        seeds = f"seeds {retrainings[0]['seed']}–{retrainings[-1]['seed']}"
        red = f"{alarms['either']} of {len(retrainings)} undamaged retrainings"
        yield f"False alarms: {red} ({seeds}) are red; {each}."
    if made := found["thresholds"]:
        yield (
            f"The thresholds come from the healthy seeds {made.get('seeds', DASH)}, of which "
            f"{made.get('left_out_red', 'an unknown number')} are red when each is left out in turn."
        )
    if names := found["sweeps_left_out"]:
        why = "whose generator would have to be fitted to each damaged model anew"
        yield f"Left out: {shown(', '.join(names))}, {why}."
    yield from (f"Left out: {what}: {shown(reason)}." for what, reason in found["left_out"].items())
    yield from (f"Note: {shown(note)}." for note in found["notes"])
    for damage in found["damage"]:
        for row in damage["rows"]:
            if row["error"]:
                yield f"Error: {damage['title']}, {row['says']}: {shown(row['error'])}."


def page(found: Sequence[Plain]) -> str:
    """Write the page of some models, with what to make of it."""
    names = " ".join(markdown(one["model"]) for one in found)
    parts = [f"## {markdown(one['model'])}\n\n" + "\n".join(lines(one, markdown)) for one in found]
    return f"""# What claims and gates catch

Thresholds and gates that never go red hold nothing. So a classifier is damaged on purpose, in steps, and the claims of
its card and its gate are held against what is left, as mutation testing holds a test suite against faults put in; below
it stands how often a model without fault is called red. `robustness mutate {names}` does this;
with `--output FILE.md` it writes such a page, with `--output FILE.json` everything behind it.

Each kind of damage begins with its worst level and goes down to the first that nothing catches. *From* is the slightest
level from which on all worse ones are caught.

{(chr(10) * 2).join(parts)}

## What to make of it

What goes unseen is as telling. Thresholds allow for retraining (another seed moves accuracy under strong noise by
several points), and so does a retraining gate: what is slighter than retraining goes through both. To hold one file of
weights to another, image by image, is what a [paired gate](gate.md) is for.
"""


def write(path: Path, found: Sequence[Plain]) -> None:
    """Write what was found of some models, as JSON or Markdown by the file's suffix; CardError where it cannot be."""
    check(path)
    text = page(found) if path.suffix == ".md" else results.text({"models": found})
    atomic_write.replace(path, text.encode())


def check(path: Path) -> None:
    """Refuse a file of another kind, before anything is measured."""
    if path.suffix not in (".json", ".md"):
        raise MutationError(f"--output must be a .json or .md file, got {path}")
    if not path.parent.is_dir():
        raise MutationError(f"--output {path}: there is no folder {path.parent}; make it first")
