"""The page of signs-adversarial, made from its result files alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reports.rows import Measured
from reports.signs_adversarial import figures
from reports.signs_adversarial.criteria import BUDGET, CRITERIA, DEFENDED, values
from reports.signs_adversarial.protocol import ATTACKS, SYSTEMS, USUAL
from reports.verdicts import OWN, Verdict, listed
from reports.writing import joined, number, spread, summary, table

MODULE = "reports.signs_adversarial"
Result = Mapping[str, Any]


def verdicts(result: Result) -> list[Verdict]:
    """Judge the project's criteria."""
    return [judge(Measured.of(result)) for judge in CRITERIA]


def body(results: Sequence[Result], images: str = "figures/") -> str:
    """Return everything below the heading of the page, one part a result."""
    return joined(results, lambda result: _parts(result, images))


def _parts(result: Result, images: str) -> Iterator[str]:
    numbers = Measured.of(result)
    yield _short(result, numbers)
    yield f"![Accuracy over ε; bars from the least to the largest seed]({images}{figures.name(result)})"
    criteria = "The document prints no number and names no criterion, so these are the project's."
    yield f"## The project's criteria\n\n{criteria} {listed(verdicts(result), own=True)}"
    yield _accuracies(numbers)
    yield _transferred(numbers)
    yield _beside(numbers)
    yield _origin(result)


def _short(result: Result, numbers: Measured) -> str:
    """Return the ten lines that the page begins with."""
    about, data, plan = result["provenance"], result["provenance"]["data"], result["plan"]
    seeds = sorted({row["fold"] for row in numbers.rows})
    lines = [
        f"Scale **{result['scale']}**: {plan['epochs']} epochs, width {plan['width']:g}, seeds "
        f"{', '.join(map(str, seeds))}; {about['device']}, {about['cores']} cores.",
        f"Data: {result['about']}; tested on {data['tested on']['n']:,} images ({_counts(numbers, 'pgd')} of them "
        f"under PGD), trained on {data['trained on']['n']:,}.",
        "The document prints no number and does not name its two attacks: FGSM and PGD are the project's choice, "
        f"and so are all criteria below. Of these: {_counted(result)}.",
        *(_line(numbers, system) for system in SYSTEMS),
        f"Examples of the undefended twin at {BUDGET}, which an attacker makes who does not see the defence: "
        f"{_twins(numbers)}.",
        "Numbers are means ± standard deviations over the seeds. **Another processor trains another net**: its "
        "arithmetic differs in the last bits, and a training amplifies them, so that its numbers differ as those of "
        "another seed do.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _counted(result: Result) -> str:
    counts = Counter(OWN.get(verdict.outcome, verdict.outcome) for verdict in verdicts(result))
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def _line(numbers: Measured, system: str) -> str:
    clean, *left = (_spread(numbers, system, sweep) for sweep in ("clean", *ATTACKS))
    under = ", ".join(f"{name} leaves {each}" for name, each in zip(ATTACKS.values(), left, strict=True))
    name = SYSTEMS[system]
    return f"{name[0].upper()}{name[1:]}: clean accuracy {clean}; at ε = {BUDGET} {under}."


def _twins(numbers: Measured) -> str:
    return "; ".join(
        f"{SYSTEMS[system]} keeps "
        + ", ".join(f"{_spread(numbers, system, f'twin-{attack}')} under {name}" for attack, name in ATTACKS.items())
        for system in DEFENDED
    )


def _spread(
    numbers: Measured, system: str, sweep: str, metric: str = "accuracy", strength: str = "", places: int = 3
) -> str:
    """Return mean ± standard deviation over the seeds; a dash where nothing was measured."""
    seeds = values(numbers, system, sweep, metric, strength)
    return spread(summary(seeds), places) if seeds else "–"


def _strengths(numbers: Measured, sweep: str) -> list[str]:
    return [strength for strength in numbers.strengths(sweep) if float(strength)]


def _counts(numbers: Measured, sweep: str) -> str:
    return " and ".join(f"{n:,}" for n in sorted({row["n"] for row in numbers.rows if row["sweep"] == sweep}))


def _accuracies(numbers: Measured) -> str:
    rows = [["none", "0", _counts(numbers, "clean"), *(_spread(numbers, system, "clean") for system in SYSTEMS)]]
    rows += [
        [name, strength, _counts(numbers, attack),
         *(_spread(numbers, system, attack, strength=strength) for system in SYSTEMS)]
        for attack, name in ATTACKS.items()
        for strength in _strengths(numbers, attack)
    ]  # fmt: skip
    heads = ["attack on the network itself", "ε", "images", *SYSTEMS.values()]
    return f"## Accuracy under white-box attacks\n\n{table(heads, rows)}{_failed(numbers)}"


def _failed(numbers: Measured) -> str:
    """Return what had no number, by its reason."""
    cells = [
        f"{SYSTEMS[row['system']]} of seed {row['fold']} under {row['sweep']} at ε {row['strength']}: {row['status']}"
        for row in numbers.rows
        if "accuracy" not in row or row["accuracy"] is None
    ]
    return f"\n\n**Without numbers:** {'; '.join(cells)}." if cells else ""


def _transferred(numbers: Measured) -> str:
    rows = [
        [name, strength, _counts(numbers, f"twin-{attack}"),
         *(_spread(numbers, system, f"twin-{attack}", metric, strength)
           for system in DEFENDED for metric in ("accuracy", "transferability"))]
        for attack, name in ATTACKS.items()
        for strength in _strengths(numbers, f"twin-{attack}")
    ]  # fmt: skip
    heads = [f"{SYSTEMS[system]}, {metric}" for system in DEFENDED for metric in ("accuracy", "transferability")]
    return (
        "## Examples of the undefended twin\n\nMade on the undefended network of the same seed. Transferability is the "
        "share of the examples that mislead the twin and mislead the defended network too.\n\n"
    ) + table(["attack on the twin", "ε", "images", *heads], rows)


def _beside(numbers: Measured) -> str:
    rows = [
        [SYSTEMS[system], what, *(_spread(numbers, system, sweep, m) for m in ("accuracy", "precision", "recall"))]
        for system in SYSTEMS
        for sweep, what in (("clean", "none"), *ATTACKS.items())
    ]
    return (
        f"## Precision and recall at ε = {USUAL}\n\nMacro averages over the classes; attacks on the network itself.\n\n"
    ) + table(["training", "attack", "accuracy", "precision", "recall"], rows)


def _origin(result: Result) -> str:
    about = result["provenance"]
    versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
    rows = [
        [name, training["epochs"] or "–", number(training["held_out_accuracy"]), number(training["seconds"], 0),
         training["weights"][:12]]
        for name, training in result["models"].items()
    ]  # fmt: skip
    doubts = sorted({doubt for evidence in result["evidence"].values() for doubt in evidence["doubts"]})
    said = f" **Doubts:** {'; '.join(doubts)}." if doubts else ""
    return (
        f"## Where this comes from\n\nMade {about['made']} by `python -m {MODULE} --data-set {result['source']} "
        f"--scale {result['scale']}` on {about['device']}, {about['cores']} cores; {versions}. Sweeping took "
        f"{about['sweeping']:,.0f} s. The result files hold every number by seed, the hashes of all models, and key "
        f"and digest of all evidence.{said}\n\n"
    ) + table(["model", "epochs", "clean accuracy on held-out images", "seconds", "weights"], rows)
