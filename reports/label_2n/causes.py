"""
Why 2N's filter tells less than a detector: one fold, with 2N and BIN trained otherwise.

    python -m reports.label_2n.causes --data-set gtsrb --scale short

trains the variants beside what the first fold of `python -m reports.label_2n` has trained, sweeps the substitute's
examples over ε, and writes ``causes_label_2n_SET_SCALE.json``, from which the page has its table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from models.defences.attacked import half
from models.defences.twon import Labelled
from models.loop import Plan, train
from models.objectives import Minibatch, smoothed
from reports import commands, running
from reports.label_2n import protocol
from robustness import claims
from robustness.data.images import Images
from robustness.decisions import Argmax
from robustness.metrics import strength_curves
from robustness.metrics.evidence import Evidence
from robustness.util import output
from robustness.workspace.recipes import Job
from robustness.workspace.workspace import Workspace

FORMAT = "pytest-robustness/report/label-2n-causes/1"


class Elsewhere(Labelled):
    """2N with its examples made on another, trained network."""

    def __init__(self, attacked: nn.Module, right: float, most: float) -> None:
        super().__init__(right, most)
        self.attacked = attacked.eval().requires_grad_(False)

    def loss(self, module: nn.Module, batch: Minibatch) -> Tensor:
        """Return the cross-entropy over 2N labels."""
        inputs, epsilon = half(self.attacked, batch, self.most, Argmax())
        logits = module(inputs)
        labels = batch.labels + (epsilon > 0) * (logits.shape[1] // 2)
        return smoothed(logits, labels, self.right)

    def to(self, device: str) -> None:
        """Move the attacked network."""
        self.attacked.to(device)


def fit(module: nn.Module, images: Images, job: Job, *, right: float = 0.8, epsilon: float = 0.3, **plan: Any) -> Any:
    """Train 2N on examples made on another network: ``needs = { attacked = "classifier.toml" }``."""
    return train(module, images, job, Elsewhere(job.needs["attacked"], right, epsilon), Plan(**plan))


def tables(source: str, scale: protocol.Scale) -> dict[str, dict[str, Any]]:
    """Return the cards of the first fold, and those of the variants."""
    fold = f"{source}-0"
    made = protocol.cards(source, scale, range(1))
    two, detector, joined = (made[f"{fold}-{kind}"] for kind in ("2n", "bin", "plain+bin"))
    made[f"{fold}-2n-long"] = _changed(two, "2n-long", fold, epochs=3 * scale.plan["epochs"])
    made[f"{fold}-2n-sharp"] = _changed(two, "2n-sharp", fold, right=1.0)
    elsewhere = _changed(two, "2n-elsewhere", fold)
    elsewhere["recipe"] |= {"callable": "reports.label_2n.causes:fit", "needs": {"attacked": f"{fold}-plain.toml"}}
    made[f"{fold}-2n-elsewhere"] = elsewhere
    on = _changed(detector, "bin-on-2n", fold)
    on["recipe"]["needs"] = {"attacked": f"{fold}-2n.toml"}
    made[f"{fold}-bin-on-2n"] = on
    beside = _changed(joined, "plain+bin-on-2n", fold)
    beside["recipe"]["needs"] = {"classifier": f"{fold}-plain.toml", "detector": f"{fold}-bin-on-2n.toml"}
    made[f"{fold}-plain+bin-on-2n"] = beside
    return made


def _changed(table: Mapping[str, Any], name: str, fold: str, **arguments: Any) -> dict[str, Any]:
    recipe = dict(table["recipe"])
    if arguments:
        recipe["arguments"] = {**recipe["arguments"], **arguments}
    return {**table, "name": f"{fold}-{name}", "recipe": recipe}


def numbers(evidence: Evidence) -> dict[str, Any]:
    """Return sensitivity with the filter, at 0.5 and where one clean image in a hundred is discarded, and the areas."""
    before = evidence.clean
    assert before is not None
    assert before.attack_probability is not None
    assert evidence.attack_probability is not None
    clean, predictions = before.attack_probability[0], (before.predictions[0], *evidence.predictions)
    alike = float(np.quantile(clean, 1 - protocol.FALSE_ALARMS))
    found: dict[str, Any] = {"threshold": round(alike, 6)}
    for name, threshold in (("at_half", 0.5), ("alike", alike)):
        kept = [clean <= threshold, *(row <= threshold for row in evidence.attack_probability)]
        right = [row == evidence.labels for row in predictions]
        halves = [_filtered(right[0], kept[0], *pair) for pair in zip(right, kept, strict=True)]
        sizes = np.array([0.0, *map(float, evidence.strengths)])
        shape = strength_curves.shape("max_accuracy_slope", sizes, np.array(halves))[0] if None not in halves else None
        found[name] = {
            "max_accuracy_slope": None if shape is None else round(float(shape), 6),
            "coverage": [round(float(share.mean()), 6) for share in kept],
        }
    found["areas"] = {
        strength: round(claims.measure(evidence, strength, "detection_auc").value, 6) for strength in evidence.strengths
    }
    return found


def _filtered(clean: np.ndarray, clean_kept: np.ndarray, right: np.ndarray, kept: np.ndarray) -> float | None:
    """Return the accuracy after filtering where half of the images are perturbed; None where none is kept."""
    count = int(clean_kept.sum() + kept.sum())
    return float((clean[clean_kept].sum() + right[kept].sum()) / count) if count else None


def measured(source: str, scale: protocol.Scale, harness: Workspace, work: running.Work) -> dict[str, Any]:
    """Train what is not there yet, sweep the variants, and give the numbers."""
    every, folder = tables(source, scale), commands.RUNS / f"label_2n-{scale.name}"
    due = _needed(every, [f"{source}-0-{variant}" for variant in protocol.VARIANTS]) | {f"{source}-substitute"}
    chosen = {name: table for name, table in every.items() if name in due}
    models = running.train(commands.loaded(chosen, folder), harness, work)
    curve = {"kind": "fgsm", "source": f"{source}-substitute.toml", "strengths": protocol.CURVE}
    rows, evidence = {}, {}
    for variant in protocol.VARIANTS:
        table = {**every[f"{source}-0-{variant}"], "name": f"{source}-0-{variant}@why", "sweeps": {"curve": curve}}
        table["data"] = {**table["data"], **scale.held_out}
        (card,) = commands.loaded({table["name"]: table}, folder).values()
        running.say(card.name)
        told = harness.evidence(card, "curve")
        rows[variant], evidence[variant] = numbers(told), running.swept(told, harness.store.run)
    return {
        "format": FORMAT,
        "source": source,
        "scale": scale.name,
        "seeds": [harness.seed],
        "provenance": running.machine(harness) | {"data": running.images(harness.images(card))},
        "strengths": protocol.CURVE,
        "variants": rows,
        "models": models,
        "evidence": evidence,
    }


def _needed(every: Mapping[str, Any], names: Sequence[str]) -> set[str]:
    """Return these names, and all that they are made of."""
    found = set(names)
    for name in names:
        others = [path.removesuffix(".toml") for path in every[name]["recipe"].get("needs", {}).values()]
        found |= _needed(every, others)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where it cannot, with the reason."""
    parser = commands.parser("reports.label_2n.causes", __doc__, protocol.SOURCES, protocol.SCALES, ("gtsrb", "short"))
    given = parser.parse_args(arguments)
    return commands.answered(lambda: _made(given))


def _made(given: argparse.Namespace) -> list[Path]:
    file = (given.output or commands.OUTPUT) / f"causes_label_2n_{given.data_set}_{given.scale}.json"
    found = measured(
        given.data_set, protocol.scale(given.scale, given.data_set), running.harness_for(given), running.work(given)
    )
    commands.keep(file, found)
    running.say("next: python -m reports.label_2n --render, which shows it")
    return [file]


if __name__ == "__main__":
    sys.exit(output.run(main))
