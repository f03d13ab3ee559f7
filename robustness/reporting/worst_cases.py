"""The worst case over a model's attacks, one table per norm, in every form of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from robustness.cards import Card
from robustness.metrics.critical_strength import worst_case
from robustness.metrics.evidence import OK, Evidence
from robustness.metrics.intervals import wilson
from robustness.perturbations.attack import Norm
from robustness.reporting.report import ModelReport
from robustness.reporting.sweep_report import NumberReport, WorstCaseCell, WorstCaseReport
from robustness.reporting.table_rows import NumberFormat
from robustness.util.text import NAME, one_line

NORMS: dict[Norm, str] = {"linf": "L∞", "l2": "L2"}


def worst_cases(card: Card, evidence: Mapping[str, Evidence | None]) -> Iterator[WorstCaseReport]:
    """Return the worst case of each norm that at least two attacks of the card share."""
    clean = evidence.get("clean")
    if clean is None or clean.status[0] != OK:
        return
    for norm in NORMS:
        attacks = {
            name: swept
            for name, swept in evidence.items()
            if name in card.file.sweeps and card.file.sweeps[name].unit == "default"
            and card.perturbation(name).ball == norm and (swept is None or swept.drawn is None)
        }  # fmt: skip
        if len(attacks) > 1 and any(swept is not None for swept in attacks.values()):
            yield _report(norm, attacks, clean)


def _report(norm: Norm, attacks: Mapping[str, Evidence | None], clean: Evidence) -> WorstCaseReport:
    case, cells = worst_case({name: swept for name, swept in attacks.items() if swept is not None}, clean), []
    absent = [f"{name}, whose evidence is absent" for name, swept in attacks.items() if swept is None]
    for strength in case.strengths:
        if absent:
            number = NumberReport(note=f"no numbers of {', '.join(absent)}")
        elif strength in case.missing:
            number = NumberReport(note=f"no numbers of {', '.join(case.missing[strength])}")
        else:
            robust, n = case.robust(strength), len(clean)
            low, high = wilson(robust, n)
            number = NumberReport(value=robust / n, low=low, high=high, method="wilson", n=n, successes=robust)
        cells.append(WorstCaseCell(strength=strength, accuracy=number))
    return WorstCaseReport(norm=norm, attacks=list(attacks), cells=cells)


def worst_case_title(case: WorstCaseReport) -> str:
    """Name the table of a worst case."""
    attacks = ", ".join(one_line(name, NAME) for name in case.attacks)
    return one_line(f"worst case per image over {len(case.attacks)} attacks in {NORMS[case.norm]}: {attacks}")


def worst_case_grid(
    model: ModelReport, case: WorstCaseReport, style: NumberFormat
) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: at each strength the worst case, and the attack with the lowest accuracy alone."""
    rows = []
    for cell in case.cells:
        alone = [
            (number, sweep.name)
            for sweep in model.sweeps if sweep.name in case.attacks
            for other in sweep.cells
            if float(other.strength) == cell.strength and (number := other.number("accuracy").value) is not None
        ]  # fmt: skip
        lowest, name = min(alone, default=(None, ""))
        best = "" if lowest is None else f"{style.number('accuracy', lowest, style.places)} {one_line(name, NAME)}"
        rows.append([f"{cell.strength:g}", style.entry("accuracy", cell.accuracy), best])
    return ["ε", "accuracy [95 %]", "lowest of one attack"], rows


def worst_case_notes(case: WorstCaseReport) -> Iterator[str]:
    """Return notes on a worst case's table."""
    yield "An image counts as misled if any of these attacks misleads it at this ε or a smaller one."
    for note in dict.fromkeys(cell.accuracy.note for cell in case.cells):
        if note:
            yield one_line(f"{note}.", 300)
