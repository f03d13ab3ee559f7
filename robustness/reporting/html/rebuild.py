"""`robustness report`: the report of a run that is over, from its JSON and the evidence that this names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustness.cards import Card, selection
from robustness.cards import load as load_card
from robustness.errors import CardError, RobustnessError
from robustness.reporting import consistency, writers
from robustness.reporting.cells import sweep_entry
from robustness.reporting.html import gallery
from robustness.reporting.json_types import plain
from robustness.reporting.report import FORMAT
from robustness.util import paths as files
from robustness.workspace.workspace import Workspace

LATER: dict[str, Any] = {"source": None, "confusion": None, "gallery": ()}
"""Keys of a sweep that reports of the first versions do not have."""


def rebuild(paths: Sequence[Path], output: Path | None, harness: Workspace, folders: Sequence[Path]) -> list[Path]:
    """
    Write each run's report anew, beside its JSON or to ``output``, and give where.

    ReportError where a file is no report, says what its own counts or its evidence contradict, or where several runs
    are to go to one file. Nothing is swept or trained.
    """
    if output is not None and len(paths) > 1:
        raise writers.ReportError(f"--output must be given with one run, got {len(paths)} runs; leave it out")
    targets = [output or path.with_suffix(".html") for path in paths]
    for path, target in zip(paths, targets, strict=True):
        writers.check(target)
        if target.resolve() == path.resolve():
            raise writers.ReportError(f"--output must be another file than the run, got {target}")
    chosen, notices = _cards(folders)
    for path, target in zip(paths, targets, strict=True):
        document = read(path)
        document["notices"] += notices
        _check_against_evidence(document, harness, {card.name: card for card in chosen}, path)
        gallery.add_gallery(document, harness, chosen)
        _write(document, target, path)
    return targets


def read(path: Path) -> dict[str, Any]:
    """Read a run's JSON; ReportError where it is torn, of another format, or was edited."""
    try:
        document = files.parse_json(files.read_bytes(path))
    except (OSError, ValueError) as error:
        raise writers.ReportError(f"{path}: not a readable JSON report: {error}") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise writers.ReportError(f"{path}: format must be {FORMAT}, got {found!r}; give a file that a run has written")
    try:
        wrong = list(consistency.contradictions(document))
        document.pop("checksum", None)
        for model in document["models"]:
            model.setdefault("factory", None)
            model.setdefault("known_doubts", [])
            model.setdefault("open_doubts", [])
            model.setdefault("caught", None)
            for sweep in model["sweeps"]:
                for key, value in LATER.items():
                    sweep.setdefault(key, list(value) if isinstance(value, tuple) else value)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise writers.ReportError(f"{path}: not a whole report (edited?): {error!r}") from error
    if wrong:
        raise writers.ReportError(f"{path}: edited, or damaged: {'; '.join(wrong[:5])}; run the suites again")
    return dict(document)


def _cards(folders: Sequence[Path]) -> tuple[list[Card], list[str]]:
    """Read what cards there are; one that cannot be read is told, and missed by its own model's pictures alone."""
    found, notices = [], []
    for file in selection.card_files(folders):
        try:
            found.append(load_card(file))
        except CardError as error:
            notices.append(str(error))
    return found, notices


def _check_against_evidence(document: dict[str, Any], harness: Workspace, known: dict[str, Card], path: Path) -> None:
    """Measure again what evidence there is: numbers that are not the report's are an edited report."""
    for model in document["models"]:
        card = known.get(model["name"])
        for sweep in model["sweeps"]:
            if card is None or sweep["evidence"] is None:
                continue
            try:
                evidence = gallery.verified_evidence(harness, card, sweep)
            except RobustnessError:
                continue  # the pictures will say so
            again = plain(sweep_entry(card, sweep["name"], evidence, {}))
            _compare(sweep, again, f"{path}: {model['name']} under {sweep['name']}")
            for key in LATER:
                sweep[key] = sweep[key] or again[key]
            for cell, measured in zip(sweep["cells"], again["cells"], strict=True):
                cell.setdefault("attractors", measured["attractors"])


def _compare(sweep: dict[str, Any], again: dict[str, Any], where: str) -> None:
    measured = {cell["strength"]: cell["metrics"] for cell in again["cells"]}
    for cell in sweep["cells"]:
        for metric, numbers in cell["metrics"].items():
            due = measured.get(cell["strength"], {}).get(metric)
            if due is not None and due["value"] != numbers["value"]:
                raise writers.ReportError(
                    f"{where}: {metric} at {cell['strength']} is {numbers['value']}, but {due['value']} by its "
                    "evidence: the report was edited, or made by another version; run the suites again"
                )


def _write(document: dict[str, Any], target: Path, path: Path) -> None:
    try:
        writers.write(document, target)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise writers.ReportError(f"{path}: not a whole report (edited?): {error!r}") from error
