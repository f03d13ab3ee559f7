"""The report eyes-parseval: its measurements, tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reports import writing
from reports.comparing import compare
from reports.eyes_parseval import protocol
from reports.eyes_parseval.criteria import criteria, losses, own_sweep, published_sweep
from reports.eyes_parseval.protocol import DENSE, EXAMPLES, FIGURES, NAMES, NATURAL, SCALES, SYSTEMS, augmented
from reports.figures import draw_strips, line, pair, strip
from reports.paper import Paper, Result
from reports.rows import Measured, mean
from reports.running import Run, evidence_rows, images_record
from reports.verdicts import Criterion, by_outcome
from reports.writing import number
from robustness.cards import Card
from robustness.metrics import roc_auc
from robustness.metrics.evidence import OK, Evidence

METRICS = ("accuracy", "precision", "recall", "roc_auc")
# False-positive rates at which curves are stored: they are drawn on a logarithmic axis.
POINTS = np.logspace(-4, 0, 41)
# Sweep and strength of the cells that have a curve.
CURVES = {("clean", "0"), ("fgsm-snr", "33"), ("twin-snr", "33")}
# Systems whose images are shown, of the first fold.
PICTURED = ("wrn", "parseval", "wrn-adv", "parseval-adv")


class Eyes(Paper):
    """Wide residual networks, Parseval networks and a CNN on eye crops, with and without adversarial training."""

    name = "eyes-parseval"
    about = "Train and sweep ten networks per fold and those of approach 1, write tables, figures and verdicts."
    protocol: ClassVar[Any] = protocol
    usual = ("eyes", "short")

    def units(self, run: Run) -> Sequence[int]:
        return range(run.scale.folds)

    def header(self, run: Run, unit: int) -> dict[str, Any]:
        scale = run.scale
        return {
            "seeds": [run.workspace.seed],
            "about": protocol.SOURCES[run.source].about,
            "folds_of_the_protocol": scale.folds,
            "plan": {"epochs": scale.epochs, "period": scale.period, "k": scale.k, "depth": scale.depth},
        }

    def rows(self, run: Run, name: str, card: Card, evidence: Mapping[str, Evidence]) -> Iterator[dict[str, Any]]:
        for sweep, part in evidence.items():
            yield from evidence_rows({**_fields(name), "sweep": sweep}, part, METRICS)

    def images(self, run: Run, unit: Any, cards: Mapping[str, Card]) -> dict[str, Any]:
        return {name.split("-")[1]: images_record(run.workspace.images(card)) for name, card in cards.items()}

    def extras(self, run: Run, unit: Any, cards: Mapping[str, Card]) -> dict[str, Any]:
        fold = next(iter(cards)).rpartition("-")[0]
        evidence = run.workspace.evidence
        curves = [
            curve
            for name, card in cards.items()
            for sweep in ("clean", *card.file.sweeps) if sweep in dict(CURVES)
            for curve in _curves({**_fields(name), "sweep": sweep}, evidence(card, sweep))
        ]  # fmt: skip
        strips = [strip(run.workspace, cards[f"{fold}-{system}"], "fgsm-snr", system) for system in PICTURED]
        return {"curves": curves, "strips": strips}

    def criteria(self, result: Result) -> Iterator[Criterion]:
        return criteria(Measured.of(result))

    def headline(self, result: Result) -> tuple[str, str, str]:
        measured, printed, system = Measured.of(result), self.printed["table_8"]["wrn-adv"], "wrn-adv"
        accuracies = measured.mean(system, "clean"), measured.mean(system, published_sweep(system), strength="33")
        return (
            f"accuracy of {NAMES[system]}, clean and at 33 dB", f"{printed[0]:.3f}, {printed[4]:.3f}",
            ", ".join(number(value, 3) for value in accuracies),
        )  # fmt: skip

    @property
    def printed(self) -> Mapping[str, Any]:
        """What the report prints."""
        return writing.printed(self.package)

    def context(self, result: Result) -> dict[str, Any]:
        m, full = Measured.of(result), SCALES["full"]
        folds = {
            (epsilon, share): max(len(m.folds(augmented(kind, epsilon, share), "clean")) for kind in EXAMPLES)
            for epsilon, share in product(full.epsilons, full.shares)
        }
        systems = [*SYSTEMS, *(system for system in DENSE if m.folds(system, "clean"))]
        return {
            "m": m, "source": result["source"], "figures": FIGURES, "protocol": protocol, "printed": self.printed,
            "sizes": sorted({record["n"] for record in result["provenance"]["data"].values()}),
            "crops": sum(record["n"] for record in result["provenance"]["data"].values()),
            "systems": systems, "losses": losses, "mean": mean, "compare": compare, "published_sweep": published_sweep,
            "decided": by_outcome(self.verdicts(result)), "augmented": augmented,
            "natural": {kind: m.strengths(kind) for kind in NATURAL if m.strengths(kind)},
            "stored": [cell for cell, count in folds.items() if count], "stored_folds": max(folds.values()),
            "approach_1": {
                (float(e), share): row for e, rows in self.printed["approach_1"].items() for share, *row in rows
            },
        }  # fmt: skip

    def draw(self, result: Result, folder: Path) -> list[Path]:
        snr, roc, strips = (folder / self.figure(result, kind) for kind in FIGURES)
        for lines, file in ((_ratios, snr), (_roc, roc)):
            with pair(file, (10, 3.8), self.name) as (left, right):
                lines(left, result, published_sweep)
                lines(right, result, own_sweep)
                left.set_title("examples made on whom the report made them")
                right.set_title("examples made on the system itself")
        return [snr, roc, draw_strips(result["strips"], strips, "{} dB")]


def _fields(name: str) -> dict[str, Any]:
    source, fold, system = name.split("-", 2)
    return {"source": source, "fold": int(fold), "system": system, "images": "fold"}


def _curves(fields: Mapping[str, Any], evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Return the micro-averaged ROC curve of some cells, at rates that all share."""
    for row, strength in enumerate(evidence.strengths):
        if (fields["sweep"], strength) in CURVES and evidence.status[row] == OK and evidence.probabilities is not None:
            true = np.eye(len(evidence.classes), dtype=bool)[evidence.labels]
            curve = roc_auc.roc_curve(true.ravel(), evidence.probabilities[row].ravel())
            rates = np.interp(POINTS, curve.false_positive_rates, curve.true_positive_rates)
            yield {**fields, "strength": strength, "rates": [round(float(rate), 4) for rate in rates]}


def _ratios(axes: Any, result: Result, sweep: Any) -> None:
    m = Measured.of(result)
    for number_, system in enumerate(SYSTEMS):
        ratios = m.strengths(sweep(system))
        points = [(float(ratio), m.folds(system, sweep(system), strength=ratio)) for ratio in ratios]
        line(axes, points, system, number_)
    axes.set(xlabel="SNR in dB", ylabel="accuracy")


def _roc(axes: Any, result: Result, sweep: Any) -> None:
    for number_, system in enumerate(SYSTEMS):
        cell = (system, sweep(system), "33")
        rates = [c["rates"] for c in result["curves"] if (c["system"], c["sweep"], c["strength"]) == cell]
        if rates:
            axes.plot(POINTS, np.mean(rates, axis=0), label=system, color=f"C{number_}", linewidth=1.2)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", xscale="log")


PAPER = Eyes()
