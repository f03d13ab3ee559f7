"""The report as a Markdown page and as LaTeX tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from robustness.reporting.gate_rows import caught_grid, caught_sentences, gate_grid, gate_sentences, waiver_sentences
from robustness.reporting.outcomes import red_claims, with_it
from robustness.reporting.overview import RELEASE, model_names, release_rows
from robustness.reporting.report import ModelReport, RunReport
from robustness.reporting.table_rows import (
    MARKS,
    PAGE,
    PRINT,
    has_numbers,
    sweep_table,
    sweeps_with_table,
    verdict_label,
)
from robustness.reporting.terminal import other_claims, summary
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
from robustness.util.text import NAME, latex, markdown

MESSAGE = 500
"""Maximum characters of a failure's message on a page; the JSON has the full message."""

MATH = {
    "≥": r"\ensuremath{\geq}",
    "≤": r"\ensuremath{\leq}",
    "ε": r"\ensuremath{\varepsilon}",
    "·": r"\ensuremath{\cdot}",
    "∞": r"\ensuremath{\infty}",
}
"""Characters in `strength_name` or tables for which LaTeX needs a command."""


def markdown_page(report: RunReport) -> str:
    """Write the whole report as one Markdown page."""
    return "\n".join(_page(report)).rstrip() + "\n"


def _page(report: RunReport) -> Iterator[str]:
    run = report.run
    yield from (f"# Robustness report: {report.decision}: {markdown(model_names(report))}", "")
    yield from (f"- {markdown(line)}" for line in summary(report, limit=None))
    yield ""
    versions = [f"{name} {version}" for name, version in run.versions.items()]
    keys = ("started", "commit", "ci", "seconds", "device", "seed", "workers")
    about = [f"{key} {value}" for key in keys if (value := getattr(run, key)) is not None]
    yield from (f"Run: {markdown(', '.join(about + versions))}. Format: {report.format}.", "")
    if report.models:
        yield from (*_markdown_table(RELEASE, [[markdown(entry) for entry in row] for row in release_rows(report)]), "")
    for model in report.models:
        yield from _markdown_model(model)


def _markdown_model(model: ModelReport) -> Iterator[str]:
    yield from (f"## {markdown(model.name)}", "")
    about = [
        model.description,
        f"paper {model.paper}" if model.paper else "",
        f"measured on {data_summary(model)}",
    ]
    yield from (f"- {markdown(sentence)}" for sentence in about if sentence)
    for name, value in (("weights", model.weights), ("test images", model.data.fingerprint)):
        if value:
            yield f"- SHA-256 of the {name}: `{markdown(value)}`"
    yield from (f"- **{markdown(sentence)}**" for sentence in (*doubts(model), *standing(model)))
    yield from (f"- {markdown(sentence)}" for sentence in sweeps_not_run(model))
    yield ""
    for sweep in sweeps_with_table(model):
        if not has_numbers(sweep):
            yield from (f"- {markdown(explain_missing(model, sweep))}", "")
            continue
        yield from (f"### {markdown(model.name)}: {markdown(title(sweep))}", "")
        header, rows = sweep_table(model, sweep, PAGE)
        yield from _markdown_table(header, [[markdown(name), *entries] for name, *entries in rows])
        yield from (
            "",
            f"*{markdown(model.name)} on {markdown(data_summary(model))}; 95 % intervals in brackets.*",
            "",
        )
        yield from (f"- {markdown(sentence)}" for sentence in table_notes(model, sweep))
        yield ""
    for case in model.worst_cases:
        yield from (f"### {markdown(model.name)}: {markdown(worst_case_title(case))}", "")
        yield from _markdown_table(*worst_case_grid(model, case, PAGE))
        yield ""
        yield from (f"- {markdown(sentence)}" for sentence in worst_case_notes(case))
        yield ""
    yield from _markdown_others(model)
    if model.suggested:
        yield from (f"### {markdown(model.name)}: suggested claims", "", "For its card, from these measurements:", "")
        yield from (f"    {line}".rstrip() for line in model.suggested.splitlines())
        yield ""
    yield from _markdown_gate(model)
    yield from _markdown_caught(model)
    failures = red_claims(model)
    failures += [(claim, []) for claim in model.claims if claim.outcome == "waived"]
    if failures:
        yield from (f"### {markdown(model.name)}: failed claims", "")
        for claim, fallen in failures:
            sentence = markdown(claim.message, MESSAGE)
            yield f"- **{MARKS[claim.outcome]}** {markdown(claim.id)}: {sentence}"
            if fallen:
                yield f"    - {markdown(with_it(model, fallen))}"
        yield ""


