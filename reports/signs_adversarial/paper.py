"""The document signs-adversarial: its measurements, tables and figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from reports.figures import line, pair
from reports.paper import Paper, Result
from reports.rows import Measured
from reports.running import Run, evidence_rows
from reports.signs_adversarial import protocol
from reports.signs_adversarial.criteria import criteria, mean, values
from reports.signs_adversarial.protocol import ATTACKS, BUDGET, SYSTEMS
from reports.verdicts import PROJECT_WORDS, Criterion
from reports.writing import number
from robustness.cards import Card
from robustness.cards.selection import limit_test_images
from robustness.metrics.evidence import Evidence

METRICS = ("accuracy", "precision", "recall")
STYLES = {"fgsm": "-", "pgd": "--"}


class Signs(Paper):
    """Two attacks on a traffic-sign network, before and after adversarial training."""

    name = "signs-adversarial"
    about = "Train an undefended network and its twins by FGSM and PGD training, attack each, write tables and figure."
    unit = "seed"
    version = 2
    protocol: ClassVar[Any] = protocol
    usual = ("gtsrb", "full")
    words = PROJECT_WORDS

    def units(self, run: Run) -> Sequence[int]:
        return tuple(protocol.SEEDS)

    def tested(self, run: Run, card: Card, sweep: str) -> Card:
        if not sweep.endswith("pgd"):
            return card
        return limit_test_images(card, min(run.scale.few, len(run.workspace.images(card))))

    def header(self, run: Run, unit: int) -> dict[str, Any]:
        scale = run.scale
        plan = {"epochs": scale.epochs, "width": scale.width, "few": scale.few, "steps": protocol.STEPS}
        return {"about": protocol.SOURCES[run.source].about, "seeds": [unit], "plan": plan}

    def rows(self, run: Run, name: str, card: Card, evidence: Mapping[str, Evidence]) -> Iterator[dict[str, Any]]:
        _, seed, system = name.split("-", 2)
        fields = {"source": run.source, "fold": int(seed), "system": system, "images": "test"}
        for sweep, part in evidence.items():
            yield from evidence_rows({**fields, "sweep": sweep}, part, METRICS)

    def criteria(self, result: Result) -> Iterator[Criterion]:
        return criteria(Measured.of(result))

    def headline(self, result: Result) -> tuple[str, str, str]:
        measured = Measured.of(result)
        left = ", ".join(f"{name} {number(mean(measured, system, 'pgd'), 3)}" for system, name in SYSTEMS.items())
        return f"accuracy under PGD at {BUDGET}", "no number is printed", left

    def context(self, result: Result) -> dict[str, Any]:
        return {"m": Measured.of(result), "values": values, "protocol": protocol, "metrics": METRICS}

    def draw(self, result: Result, folder: Path) -> list[Path]:
        file = folder / self.figure(result, "accuracy")
        measured = Measured.of(result)
        with pair(file, (10, 3.8), self.name) as (left, right):
            _lines(left, measured, "")
            _lines(right, measured, "twin-")
            left.set(title="examples made on the network itself", ylabel="accuracy", ylim=(0, 1.02))
            right.set(title="examples made on its undefended twin")
        return [file]


def _lines(axes: Any, measured: Measured, twin: str) -> None:
    """Draw over equal distances: each ε is twice the one before, and 0 has no logarithm."""
    strengths = [strength for strength in measured.strengths("fgsm") if float(strength)]
    for attack, title in ATTACKS.items():
        for number_, (system, label) in enumerate(SYSTEMS.items()):
            cells = [("clean", "0"), *((f"{twin}{attack}", strength) for strength in strengths)]
            points = [
                (float(x), values(measured, system, sweep, strength=strength))
                for x, (sweep, strength) in enumerate(cells)
            ]
            if any(numbers for _, numbers in points[1:]):
                line(axes, points, f"{label}, {title}", number_, linestyle=STYLES[attack])
    ticks = [f"{255 * float(strength):.0f}" for strength in ("0", *strengths)]
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlabel("ε in units of 1/255")


PAPER = Signs()
