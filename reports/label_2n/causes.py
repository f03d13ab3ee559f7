"""
Why 2N's filter detects less than a detector: one fold, with 2N and BIN trained otherwise.

    python -m reports.label_2n.causes --data-set gtsrb --scale short

trains the variants beside what the first fold of `python -m reports.label_2n` has trained, sweeps the substitute's
examples over ε, and writes ``causes_label_2n_SET_SCALE.json``, from which `python -m reports.label_2n` writes a page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reports import paper, running
from reports.label_2n import protocol
from reports.label_2n.paper import PAPER
from reports.running import Run
from robustness import claims
from robustness.metrics import strength_curves
from robustness.metrics.evidence import Evidence
from robustness.util import output


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 2 if it fails, with the reason."""
    description = (__doc__ or "").split("\n")[1]
    parser = argparse.ArgumentParser(prog="python -m reports.label_2n.causes", description=description)
    PAPER.add_options(parser)
    options = parser.parse_args(arguments)
    return paper.answer(lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[Path]:
    file = (options.output or paper.MEASURED) / f"causes_label_2n_{options.data_set}_{options.scale}.json"
    paper.write_result(file, measure(PAPER.run(options)))
    running.say("next: python -m reports.label_2n --render, which shows it")
    return [file]


def measure(run: Run) -> dict[str, Any]:
    """Train the variants that are not stored, sweep them, and return their numbers."""
    tables, fold = variants(run.source, run.scale), f"{run.source}-0"
    required = _required(tables, [f"{fold}-{variant}" for variant in protocol.VARIANTS]) | {f"{run.source}-substitute"}
    models = run.train(run.cards({name: table for name, table in tables.items() if name in required}))
    curve = {"kind": "fgsm", "source": f"{run.source}-substitute.toml", "strengths": protocol.CURVE}
    data = {} if not run.scale.tested else {"num_test_images": run.scale.tested}
    rows, evidence = {}, {}
    for variant in protocol.VARIANTS:
        table, name = tables[f"{fold}-{variant}"], f"{fold}-{variant}@why"
        swept = {**table, "name": name, "sweeps": {"curve": curve}, "data": {**table["data"], **data}}
        card = run.cards({name: swept})[name]
        running.say(card.name)
        part = run.workspace.evidence(card, "curve")
        rows[variant], evidence[variant] = numbers(part), running.evidence_record(part, run.workspace.store.run)
    images = {"data": running.images_record(run.workspace.images(card))}
    return {
        "format": "pytest-robustness/report/label-2n-causes/1",
        "source": run.source,
        "scale": run.scale.name,
        "seeds": [run.workspace.seed],
        "provenance": running.machine(run.workspace) | images,
        "strengths": protocol.CURVE,
        "variants": rows,
        "models": models,
        "evidence": evidence,
    }


def variants(source: str, scale: Any) -> dict[str, dict[str, Any]]:
    """Return the cards of the first fold, and those of the variants."""
    tables, fold = protocol.cards(source, scale, 0), f"{source}-0"

    def vary(system: str, suffix: str, *, arguments: Mapping[str, Any] | None = None, **recipe: Any) -> None:
        table, name = tables[f"{fold}-{system}"], f"{fold}-{system}-{suffix}"
        changed = {**table["recipe"], **recipe}
        if arguments:
            changed["arguments"] = {**changed["arguments"], **arguments}
        tables[name] = {**table, "name": name, "recipe": changed}

    vary("2n", "long", arguments={"epochs": 3 * scale.plan["epochs"]})
    vary("2n", "sharp", arguments={"right": 1.0})
    attacked = {"attacked": f"{fold}-plain.toml"}
    vary("2n", "elsewhere", callable="reports.label_2n.elsewhere:fit", needs=attacked)
    vary("bin", "on-2n", needs={"attacked": f"{fold}-2n.toml"})
    needs = {"classifier": f"{fold}-plain.toml", "detector": f"{fold}-bin-on-2n.toml"}
    vary("plain+bin", "on-2n", needs=needs)
    return tables


def _required(tables: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    """Return these names, and all models that they need."""
    required = set(names)
    for name in names:
        needs = tables[name]["recipe"].get("needs", {}).values()
        required |= _required(tables, [path.removesuffix(".toml") for path in needs])
    return required


def numbers(evidence: Evidence) -> dict[str, Any]:
    """
    Return areas under the detector's ROC curve, and sensitivity and kept images at two thresholds of the filter.

    These are 0.5 and the threshold at which one clean image in a hundred is discarded.
    """
    clean, attacked = evidence.clean, evidence.attack_probability
    assert clean is not None
    assert clean.attack_probability is not None
    assert attacked is not None
    predictions = [clean.predictions[0], *evidence.predictions]
    correct = [row == evidence.labels for row in predictions]
    alike = float(np.quantile(clean.attack_probability[0], 1 - protocol.FALSE_ALARMS))
    sizes = np.array([0.0, *map(float, evidence.strengths)])
    result: dict[str, Any] = {"threshold": round(alike, 6)}
    for name, threshold in (("at_half", 0.5), ("alike", alike)):
        passed = [row <= threshold for row in (clean.attack_probability[0], *attacked)]
        halves = [_filtered(correct[0], passed[0], *pair) for pair in zip(correct, passed, strict=True)]
        shape = strength_curves.shape("max_accuracy_slope", sizes, np.array(halves))[0] if None not in halves else None
        result[name] = {
            "max_accuracy_slope": None if shape is None else round(float(shape), 6),
            "coverage": [round(float(mask.mean()), 6) for mask in passed],
        }
    areas = {e: claims.measure(evidence, e, "detection_auc").value for e in evidence.strengths}
    return {**result, "areas": {strength: round(area, 6) for strength, area in areas.items()}}


def _filtered(clean: np.ndarray, clean_passed: np.ndarray, correct: np.ndarray, passed: np.ndarray) -> float | None:
    """Return the accuracy after filtering if half of the images are perturbed; None if none is kept."""
    count = int(clean_passed.sum() + passed.sum())
    return float((clean[clean_passed].sum() + correct[passed].sum()) / count) if count else None


if __name__ == "__main__":
    sys.exit(output.run(main))
