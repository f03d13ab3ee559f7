"""`robustness compare`: which files are compared, and the result as text, Markdown, a comment, JSON or HTML."""

from __future__ import annotations

import html
import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from robustness.cards import selection
from robustness.cards.card import load
from robustness.cli import common
from robustness.errors import RobustnessError
from robustness.gate.cell_changes import ALPHA, CellChange, Change, Comparison
from robustness.gate.run_comparison import compare_runs, compare_with_baselines, is_baseline
from robustness.reporting import job_summary
from robustness.reporting.report_file import read_report
from robustness.reporting.report_types import plain
from robustness.util import atomic_write
from robustness.util.text import DASH, NAME, markdown, one_line, table
from robustness.workspace.store import Store

FORMAT = "pytest-robustness/comparison/1"
MARKER = "<!-- pytest-robustness: compare -->"
"""The first line of a comment for GitHub, by which the next run finds and replaces it."""

HEADER = ["cell", "first", "second", "difference", "[90 %]", "lost", "gained", "p", "change"]
ROWS, HIDDEN = 30, 200
"""Maximum rows that a comment shows at once, and under "more": GitHub takes 65,536 characters."""

ARROWS: dict[Change, str] = {
    "worse": "▼", "better": "▲", "equal": "=", "not tested": "?", "no numbers": DASH,
}  # fmt: skip
LEGEND = (
    f"▼ worse and ▲ better beyond chance, at an error rate of {ALPHA:.0%} over all cells (McNemar's test or the "
    "intervals, corrected by Holm's procedure); ↓ ↑ within chance; ? not tested."
)


def text(comparison: Comparison) -> Iterator[str]:
    """Return the lines for a terminal: both runs, a table per model, the verdict."""
    yield from (one_line(label) for label in (comparison.first, comparison.second))
    for weights in comparison.weights:
        yield ""
        yield one_line(f"{weights.model} on {weights.data}, n = {weights.images}")
        yield one_line(f"weights: {weights.before}, then {weights.after}")
        rows = [_row(cell) for cell in comparison.cells if cell.model == weights.model]
        if rows:
            yield from ("", *table(HEADER, rows))
    yield ""
    yield from (one_line(f"note: {note}") for note in _notes(comparison))
    yield comparison.summary


def _notes(comparison: Comparison) -> Iterator[str]:
    yield from comparison.notes
    if comparison.missing:
        yield f"in the first run only: {', '.join(comparison.missing)}"
    if comparison.added:
        yield f"in the second run only: {', '.join(comparison.added)}"


def _row(cell: CellChange) -> list[str]:
    """Return the entries of a cell, in the order of the header."""
    was, now = (DASH if value is None else f"{value:.4f}" for value in (cell.before, cell.after))
    name = one_line(cell.name, NAME)
    if cell.before is None or cell.after is None:
        moved = [one_line(cell.note, NAME) or DASH, "", "", "", ""]
    else:
        ends = "" if cell.low is None or cell.high is None else f"[{cell.low:+.4f}, {cell.high:+.4f}]"
        counts = ["" if count is None else str(count) for count in (cell.lost, cell.gained)]
        moved = [f"{cell.after - cell.before:+.4f}", ends, *counts, "" if cell.p is None else f"{cell.p:.3g}"]
    fell = f", claim {cell.claims[1]}" if cell.claim_fell else ""
    return [name, was, now, *moved, f"{_arrow(cell)} {cell.change}{fell}"]


def _arrow(cell: CellChange) -> str:
    """Return the sign of a change; down is worse, also for a loss that rose."""
    return ARROWS.get(cell.change) or ("↓" if cell.deficit > 0 else "↑" if cell.deficit < 0 else "≈")


def markdown_page(comparison: Comparison) -> Iterator[str]:
    """Return a Markdown page: the verdict, then every cell, the worst first."""
    yield from _head(comparison)
    yield from _markdown_table(comparison, list(comparison.cells))
    yield from _foot(comparison)


