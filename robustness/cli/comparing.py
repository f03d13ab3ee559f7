"""`robustness compare`: which files are compared, and where the result goes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from robustness.cards import selection
from robustness.cards.card import load
from robustness.cli import common, comparison
from robustness.errors import RobustnessError
from robustness.gate.compare import Comparison
from robustness.gate.compare_files import compare_runs, compare_with_baselines, is_baseline
from robustness.reporting import job_summary
from robustness.reporting.report_file import read_report
from robustness.util import atomic_write
from robustness.util.text import markdown
from robustness.workspace.store import Store


def compare(options: Namespace) -> int:
    """Compare, print or write the result, and return 1 if anything is worse."""
    form = _form(options.format, options.output)
    result = _compared(options, common.store_of(options))
    lines = list(comparison.FORMS[form](result))
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
    if output.suffix.lower() not in comparison.SUFFIXES:
        allowed = ", ".join(comparison.SUFFIXES)
        raise RobustnessError(f"--output must end in one of {allowed}, or have a --format, got {output}")
    return comparison.SUFFIXES[output.suffix.lower()]


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