def _markdown_gate(model: ModelReport) -> Iterator[str]:
    sentences = [*gate_sentences(model), *waiver_sentences(model)]
    if not sentences:
        return
    yield from (f"### {markdown(model.name)}: gate and waivers", "")
    header, rows = gate_grid(model, every=True)
    if rows:
        yield from _markdown_table(header, [[markdown(entry) for entry in row] for row in rows])
        yield ""
    yield from (f"- {markdown(sentence)}" for sentence in sentences)
    yield ""


def _markdown_caught(model: ModelReport) -> Iterator[str]:
    header, rows = caught_grid(model)
    if rows:
        yield from (f"### {markdown(model.name)}: detected damage", "")
        yield from _markdown_table(header, [[markdown(entry) for entry in row] for row in rows])
        yield from ("", *(f"{markdown(sentence)}" for sentence in caught_sentences(model)), "")


def _markdown_others(model: ModelReport) -> Iterator[str]:
    rows = [
        [
            *(markdown(name, NAME) for name in (sweep, at, metric)),
            PAGE.entry(metric, cell.metrics.get(metric), cell.claims[metric]),
            verdict_label(cell, metric),
        ]
        for sweep, at, metric, cell in other_claims(model)
    ]
    if rows:
        yield from (f"### {markdown(model.name)}: claims on other metrics", "")
        yield from _markdown_table(["sweep", "strength", "metric", "value", "verdict"], rows)
        yield from (
            "",
            f"*{markdown(model.name)} on {markdown(data_summary(model))}; 95 % intervals in brackets.*",
            "",
        )


def _markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    from tabulate import tabulate

    heads = [name.removesuffix(" [95 %]") for name in header]  # here all metrics have intervals
    return str(tabulate(rows, heads, tablefmt="pipe", disable_numparse=True)).splitlines()


def latex_tables(report: RunReport) -> str:
    r"""Write one table per sweep, for a paper's \input; needs the package booktabs.

    >>> latex_tables(RunReport.model_construct(verdict="passed", models=[]))
    '% Robustness report: passed. Format: pytest-robustness/report/2. Needs \\usepackage{booktabs}.\n'
    """
    head = f"% Robustness report: {report.verdict}. Format: {report.format}. Needs \\usepackage{{booktabs}}.\n"
    tables = [table for model in report.models for table in _latex_model(model)]
    return "\n".join([head, *tables])


def _latex_model(model: ModelReport) -> Iterator[str]:
    for sweep in sweeps_with_table(model):
        if has_numbers(sweep):
            notes = [f"{model.name} under {title(sweep)}; {data_summary(model)}.", *table_notes(model, sweep)]
            yield _latex_table(sweep_table(model, sweep, PRINT), [*notes, *doubts(model)], f"{model.name} {sweep.name}")
    for case in model.worst_cases:
        notes = [f"{model.name}: {worst_case_title(case)}; {data_summary(model)}.", *worst_case_notes(case)]
        name = f"{model.name} worst case {case.norm}"
        yield _latex_table(worst_case_grid(model, case, PRINT), [*notes, *doubts(model)], name)


def _latex_table(grid: tuple[list[str], list[list[str]]], notes: list[str], name: str) -> str:
    from tabulate import tabulate

    header, rows = grid
    body = tabulate(rows, header, tablefmt="latex_booktabs", disable_numparse=True)
    label = "-".join(re.findall("[a-z0-9]+", name.lower()))
    text = "\n".join(
        [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{latex(' '.join(notes))}}}",
            f"\\label{{tab:{label}}}",
            body,
            "\\end{table}",
            "",
        ]
    )
    return "".join(MATH.get(character, character) for character in text)