def github_comment(comparison: Comparison) -> Iterator[str]:
    """Return a comment for a pull request: what changed in a short table, the rest folded."""
    yield MARKER
    yield from _head(comparison)
    changed = [cell for cell in comparison.cells if cell.change not in ("equal", "no numbers")]
    shown = changed[:ROWS]
    rest = [cell for cell in comparison.cells if cell not in shown]
    if shown:
        yield from _markdown_table(comparison, shown)
    else:
        yield "No cell differs."
    yield ""
    if rest:
        yield from (f"<details><summary>{len(rest)} more cells</summary>", "")
        yield from _markdown_table(comparison, rest[:HIDDEN])
        yield ""
        if len(rest) > HIDDEN:
            yield from (f"And {len(rest) - HIDDEN} more: <code>robustness compare --format json</code> has all.", "")
        yield from ("</details>", "")
    yield from _foot(comparison)


def _head(comparison: Comparison) -> Iterator[str]:
    mark = "❌" if comparison.worse else "✅"
    yield from (f"### {mark} Robustness: {markdown(comparison.summary)}", "")
    for w in comparison.weights:
        yield (
            f"- **{markdown(w.model)}** on {markdown(w.data)}, n = {w.images}: weights {markdown(w.after)}, compared "
            f"with {markdown(w.before)}"
        )
    yield ""


def _foot(comparison: Comparison) -> Iterator[str]:
    yield ""
    yield from (f"- {markdown(note)}" for note in _notes(comparison))
    yield from ("", f"<sub>{LEGEND} First: {markdown(comparison.first)}. Second: {markdown(comparison.second)}.</sub>")


def _markdown_table(comparison: Comparison, cells: list[CellChange]) -> Iterator[str]:
    several = len(comparison.weights) > 1
    header = ["", *(["model"] if several else []), "cell", "before", "now", "Δ [90 %]", "images lost / gained", "note"]
    yield f"| {' | '.join(header)} |"
    yield f"| {' | '.join(['---'] * (len(header) - 5) + ['--:'] * 4 + ['---'])} |"
    for cell in cells:
        _, was, now, moved, ends, lost, gained, _, change = _row(cell)
        if cell.before is None or cell.after is None:
            moved, change = DASH, moved
        entries = [
            _arrow(cell), *([markdown(cell.model, NAME)] if several else []), markdown(cell.name, NAME), was,
            now, f"{moved} {ends}".strip(), f"{lost} / {gained}" if lost else "", markdown(change.lstrip("▼▲↓↑=?— ")),
        ]  # fmt: skip
        yield f"| {' | '.join(entries)} |"


def json_page(comparison: Comparison) -> Iterator[str]:
    """Return the comparison as JSON."""
    document = {
        "format": FORMAT,
        "verdict": "worse" if comparison.worse else "not worse",
        "summary": comparison.summary,
        "first": comparison.first,
        "second": comparison.second,
        "missing": comparison.missing,
        "added": comparison.added,
        "notes": comparison.notes,
        "weights": [weights._asdict() for weights in comparison.weights],
        "cells": [asdict(cell) for cell in comparison.cells],
    }
    yield json.dumps(plain(document), indent=1, ensure_ascii=False)


STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#222;"
    "background:#fff}table{border-collapse:collapse}td,th{padding:.2rem .7rem;border-bottom:1px solid #ddd;"
    "text-align:left;font-variant-numeric:tabular-nums}.worse td:last-child{color:#b00;font-weight:600}"
    ".better td:last-child{color:#060;font-weight:600}"
)


