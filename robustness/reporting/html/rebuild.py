"""`robustness report`: the report of a finished run, from its JSON and the evidence that it names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robustness.cards import Card, selection
from robustness.cards import load as load_card
from robustness.errors import CardError, RobustnessError
from robustness.reporting import writers
from robustness.reporting.cells import sweep_report
from robustness.reporting.html import gallery
from robustness.reporting.report import RunReport
from robustness.reporting.report_file import ReportError, read_report
from robustness.reporting.sweep_report import SweepReport
from robustness.workspace.workspace import Workspace


def rebuild(paths: Sequence[Path], output: Path | None, workspace: Workspace, folders: Sequence[Path]) -> list[Path]:
    """
    Write each run's report again, beside its JSON or to ``output``, and return the paths.

    ReportError if a file is no report, contradicts its own counts or its evidence, or if several runs have one target.
    Nothing is swept or trained.
    """
    if output is not None and len(paths) > 1:
        raise ReportError(f"--output takes one run, got {len(paths)}; leave it out")
    targets = [output or path.with_suffix(".html") for path in paths]
    for path, target in zip(paths, targets, strict=True):
        writers.check(target)
        if target.resolve() == path.resolve():
            raise ReportError(f"--output must be another file than the run, got {target}")
    chosen, notices = _cards(folders)
    for path, target in zip(paths, targets, strict=True):
        report = read_report(path)
        report.notices += notices
        _check_against_evidence(report, workspace, {card.name: card for card in chosen}, path)
        gallery.add_gallery(report, workspace, chosen)
        writers.write(report, target)
    return targets


def _cards(folders: Sequence[Path]) -> tuple[list[Card], list[str]]:
    """Read the cards; an unreadable one causes a notice, and only its own model lacks pictures."""
    cards, notices = [], []
    for file in selection.card_files(folders):
        try:
            cards.append(load_card(file))
        except CardError as error:
            notices.append(str(error))
    return cards, notices


def _check_against_evidence(report: RunReport, workspace: Workspace, known: dict[str, Card], path: Path) -> None:
    """Measure the stored evidence again: if numbers differ from the report's, the report was edited."""
    for model in report.models:
        card = known.get(model.name)
        for sweep in model.sweeps:
            if card is None or sweep.evidence is None:
                continue
            try:
                evidence = gallery.verified_evidence(workspace, card, sweep)
            except RobustnessError:
                continue  # the pictures' notice reports it
            again = sweep_report(card, sweep.name, evidence, {})
            _compare_cells(sweep, again, f"{path}: {model.name} under {sweep.name}")
            # Reports of the first versions lack them.
            sweep.source = sweep.source or again.source
            sweep.confusion = sweep.confusion or again.confusion
            sweep.gallery = sweep.gallery or again.gallery


def _compare_cells(sweep: SweepReport, again: SweepReport, where: str) -> None:
    measured = {cell.strength: cell for cell in again.cells}
    for cell in sweep.cells:
        if (other := measured.get(cell.strength)) is None:
            continue
        if cell.attractors is None:
            cell.attractors = other.attractors
        for metric, numbers in cell.metrics.items():
            expected = other.metrics.get(metric)
            if expected is not None and expected.value != numbers.value:
                raise ReportError(
                    f"{where}: {metric} at {cell.strength} is {numbers.value}, but {expected.value} by its evidence: "
                    "the report was edited or written by another version; run the suites again"
                )
