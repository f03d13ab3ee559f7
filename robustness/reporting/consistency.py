"""Whether a report is as a run wrote it: its checksum, and what its claims and gates say of its counts and verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from robustness.reporting.report import GATE_FATES, OUTCOMES, verdict
from robustness.util.hashing import sha256_json

Plain = Mapping[str, Any]


def checksum(document: Plain) -> str:
    """Return the sha256 of a report without its checksum."""
    return sha256_json({key: value for key, value in document.items() if key != "checksum"})


def contradictions(document: Plain) -> Iterator[str]:
    """
    Yield what in a report contradicts itself: nothing in one that a run has written.

    Counts and verdict are derived from claims and gates anew. Reports of before there was a checksum have none.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: It is no whole report.
    """
    if document.get("checksum", checksum(document)) != checksum(document):
        yield "its checksum does not fit its content"
    counts, models = document["counts"], document["models"]
    rows = {row["name"]: row for row in counts["models"]}
    if [model["name"] for model in models] != list(rows):
        yield "its counts are not of its models"
        return
    for model in models:
        yield from _of_model(model, rows[model["name"]])
    for key in ("claims", *OUTCOMES, "not selected", "measured"):
        if (due := sum(row.get(key, 0) for row in rows.values())) != (said := counts.get(key, 0)):
            yield f"it counts {said} claims as {key}, and its models' are {due}"
    fates = Counter(model["gate"]["outcome"] for model in models if model.get("gate") is not None)
    if fates != Counter({fate: n for fate, n in counts["gates"].items() if n}) or set(fates) - set(GATE_FATES):
        yield f"it counts gates as {_listed(counts['gates'])}, and its models' are {_listed(fates)}"
    if sum(skip["claims"] for skip in counts["skips"]) != counts["skipped"]:
        yield f"it counts {counts['skipped']} claims as skipped, and gives reasons for others"
    if (due := verdict(counts, document["run"])) != document["verdict"]:
        yield f"its verdict is {document['verdict']!r}, but its counts say {due!r}"


def _of_model(model: Plain, row: Plain) -> Iterator[str]:
    name, tally = model["name"], Counter(claim["outcome"] for claim in model["claims"])
    if set(tally) - set(OUTCOMES) or any(row[outcome] != tally[outcome] for outcome in OUTCOMES):
        yield f"its counts of {name} are {_listed({o: row[o] for o in OUTCOMES})}, but its claims say {_listed(tally)}"
    if row["not selected"] < 0 or row["claims"] != tally.total() + row["not selected"]:
        yield f"it counts {row['claims']} claims of {name}, and holds {tally.total()}"
    cells = {
        (sweep["name"], cell["strength"], metric): claim["outcome"]
        for sweep in model["sweeps"] for cell in sweep["cells"] for metric, claim in cell["claims"].items()
    }  # fmt: skip
    for claim in model["claims"]:
        shown = cells.get((claim["sweep"], claim["strength"], claim["metric"]), claim["outcome"])
        if shown != claim["outcome"]:
            yield f"{claim['id']} is {claim['outcome']} among its claims and {shown} in its table"
        value, least = claim["numbers"].get("value"), claim["bound"] == "at least"
        beyond = value is not None and value != claim["threshold"] and (value < claim["threshold"]) == least
        if claim["outcome"] == "held" and beyond:
            yield f"{claim['id']} is held, but {value} is not {claim['bound']} {claim['threshold']}"


def _listed(tally: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in tally.items() if n) or "none"
