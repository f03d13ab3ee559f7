"""The paper label-2n: its measurements, pages and figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, get_args

from reports import paper, writing
from reports.comparing import compare
from reports.figures import line, pair
from reports.label_2n import criteria, numbers, protocol, tables, theory, whitebox
from reports.label_2n.numbers import READINGS, Measured, measured, readings
from reports.label_2n.protocol import NAMES, TITLES, systems
from reports.paper import Paper, Result
from reports.rows import mean, unpacked
from reports.running import Run, images_record
from reports.verdicts import Criterion, Outcome, by_outcome, count_outcomes, judge
from robustness.cards import Card
from robustness.metrics.evidence import Evidence

NUMBERS = {
    ("cifar10", "half_accuracy"): "Figure 6", ("gtsrb", "half_accuracy"): "Figure 7",
    ("cifar10", "transferability"): "Figure 8", ("gtsrb", "transferability"): "Figure 9",
}  # fmt: skip
FIGURES = {"half_accuracy": "accuracy, half perturbed", "transferability": "transferability |Xb|/|Xa|"}
SELECTIVE = {"half_accuracy": "half_selective_accuracy", "transferability": "selective_transferability"}
# From the smallest.
SCALES = ("smoke", "short", "medium", "full")


class Label(Paper):
    """2N labelling against NULL, ADV, CDAEC and DISTILL, with and without a filter."""

    name = "label-2n"
    about = "Train the substitute and every defence fold by fold, sweep each system, write tables and figures."
    protocol: ClassVar[Any] = protocol
    usual = ("gtsrb", "short")

    def scale(self, name: str, source: str) -> Any:
        return protocol.scale(name, source)

    def units(self, run: Run) -> Sequence[int]:
        return range(len(protocol.runs(run.scale)))

    def swept(self, run: Run, unit: int) -> dict[str, dict[str, Any]]:
        return protocol.evaluated(self.trained(run, unit), run.source, run.scale)

    def header(self, run: Run, unit: int) -> dict[str, Any]:
        scale, (fold, seed) = run.scale, protocol.runs(run.scale)[unit]
        return {
            "seeds": [seed],
            "folds_of_the_protocol": len(protocol.runs(scale)),
            "runs": [{"fold": fold, "of": scale.folds, "seed": seed}],
            "width": scale.width,
            "plan": dict(scale.plan),
            "few": scale.few,
            "steps": scale.steps,
        }

    def rows(self, run: Run, name: str, card: Card, evidence: Mapping[str, Evidence]) -> Iterable[dict[str, Any]]:
        return numbers.rows(run.workspace, name, card, evidence)

    def images(self, run: Run, unit: Any, cards: Mapping[str, Card]) -> dict[str, Any]:
        return {
            f"{name.split('-')[1]}@{name.partition('@')[2]}": images_record(run.workspace.images(card))
            for name, card in cards.items()
        }

    def criteria(self, result: Result) -> Iterator[Criterion]:
        return criteria.criteria(measured(result))

    def headline(self, result: Result) -> tuple[str, str, str]:
        statement, printed, value = next(tables.glance([measured(result)]))
        return f"{statement}, filtered", printed, value

    def context(self, result: Result) -> dict[str, Any]:
        m, rows = measured(result), unpacked(result)
        others = {
            f"threshold {reading.threshold}, BIN on {reading.examples}": measured(result, reading)
            for reading in readings(rows)
        }
        verdicts = [[judge(criterion, m.scale) for criterion in criteria.criteria(other)] for other in others.values()]
        return {
            "title": f"{TITLES[m.source]}, scale {m.scale}", "m": m, "systems": systems, "names": NAMES,
            "tables": tables, "criteria": criteria, "steps": theory.steps,
            "reading": READINGS[0], "others": others, "compare": compare, "mean": mean,
            "published": writing.printed(self.package).get(m.source, {}),
            "other_verdicts": list(zip(*verdicts, strict=True)),
            "caption": {kind: _caption(result, kind) for kind in FIGURES},
            "survivals": whitebox.survivals(m), "weak": whitebox.too_weak(m), "count": len(m.folds("2n", "mixed")),
            "sizes": dict.fromkeys(
                f"{record['n']:,}" for name, record in result["provenance"]["data"].items() if name.endswith("@fold")
            ),
        }  # fmt: skip

    def pages(self, results: Sequence[Result], output: Path = paper.MEASURED) -> dict[str, str]:
        files = sorted(output.glob("causes_label_2n_*.json"))
        causes = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        first = largest(results)
        parts = {
            "label-2n.md": [self.glance(first)] * bool(first) + [self.page(result, "claims.md") for result in first],
            "label-2n-tables.md": [self.page(result, "tables.md", smaller=result not in first) for result in results],
            "label-2n-attacked.md": [self.page(result, "attacked.md") for result in results],
            "label-2n-causes.md": [
                writing.render("label_2n/causes.md", cause=cause, protocol=protocol, seeds=writing.seeds(cause))
                for cause in causes
            ],
            "label-2n-protocol.md": [writing.render("label_2n/scales.md", protocol=protocol)],
        }  # fmt: skip
        return {name: paper.joined(texts) for name, texts in parts.items()}

    def glance(self, results: Sequence[Result]) -> str:
        """Return the beginning of the first page."""
        numbers_, order = [measured(result) for result in results], get_args(Outcome)
        verdicts = [
            sorted(self.verdicts(result), key=lambda verdict: order.index(verdict.outcome)) for result in results
        ]
        return writing.render(
            "label_2n/glance.md",
            heads=[f"{TITLES[m.source]}, {m.scale}" for m in numbers_],
            rows=list(tables.glance(numbers_)),
            items=[
                {
                    "result": result, "title": f"{TITLES[m.source]}, scale {m.scale}", "seeds": writing.seeds(result),
                    "outcomes": count_outcomes(judged), "decided": by_outcome(judged), "folds": _folds(result),
                    "undetected": tables.undetected(m), "last": max(m.strengths("adaptive"), key=float, default=""),
                    "caption": _caption(result, "half_accuracy"), "file": self.figure(result, "accuracy"),
                }
                for result, m, judged in zip(results, numbers_, verdicts, strict=True)
            ],
        )  # fmt: skip

    def draw(self, result: Result, folder: Path) -> list[Path]:
        written, m = [], measured(result)
        for metric, label in FIGURES.items():
            written.append(folder / self.figure(result, metric.removeprefix("half_")))
            with pair(written[-1], (9, 3.6), self.name) as axes:
                curves = (metric, "without filter"), (SELECTIVE[metric], "with filter")
                for side, (curve, title) in zip(axes, curves, strict=True):
                    _lines(side, m, curve)
                    side.set(xlabel="ε", title=title, ylim=(0, 1.02))
                axes[0].set_ylabel(label)
        return written


def largest(results: Sequence[Result]) -> list[Result]:
    """Return the result of the largest scale of each data set, in the order of the titles."""
    by_source = {}
    for result in sorted(results, key=lambda result: SCALES.index(result["scale"])):
        by_source[result["source"]] = result
    return [by_source[source] for source in TITLES if source in by_source]


def _folds(result: Result) -> str:
    """Return the folds that were measured, in words."""
    folds, count = sorted({run["fold"] + 1 for run in result["runs"]}), result["runs"][0]["of"]
    listed = f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))} of {count}"
    return f"{count} folds" if len(folds) == count else listed


def _caption(result: Result, metric: str) -> str:
    number = NUMBERS.get((result["source"], metric), "Figure")
    return f"{number}: {FIGURES[metric]} over ε ({TITLES[result['source']]}, scale {result['scale']})"


def _lines(axes: Any, m: Measured, metric: str) -> None:
    for number, system in enumerate(systems(m.rows)):
        points = [(float(e), m.folds(system, "curve", metric, e)) for e in m.strengths("curve")]
        if metric.startswith("half_"):
            points.insert(0, (0.0, m.folds(system, "clean", metric.removeprefix("half_"))))
        line(axes, points, NAMES[system], number)


PAPER = Label()
