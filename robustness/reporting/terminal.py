"""The report in a terminal: a line per model, a table per sweep that is red, and a summary of a few lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

from robustness.reporting import advice
from robustness.reporting.gate_rows import gate_counts, gate_grid, gate_sentences, waiver_sentences
from robustness.reporting.outcomes import closest, fallen, red_claims, within_noise
from robustness.reporting.overview import is_quiet, is_red, overview
from robustness.reporting.report import ModelReport, RunReport
from robustness.reporting.report_types import OUTCOMES, RED
from robustness.reporting.run_info import Counts, Skip
from robustness.reporting.sweep_report import CellReport, SweepReport
from robustness.reporting.table_rows import (
    COLUMNS,
    MARKS,
    TERMINAL,
    has_numbers,
    sweep_table,
    sweeps_with_table,
    verdict_label,
)
from robustness.reporting.text import (
    data_summary,
    doubts,
    explain_missing,
    standing,
    sweeps_not_run,
    table_notes,
    title,
)
from robustness.reporting.worst_cases import worst_case_grid, worst_case_notes, worst_case_title
from robustness.util.text import NAME, one_line, pluralize, table

REMARKS = 4
"""Maximum notes below a table; the report files have all."""

REDS = 12
"""Maximum cells of a gate that did not pass, in a terminal."""

SUMMARY = 6
"""Maximum lines of a summary."""


def terminal(report: RunReport, width: int = 100, *, verbose: bool = False) -> Iterator[str]:
    """
    Return the lines that show a run in a terminal, none wider than it.

    One line per model, then the tables of what is red or was measured without claims; all tables if ``verbose``.
    """
    lines = [*overview(report), ""] if report.models else []
    loud = [model for model in report.models if verbose or not is_quiet(model)]
    for model in loud:
        lines += _model(model, width, verbose=verbose)
    if len(loud) < len(report.models):
        lines += ["Tables of what passed: with -v, and in the report files.", ""]
    return (line if len(line) <= width else line[: width - 1] + "…" for line in lines)


def _model(model: ModelReport, width: int, *, verbose: bool) -> Iterator[str]:
    yield one_line(f"{model.name} on {data_summary(model)}")
    verbose = verbose or not model.claims
    for sweep in sweeps_with_table(model) if verbose else _red_sweeps(model):
        yield ""
        if not has_numbers(sweep):
            yield from _wrapped(explain_missing(model, sweep), width)
            continue
        lines, without = _fitted(model, sweep, width)
        yield from _wrapped(title(sweep), width)
        yield from lines
        notes = list(table_notes(model, sweep))
        if without:
            notes.append(f"Columns that do not fit: {', '.join(COLUMNS[metric] for metric in without)}.")
        if len(notes) > REMARKS:
            notes[REMARKS - 1 :] = [f"And {pluralize(len(notes) - REMARKS + 1, 'note')} more, in the report files."]
        for sentence in notes:
            yield from _wrapped(sentence, width)
    if verbose:
        yield from _worst_cases(model, width)
    yield from _others(model, verbose=verbose)
    header, rows = gate_grid(model, every=False)
    if rows:
        yield from ("", f"gate of {one_line(model.name, NAME)}", *table(header, rows[:REDS]))
    if len(rows) > REDS:
        yield f"And {len(rows) - REDS} more, in the report files."
    for sentence in (
        *fallen(model), *gate_sentences(model), *waiver_sentences(model), *doubts(model), *sweeps_not_run(model)
    ):  # fmt: skip
        yield ""
        yield from _wrapped(sentence, width)
    yield ""


def _red_sweeps(model: ModelReport) -> list[SweepReport]:
    """Return the sweeps whose table shows everything red: a row of each is the clean pass, which may be red alone."""
    red = [sweep for sweep in model.sweeps if is_red(sweep)]
    return [sweep for sweep in red if sweep.name != "clean"] or red


def _worst_cases(model: ModelReport, width: int) -> Iterator[str]:
    for case in model.worst_cases:
        yield from ("", *_wrapped(worst_case_title(case), width))
        yield from table(*worst_case_grid(model, case, TERMINAL))
        for sentence in worst_case_notes(case):
            yield from _wrapped(sentence, width)


def _fitted(model: ModelReport, sweep: SweepReport, width: int) -> tuple[list[str], list[str]]:
    """Leave out columns until the table fits, first those without claims; return them."""
    claimed = {metric for cell in sweep.cells for metric in cell.claims}
    order = sorted(("loss", "f1", "snr", "recall", "precision"), key=lambda metric: metric in claimed)
    for left_out in range(len(order) + 1):
        lines = table(*sweep_table(model, sweep, TERMINAL, order[:left_out]))
        if max(map(len, lines)) <= width:
            break
    return lines, order[:left_out]


def other_claims(model: ModelReport) -> Iterator[tuple[str, str, str, CellReport]]:
    """Return sweep, strength, metric and cell of every claim on a metric without a column."""
    for sweep in model.sweeps:
        for cell in sweep.cells:
            for metric in cell.claims:
                if metric not in COLUMNS:
                    yield sweep.name, cell.strength, metric, cell


def _others(model: ModelReport, *, verbose: bool) -> Iterator[str]:
    """Count the claims without a column, and list those that failed; if ``verbose``, all that did not pass."""
    rest = [each for each in other_claims(model) if each[3].claims[each[2]].threshold is not None]
    below = {claim.id for _, others in red_claims(model) for claim in others}
    apart = [each for each in rest if ":".join((model.name, *each[:3])) not in below]
    marks = [verdict_label(cell, metric) for _, _, metric, cell in apart]
    listed = {MARKS[fate] for fate in MARKS if fate in RED or (verbose and fate != "passed")}
    rows = [
        [
            one_line(f"{sweep} {strength}", NAME),
            one_line(metric, NAME),
            TERMINAL.entry(metric, cell.metrics.get(metric), cell.claims[metric], interval=True),
            mark,
        ]
        for (sweep, strength, metric, cell), mark in zip(apart, marks, strict=True)
        if mark in listed
    ]
    if not rest or not (rows or verbose):
        return
    passed, fell = marks.count(MARKS["passed"]), len(rest) - len(apart)
    beside = f", {fell} fell with another claim" if fell else ""
    yield ""
    end = (", the others:" if verbose else ", these failed:") if rows else "."
    yield f"{pluralize(len(rest), 'claim')} on other metrics: {passed} passed{beside}{end}"
    if rows:
        yield from table(["at", "metric", "value [95 %]", "verdict"], rows)


def _wrapped(sentence: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(sentence, width, subsequent_indent="  ", break_on_hyphens=False)


def summary(report: RunReport, limit: int | None = SUMMARY) -> Iterator[str]:
    """Return a few lines: the verdict, what is missing and how to get it, notices, and the next step."""
    counts, problems = report.counts, report.run.problems
    yield _headline(report.verdict, counts)
    partial = not report.run.complete
    if partial:
        yield "This run was interrupted, so the report is partial."
    if problems:
        yield f"failed: {one_line('; '.join(problems), 400)}"
    near = list(within_noise(report))
    yield from near
    last = list(_next_step(report))
    lines = [*_skips(counts.skips), *(f"notice: {notice}" for notice in report.notices)]
    room = len(lines) if limit is None else max(limit - 1 - partial - bool(problems) - len(near) - len(last), 1)
    if len(lines) > room:
        lines[room - 1 :] = [f"and {len(lines) - room + 1} more skips and notices, in the report files"]
    yield from (one_line(line, 400) for line in lines)
    yield from last


def _skips(skips: list[Skip]) -> Iterator[str]:
    """Return a line per reason, with the models whose claims were skipped for it."""
    reasons: dict[str, list[Skip]] = {}
    for skip in skips:
        reasons.setdefault(skip.reason, []).append(skip)
    for reason, group in reasons.items():
        claims, models = sum(skip.claims for skip in group), list(dict.fromkeys(skip.model for skip in group))
        yield f"skipped: {pluralize(claims, 'claim')} of {', '.join(models)}: {reason}"


def _headline(verdict: str, counts: Counts) -> str:
    if verdict == "measured":
        sweeps, models = pluralize(counts.measured, "sweep"), pluralize(len(counts.models), "model")
        return f"measured: {sweeps} on {models}; nothing was claimed"
    total = f"{pluralize(counts.claims, 'claim')} on {pluralize(len(counts.models), 'model')}"
    gates = _and(gate_counts(counts.gates))
    if counts.measured:
        gates += f"; {pluralize(counts.measured, 'sweep')} measured without claims"
    if verdict == "passed" and counts.passed == counts.claims:
        return f"passed: {'all ' * (counts.claims > 1)}{total}{gates}"
    fates = ", ".join(f"{counts.of(fate):,} {fate}" for fate in (*OUTCOMES, "not selected") if counts.of(fate))
    return f"{'FAILED' if verdict == 'failed' else verdict}: {total}{': ' if fates else ''}{fates}{gates}"


def _and(sentence: str) -> str:
    return f"; {sentence}" if sentence else ""


def suggested_claims(report: RunReport) -> Iterator[str]:
    """Return the claims that measured sweeps suggest, as TOML to paste into a card; or the doubts that forbid any."""
    for model in report.models:
        yield from standing(model)
        if model.suggested:
            yield ""
            yield one_line(
                f"Suggested claims for the card of {model.name} (0.01 below the lower ends of the intervals):"
            )
            yield ""
            yield from (one_line(line) for line in model.suggested.splitlines())


def colour(line: str) -> dict[str, bool]:
    """
    Return pytest's markup for a line: red for what failed, yellow for what is open, green for a run that passed.

    >>> colour("digits-mlp  60  3 FAILED, 57 ok"), colour("passed: all 58 claims on 1 model")
    ({'red': True}, {'green': True})
    """
    if re.search(r"\b(FAILED|ERROR|vacuous|not run)\b|^failed: ", line):
        return {"red": True}
    if re.search(r"^partial: |^skipped: |\b\d+ (skipped|waived)\b", line):
        return {"yellow": True}
    return {"green": True} if line.startswith("passed: ") else {}


def _next_step(report: RunReport) -> Iterator[str]:
    """Return the next step; if all claims passed, the claim that came closest to failing."""
    if steps := list(advice.steps(report)):
        yield f"next: {'; '.join(steps)}"
    elif report.verdict == "passed" and (sentence := closest(report)):
        yield sentence
