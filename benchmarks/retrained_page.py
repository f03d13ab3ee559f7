"""The results of `benchmarks.retrainings`, as a section of docs/gate-errors.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tabulate import tabulate

Plain = Mapping[str, Any]
VERDICTS = ("passed", "inconclusive", "failed")


def body(found: Plain) -> str:
    """Return the section: provenance, errors of both kinds of gate, and the verdicts on each candidate."""
    first, last = found["seeds"]
    about = (
        f"{found['model']} on {found['data']}, n = {found['images']:,}; seeds {first} to {last}, "
        f"α = {found['alpha']:g}; measured {found['made']} on {found['device']}, torch {found['versions']['torch']}."
    )
    outcomes = found["outcomes"]
    parts = [
        about,
        errors(found),
        "Verdicts of a `paired` gate on each candidate, by sweeps and margin:",
        _paired(found["paired"]),
        f"Verdicts of a `retraining` gate with {last - first} accepted retrainings, then with {found['small']} of "
        f"them, drawn at random {found['retraining'][0]['draws']:,} times. By chance, a healthy candidate ranks last "
        f"among {found['small'] + 1} in one case in {found['small'] + 1}.",
        _retraining(found["retraining"], found["small"]),
        "Fraction of images that exactly one of two healthy retrainings classifies correctly, by cell:",
        _table(["cell", "images that differ"], zip(outcomes["cells"], _shares(outcomes["discordance"]), strict=True)),
        "The 10 %, 50 % and 90 % quantiles of the correlation between two cells (of the underlying normal variables) "
        f"are {_quantiles(outcomes['correlation'])}. These are the summaries of the retrainings, which the "
        "`retraining` gate tests:",
        _summaries(outcomes),
    ]
    return "\n\n".join(parts) + "\n"


def errors(found: Plain) -> str:
    """Count the errors of each gate: false alarms on healthy models, misses on damaged ones."""
    rows = [_errors(name, rows) for name, rows in _by_gate(found)]
    few = found["retraining"]
    healthy, damaged = few[0], few[1:]
    for name, key in (("t bound", "t_bound_fails"), ("last rank fails", "rank_is_last")):
        hits = sum(row[key] for row in damaged)
        total = sum(row["draws"] for row in damaged)
        rows.append([
            f"`retraining`, {found['small']} accepted, {name}", f"{healthy[key]:,} of {healthy['draws']:,}", "0",
            f"{hits:,} of {total:,}", f"{total - hits:,}", "0",
        ])  # fmt: skip
    header = ["gate", "false alarms", "inconclusive", "detected", "missed", "inconclusive"]
    return _table([*header[:1], *(f"healthy: {h}" for h in header[1:3]), *(f"damaged: {h}" for h in header[3:])], rows)


def _by_gate(found: Plain) -> Iterator[tuple[str, Sequence[Plain]]]:
    settings = dict.fromkeys((tuple(row["sweeps"]), row["margin"]) for row in found["paired"])
    for sweeps, margin in settings:
        name = f"`paired`, margin {margin:g}, {'clean images' if len(sweeps) == 1 else 'all sweeps'}"
        chosen = [row for row in found["paired"] if (tuple(row["sweeps"]), row["margin"]) == (sweeps, margin)]
        yield name, [row for row in chosen if row["candidate"] != "the same weights"]
    yield f"`retraining`, {found['seeds'][1] - found['seeds'][0]} accepted, by rank", found["retraining"]


def _errors(name: str, rows: Sequence[Plain]) -> list[str]:
    healthy, damaged = rows[0], rows[1:]
    count = {verdict: sum(row[verdict] for row in damaged) for verdict in VERDICTS}
    total = sum(count.values())
    return [
        name, f"{healthy['failed']} of {sum(healthy[v] for v in VERDICTS)}", f"{healthy['inconclusive']}",
        f"{count['failed']} of {total}", f"{count['passed']}", f"{count['inconclusive']}",
    ]  # fmt: skip


def _paired(rows: Sequence[Plain]) -> str:
    shown = [[row["candidate"], " ".join(row["sweeps"]), f"{row['margin']:g}", *_counts(row)] for row in rows]
    return _table(["candidate", "sweeps", "margin", "n", *VERDICTS], shown)


def _retraining(rows: Sequence[Plain], small: int) -> str:
    shown = [
        [
            row["candidate"],
            *_counts(row),
            *_shares(row[key] / row["draws"] for key in ("t_bound_fails", "rank_is_last")),
        ]
        for row in rows
    ]
    return _table(["candidate", "n", *VERDICTS, f"{small}: t bound fails", f"{small}: ranks last"], shown)


def _summaries(outcomes: Plain) -> str:
    rows = [
        [name, f"{mean:.4f}", f"{spread:.4f}", *(f"{value:.2f}" for value in row)]
        for name, mean, spread, row in zip(
            outcomes["summaries"], outcomes["means"], outcomes["deviations"], outcomes["correlation_of_summaries"],
            strict=True,
        )
    ]  # fmt: skip
    return _table(
        ["summary", "mean", "deviation", *(f"correlation with {name}" for name in outcomes["summaries"])], rows
    )


def _counts(row: Plain) -> list[str]:
    return [f"{sum(row[verdict] for verdict in VERDICTS)}", *(f"{row[verdict]}" for verdict in VERDICTS)]


def _shares(values: Any) -> list[str]:
    return [f"{value:.1%}" for value in values]


def _quantiles(matrix: Sequence[Sequence[float]]) -> str:
    every = np.array(matrix)[np.triu_indices(len(matrix), 1)]
    return ", ".join(f"{np.quantile(every, q):.2f}" for q in (0.1, 0.5, 0.9))


def _table(header: Sequence[str], rows: Any) -> str:
    return tabulate([[*row] for row in rows], header, tablefmt="github", disable_numparse=True)