def html_page(comparison: Comparison) -> Iterator[str]:
    """Return a page of its own, without scripts, that loads nothing."""
    yield "<!doctype html>"
    yield '<html lang="en"><meta charset="utf-8">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f"<title>{_escaped(comparison.summary)}</title><style>{STYLE}</style>"
    yield f"<h1>Robustness: {'worse' if comparison.worse else 'not worse'}</h1><p>{_escaped(comparison.summary)}</p>"
    yield f"<p>First: {_escaped(comparison.first)}<br>Second: {_escaped(comparison.second)}</p>"
    for weights in comparison.weights:
        yield f"<h2>{_escaped(weights.model)} on {_escaped(weights.data)}, n = {weights.images}</h2>"
        yield f"<p>Weights: {_escaped(weights.before)}, then {_escaped(weights.after)}</p>"
        yield f"<table><tr>{''.join(f'<th>{_escaped(name)}</th>' for name in HEADER)}</tr>"
        for cell in comparison.cells:
            if cell.model == weights.model:
                entries = "".join(f"<td>{_escaped(entry)}</td>" for entry in _row(cell))
                yield f'<tr class="{cell.change.replace(" ", "-")}">{entries}</tr>'
        yield "</table>"
    yield from (f"<p>{_escaped(note)}</p>" for note in _notes(comparison))
    yield f"<p><small>{_escaped(LEGEND)}</small></p></html>"


def _escaped(entry: str) -> str:
    return html.escape(one_line(entry))


FORMS: dict[str, Callable[[Comparison], Iterator[str]]] = {
    "text": text, "md": markdown_page, "github": github_comment, "json": json_page, "html": html_page,
}  # fmt: skip
SUFFIXES = {".txt": "text", ".md": "md", ".json": "json", ".html": "html"}


def compare(options: Namespace) -> int:
    """Compare, print or write the result, and return 1 if anything is worse."""
    form = _form(options.format, options.output)
    result = _compared(options, common.store_of(options))
    lines = list(FORMS[form](result))
    if options.output is None:
        common.print_lines(lines)
    elif job_summary.is_job_summary(options.output):
        page = "\n".join([*lines, ""])
        common.print_lines([result.summary, job_summary.append(lambda: page, lambda: f"{markdown(result.summary)}\n")])
    else:
        atomic_write.replace(options.output, "\n".join([*lines, ""]).encode())
        common.print_lines([result.summary, f"written: {options.output}"])
    return common.RED if result.worse else 0


def _form(named: str | None, output: Path | None) -> str:
    """Return the format: the named one, else that of the file's suffix."""
    if named is not None or output is None:
        return named or "text"
    if job_summary.is_job_summary(output):
        return "github"
    if output.suffix.lower() not in SUFFIXES:
        allowed = ", ".join(SUFFIXES)
        raise RobustnessError(f"--output must end in one of {allowed}, or have a --format, got {output}")
    return SUFFIXES[output.suffix.lower()]


def _compared(options: Namespace, store: Store) -> Comparison:
    first, *others = options.runs
    if len(others) > 1:
        raise RobustnessError(f"compare takes one or two files, got {len(options.runs)}")
    if others and options.output is not None and options.output.resolve() in (p.resolve() for p in options.runs):
        raise RobustnessError(f"--output must be another file than those that are compared, got {options.output}")
    if others and is_baseline(others[0]):
        raise RobustnessError(f"name the baseline first: robustness compare {others[0]} {first}")
    if not others:
        return compare_with_baselines(dict(_baselines(options, first)), first, store)
    if is_baseline(first):
        return compare_with_baselines({None: first}, others[0], store)
    return compare_runs(first, others[0], store)


def _baselines(options: Namespace, run: Path) -> list[tuple[str | None, Path]]:
    """Return the models of a run whose cards have a baseline, and the baselines."""
    if is_baseline(run):
        raise RobustnessError(f"{run} is a baseline; name the report of a run too: robustness compare {run} run.json")
    names = [model.name for model in read_report(run).models]
    cards = {card.name: card for card in map(load, selection.card_files(common.card_folders(options)))}
    there = [(name, cards[name].baseline) for name in names if name in cards and cards[name].baseline.is_file()]
    if not there:
        raise RobustnessError(
            f"no model of {run} ({', '.join(names) or 'none'}) has a card with a baseline here; name cards with "
            "--card, or compare two files"
        )
    return list(there)
