"""
What the claims of a card catch: the classifier is damaged in steps, and every claim is held against each.

    python -m reports.damage [digits-mlp]

writes ``reports/measured/NAME_damage.json``, and for the model that a plain run takes the page ``docs/caught.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tabulate import tabulate
from torch import nn

from robustness import aids, cards, claims, hardware
from robustness.cards import Card
from robustness.claims import Verdict
from robustness.damage import ladder
from robustness.evidence import Evidence
from robustness.harness import Harness, data_root, store_root
from robustness.store import Store
from robustness.sweep import sweep

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "caught.md"


def evidence_of(harness: Harness, card: Card, module: nn.Module) -> dict[str, Evidence]:
    """
    Sweep a module, which is not the card's own, over the card's sweeps.

    Those that the card claims something about, but for those by a generator: it would have to be fitted to each
    damaged module anew.
    """
    images, claimed = harness.images(card), {claim.sweep for claim in card.claims()}
    found: dict[str, Evidence] = {}
    for name in ("clean", *(name for name in card.file.sweeps if name in claimed)):
        if card.perturbation(name).family == "gan":
            continue
        unit = card.file.sweeps[name].unit if name != "clean" else "native"
        given = {"seed": harness.seed, **aids.made(harness, card, name).given}
        given["decision"] = card.file.model.decision
        evidence = sweep(module, images, card.perturbation(name), card.file.strengths_of(name), unit=unit, **given)
        source = harness.source(card, name)
        attacked = None if source is None else harness.evidence(source, name)
        found[name] = evidence if name == "clean" else replace(evidence, clean=found["clean"], source=attacked)
    return found


def judged(card: Card, evidence: dict[str, Evidence]) -> list[Verdict]:
    """Hold the claims that there is evidence for."""
    return [claims.judge(claim, evidence[claim.sweep]) for claim in card.claims() if claim.sweep in evidence]


def row(card: Card, evidence: dict[str, Evidence]) -> dict[str, Any]:
    """Count the claims that are not held, in all and in each group (a sweep and a metric)."""
    verdicts = judged(card, evidence)
    groups: dict[str, bool] = {}
    for verdict in verdicts:
        group = f"{verdict.claim.sweep} {verdict.claim.metric}"
        groups[group] = groups.get(group, False) or not verdict.held
    red = [verdict for verdict in verdicts if not verdict.held]
    return {
        "clean_accuracy": claims.measure(evidence["clean"], "0", "accuracy").value,
        "red": len(red),
        "claims": len(verdicts),
        "red_groups": [group for group, is_red in groups.items() if is_red],
        "groups": len(groups),
        "first": red[0].message if red else "",
    }


def measure(harness: Harness, card: Card) -> dict[str, Any]:
    """Damage a card's classifier in every step of the ladder."""
    module = harness.classifier(card).module
    images = harness.images(card)
    rows = [{"damage": "none", "level": "", **row(card, evidence_of(harness, card, module))}]
    for step in ladder(len(images.classes)):
        found = row(card, evidence_of(harness, card, step.apply(module)))
        rows.append({"damage": step.kind, "level": step.level, **found})
    return {
        "format": "pytest-robustness/damage/1",
        "model": card.name,
        "data": images.name,
        "n": len(images),
        "seed": harness.seed,
        "device": hardware.device_kind("cpu"),
        "scale": card.file.scale,
        "thresholds": dict(card.file.thresholds),
        "rows": rows,
    }


def markdown(document: dict[str, Any]) -> str:
    """Write the page, with what it was measured on."""
    table = [
        [
            r["damage"],
            r["level"],
            f"{r['clean_accuracy']:.3f}",
            f"{r['red']} of {r['claims']}",
            f"{len(r['red_groups'])} of {r['groups']}",
        ]
        for r in document["rows"]
    ]
    headers = ["damage", "level", "clean accuracy", "red claims", "red groups"]
    made = document["thresholds"]
    return f"""# What the claims catch

Thresholds that never go red hold nothing. So the classifier is damaged on purpose, in steps, and every claim of its
card is held against what is left; below it stands how often a model without fault is called red.
`python -m reports.damage` makes this page anew.

{document["model"]} on {document["data"]}, n = {document["n"]}, seed {document["seed"]}, {document["device"]}, \
{document["scale"]} scale. A group is a sweep and a metric; sweeps by a generator are left out, for it would have to \
be fitted to each damaged model anew.

{tabulate(table, headers, tablefmt="github")}

False alarms: of the healthy seeds {made.get("seeds", "–")}, which the thresholds come from (mean minus \
{made.get("c", "–")} deviations), \
{made.get("left_out_red", "an unknown number")} are red when each is left out in turn; of further healthy seeds, \
{made.get("fresh_red", "an unknown number")}.

What goes unseen is as telling: thresholds that allow for retraining (another seed moves accuracy under strong noise by
several points) let small damage through. To compare one set of weights with another, image by image, is another
question.
"""


def shown(document: dict[str, Any]) -> str:
    """Write the JSON file's text."""
    return json.dumps(document, indent=1) + "\n"


def main() -> int:
    """Measure, write, and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="digits-mlp")
    parser.add_argument("--data")
    parser.add_argument("--store")
    arguments = parser.parse_args()
    harness = Harness(Store(store_root(arguments.store)), data_root(arguments.data))
    card = cards.load(HERE.parent / "models" / f"{arguments.model}.toml")
    document = measure(harness, card)
    target = HERE / "measured" / f"{card.name.replace('-', '_')}_damage.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(shown(document), encoding="utf-8")
    print(markdown(document))
    print(f"written: {target}")
    if card.file.data.embedded:
        PAGE.write_text(markdown(document), encoding="utf-8")
        print(f"written: {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
