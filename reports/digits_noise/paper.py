"""The paper digits-noise: its measurements, tables and figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reports.digits_noise import numbers, protocol, published
from reports.digits_noise.criteria import criteria
from reports.digits_noise.protocol import FIGURES, METRICS, NAMES, PAPER_READING, READINGS
from reports.figures import draw_strips, figure, line, strip
from reports.paper import Paper, Result
from reports.running import Run
from reports.verdicts import Criterion, count_outcomes, judge, verdict_table
from robustness.cards import Card
from robustness.errors import SweepError
from robustness.metrics.confusion import confusion_matrix
from robustness.metrics.evidence import OK, Evidence
from robustness.perturbations import GaussianNoise

PICTURED = (0, 2, 5, 7)


class Digits(Paper):
    """A perceptron on MNIST digits under additive normal noise."""

    name = "digits-noise"
    about = "Train the paper's classifier per seed, initial weights and epochs, sweep the noise, write the tables."
    unit = "seed"
    version = 3
    protocol: ClassVar[Any] = protocol
    usual = ("mnist", "full")

    def units(self, run: Run) -> Sequence[int]:
        return range(run.scale.seeds)

    def header(self, run: Run, unit: int) -> dict[str, Any]:
        return {"seeds": [unit], "epochs": list(run.scale.epochs)}

    def images(self, run: Run, unit: Any, cards: Mapping[str, Card]) -> dict[str, Any]:
        labels = run.workspace.images(next(iter(cards.values()))).labels
        record = super().images(run, unit, cards)
        record["tested on"]["per_class"] = np.bincount(labels).tolist()
        return record

    def rows(self, run: Run, name: str, card: Card, evidence: Mapping[str, Evidence]) -> Iterator[dict[str, Any]]:
        source, seed, system = name.split("-", 2)
        for sweep, part in evidence.items():
            for strength, status, predictions in zip(part.strengths, part.status, part.predictions, strict=True):
                if status != OK:
                    raise SweepError(f"{card.name}:{sweep}:{strength} has no numbers: {status}")
                matrix = confusion_matrix(part.labels, predictions, len(part.classes)).tolist()
                yield {
                    "source": source, "fold": int(seed), "system": system, "sweep": sweep, "strength": strength,
                    "matrix": matrix,
                }  # fmt: skip

    def extras(self, run: Run, unit: Any, cards: Mapping[str, Card]) -> dict[str, Any]:
        name, card = next(iter(cards.items()))
        labels = run.workspace.images(card).labels
        rows = {f"digit {digit}": int(np.flatnonzero(labels == digit)[0]) for digit in PICTURED}
        pictured = rows.items() if name.split("-")[1] == "0" else ()
        return {
            "pictures": [
                strip(run.workspace, card, PAPER_READING, title, row, changes=False) for title, row in pictured
            ]
        }

    def results(self, output: Path) -> list[dict[str, Any]]:
        return [{**result, "tables": numbers.derive(result)} for result in super().results(output)]

    def criteria(self, result: Result, initial: str = "keras") -> Iterator[Criterion]:
        lacking = protocol.SCALES[result["scale"]].seeds - len(result["seeds"])
        missing = [f"{lacking} seeds"] if lacking > 0 else []
        for criterion in criteria(result["tables"]["initial"][initial]):
            yield criterion._replace(testable=result["source"] == "mnist", missing=missing)

    def headline(self, result: Result) -> tuple[str, str, str]:
        last = published.CURVES["accuracy"][-1]
        falls = next(verdict for verdict in self.verdicts(result) if "table 5" in verdict.claim)
        return "accuracy at V = 1, and table 5", f"{last:.4f}", falls.numbers

    def figure(self, result: Result, kind: str) -> str:
        usual = (result["source"], result["scale"]) == self.usual
        return f"{self.name}-{kind}.svg" if usual else super().figure(result, kind)

    def context(self, result: Result) -> dict[str, Any]:
        judged = {
            name: [judge(criterion, result["scale"]) for criterion in self.criteria(result, initial)]
            for initial, name in NAMES.items()
        }
        both = [
            verdict._replace(claim=f"{verdict.claim} ({name} initial weights)")
            for pair in zip(*judged.values(), strict=True)
            for name, verdict in zip(judged, pair, strict=True)
        ]
        trainings = [
            (initial, int(seed), int(epochs), record)
            for name, record in result["models"].items()
            for _, seed, initial, epochs in [name.split("-")]
        ]
        full, per_class = result["scale"] == "full", set(result["provenance"]["data"]["tested on"]["per_class"])
        return {
            "full": full, "column": "measured" if full else f"{result['scale']} run", "metrics": METRICS,
            "initial": result["tables"]["initial"], "keras": result["tables"]["initial"]["keras"], "figures": FIGURES,
            "names": NAMES, "initial_weights": protocol.INITIAL_WEIGHTS, "readings": result["tables"]["readings"],
            "noises": READINGS, "reading": PAPER_READING, "published": published,
            "per_class": per_class.pop() if len(per_class) == 1 else None,
            "judged": {name: count_outcomes(verdicts) for name, verdicts in judged.items()},
            "both_claims": verdict_table(both), "wrong": published.contradictions(),
            "deviations": GaussianNoise(accumulate=True).deviations(published.AMPLITUDES),
            "trainings": sorted(trainings, key=lambda training: (-training[2], training[0], training[1])),
            "doubts": sorted({doubt for record in result["evidence"].values() for doubt in record["doubts"]}),
        }  # fmt: skip

    def draw(self, result: Result, folder: Path) -> list[Path]:
        curves, pictures, confusion = (folder / self.figure(result, kind) for kind in FIGURES)
        initial, amplitudes = result["tables"]["initial"], published.AMPLITUDES
        with figure(curves, (9, 3.2), self.name) as canvas:
            metrics = ("accuracy", "precision[0]", "recall[0]")
            for axes, metric in zip(canvas.subplots(1, 3, sharey=True), metrics, strict=True):
                axes.plot(amplitudes, published.CURVES[metric], "k--", label="published", linewidth=1)
                for color, (weights, name) in enumerate(NAMES.items()):
                    points = [
                        [math.nan if value is None else value for value in point["values"]]
                        for point in initial[weights]["noise"][metric]
                    ]
                    line(axes, zip(amplitudes, points, strict=True), f"{name} initial weights", color)
                axes.set(xlabel="V", title=metric, ylim=(0, 1.02))
                axes.grid(alpha=0.3)
            canvas.axes[0].legend(frameon=False)
        with figure(confusion, (9, 3.2), self.name) as canvas:
            matrices = initial["keras"]["confusion"]
            for axes, (v, matrix) in zip(canvas.subplots(1, len(matrices)), matrices.items(), strict=True):
                _draw_matrix(axes, matrix, f"V = {v}")
        return [curves, draw_strips(result["pictures"], pictures, "V = {}"), confusion]


def _draw_matrix(axes: Any, matrix: list[list[float]], title: str) -> None:
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    for true, row in enumerate(matrix):
        for prediction, share in enumerate(row):
            if share >= 0.05:
                axes.text(
                    prediction, true, f"{share:.0%}"[:-1], ha="center", va="center", fontsize=6,
                    color="white" if share > 0.5 else "black",
                )  # fmt: skip
    axes.set(title=title, xlabel="prediction", xticks=range(len(matrix)), yticks=range(len(matrix)))
    axes.set_ylabel("digit")


PAPER = Digits()
