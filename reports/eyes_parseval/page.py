"""The page of eyes-parseval, made from its result files alone; published numbers beside measured ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from reports.comparing import compared
from reports.eyes_parseval import figures
from reports.eyes_parseval.criteria import CLAIMS, drops, published
from reports.eyes_parseval.protocol import DENSE, EPSILONS, EXAMPLES, NATURAL, SHARES, SYSTEMS, TWINS, augmented
from reports.eyes_parseval.published import NAMES, printed
from reports.eyes_parseval.summary import short
from reports.rows import Measured
from reports.verdicts import counted, listed
from reports.writing import joined, number, seeds, spread, summary, table

MODULE = "reports.eyes_parseval"
WRITTEN = (
    "Each criterion was written before the run, but for the last two: the README's finding was added when the numbers "
    "were there, before it was counted, and fully connected networks wait for a run."
)
Result = Mapping[str, Any]


def body(results: Sequence[Result], images: str = "figures/") -> str:
    """Return everything below the heading of the page, one part a result."""
    return joined(results, lambda result: _parts(result, images))


def verdicts(result: Result) -> str:
    """Count the outcomes of the claims."""
    return counted(decide(Measured.of(result)) for decide in CLAIMS)


def _parts(result: Result, images: str) -> Iterator[str]:
    numbers, title = Measured.of(result), result["source"]
    judged = [decide(numbers) for decide in CLAIMS]
    first, *others = figures.names(result["source"], result["scale"]).items()
    parts = [short(result, numbers, judged), _shown([first], images), _what(result)]
    parts += [
        f"## the report's claims\n\n{WRITTEN} {listed(judged)}",
        _accuracy(numbers),
        _lost(numbers),
        _sizes(numbers),
    ]
    parts += [_beside(numbers), _natural(numbers), _approach(numbers)]
    parts += ["## further figures\n\n" + _shown(others, images), _origin(result)]
    return (part.replace("## ", f"## {title}: ", 1) for part in parts)


def _what(result: Result) -> str:
    sizes = sorted({about["n"] for about in result["provenance"]["data"].values()})
    plan = result["plan"]
    return (
        f"## what was measured\n\nScale **{result['scale']}**: {result['folds']} of {result['folds_of_the_protocol']} "
        f"folds, {plan['epochs']} epochs, tested on {sizes[0]:,} to {sizes[-1]:,} held-out crops each, "
        f"{seeds(result)}, {result['provenance']['device']}. **Data: {result['about']}.** Published "
        "accuracies are of other crops and four classes; only the order of the models and what they lose over ratios "
        "may be compared.\nNumbers are means "
        f"± standard deviations over the folds. {verdicts(result).capitalize()}."
    )


def _spread(values: Sequence[float]) -> str:
    return spread(summary(values), 3) if values else "–"


def _attacker(system: str, sweep: str) -> str:
    return f"made on the {NAMES[TWINS[system]]}" if sweep == "twin-snr" else "made on itself"


def _systems(numbers: Measured) -> list[str]:
    """Return the systems of tables 8 and 10, and the fully connected networks if they are measured."""
    return [*SYSTEMS, *(system for system in DENSE if numbers.folds(system, "clean", "accuracy"))]


def _accuracy(numbers: Measured) -> str:
    """Table 8 and 10, every row with who attacks whom."""
    ratios, rows = [str(ratio) for ratio in printed()["ratios"]], []
    for system in _systems(numbers):
        for sweep in dict.fromkeys((published(system), "fgsm-snr")):
            cells = [numbers.folds(system, "clean", "accuracy")]
            cells += [numbers.folds(system, sweep, "accuracy", ratio) for ratio in ratios]
            rows.append([NAMES[system], _attacker(system, sweep), "measured", *map(_spread, cells)])
            if sweep == published(system) and system in printed()["table_8"]:
                there = [number(value, 3) for value in printed()["table_8"][system]]
                rows.append(["", "", "published", *there])
    heads = ["model", "FGSM examples", "", "clean", *(f"{ratio} dB" for ratio in ratios)]
    return "## tables 8 and 10: accuracy under FGSM by signal-to-noise ratio\n\n" + table(heads, rows)


def _lost(numbers: Measured) -> str:
    rows = []
    for system in SYSTEMS:
        there = printed()["table_8"][system]
        own, white = drops(numbers, system, published(system)), drops(numbers, system, "fgsm-snr")
        rows.append([NAMES[system], _spread(own), f"{there[1] - there[4]:.3f}", _spread(white)])
    tests = []
    for kind, sweep in (("wrn", "fgsm-snr"), ("parseval", "fgsm-snr")):
        for other in (published(f"{kind}-adv"), "fgsm-snr"):
            p = compared(drops(numbers, f"{kind}-adv", other), drops(numbers, kind, sweep)).means
            tests.append(
                f"{NAMES[f'{kind}-adv']} ({_attacker(f'{kind}-adv', other)}) against {NAMES[kind]}: p = {p:.2g}"
            )
    return (
        "## what is lost from 50 to 33 dB\n\n"
        + table(["model", "as published", "there", "made on itself"], rows)
        + f"\n\nWelch's test over folds: {'; '.join(tests)}."
    )


def _sizes(numbers: Measured) -> str:
    rows = [
        [NAMES[system], what, *(_spread(numbers.folds(system, sweep, "accuracy", f"{e:g}")) for e in EPSILONS)]
        for system in _systems(numbers)
        for sweep, what in (("fgsm", "FGSM on itself"), ("noise", "uniform noise"))
    ]
    heads = ["model", "", *(f"ε {epsilon:g}" for epsilon in EPSILONS)]
    return "## accuracy by ε, in standard deviations of each crop\n\n" + table(heads, rows)


def _beside(numbers: Measured) -> str:
    rows = []
    for system in _systems(numbers):
        for sweep, ratio in (("clean", "0"), (published(system), "33")):
            cells = [numbers.folds(system, sweep, m, ratio) for m in ("accuracy", "precision", "recall", "roc_auc")]
            moved = numbers.folds(system, sweep, "transferability", ratio) if sweep == "twin-snr" else []
            what = "clean" if sweep == "clean" else f"33 dB, {_attacker(system, sweep)}"
            rows.append([NAMES[system], what, *map(_spread, cells), _spread(moved)])
    heads = ["model", "", "accuracy", "precision", "recall", "ROC AUC", "transferability"]
    return (
        "## precision, recall, ROC AUC and transferability\n\nPrecision and recall are macro averages, ROC AUC is "
        "micro-averaged.\n\n"
    ) + table(heads, rows)


def _approach(numbers: Measured) -> str:
    """Approach 1: what was published beside what was measured, and every network under both kinds of attack."""
    there = {(e, share): row for e, rows in printed()["approach_1"].items() for share, *row in rows}
    trained = [cell for cell in product([f"{e:g}" for e in EPSILONS], SHARES) if _folds_of(numbers, *cell)]
    count = max((_folds_of(numbers, *cell) for cell in trained), default=0)
    rows, beyond = [], []
    for epsilon, share in trained:
        systems = [augmented(kind, float(epsilon), share) for kind in EXAMPLES]
        clean = [numbers.folds(system, "clean", "accuracy") for system in systems]
        under = [numbers.folds(system, sweep, "accuracy", epsilon) for system in systems for sweep in EXAMPLES]
        pairs = zip(map(_spread, (*clean, under[0])), there[epsilon, round(100 * share)], strict=True)
        rows.append([epsilon, f"{share:.0%}", *(cell for own, p in pairs for cell in (own, number(p, 3)))])
        beyond.append([epsilon, f"{share:.0%}", *map(_spread, under)])
    for epsilon in dict.fromkeys(epsilon for epsilon, _ in trained):
        without = [_spread(numbers.folds("wrn", sweep, "accuracy", epsilon)[:count]) for sweep in EXAMPLES]
        beyond.append([epsilon, "none", *without, "", ""])
    heads = ["ε", "share", "FGSM-augmented", "there", "noise-augmented", "there", "FGSM-augmented, attacked", "there"]
    each = [f"{kind}-augmented, {under}" for kind in ("FGSM", "noise") for under in ("under FGSM", "under noise")]
    plain = _spread(numbers.folds("wrn", "clean", "accuracy")[:count])
    return (
        "## approach 1: trained on stored examples too\n\nAccuracy on clean crops, and under FGSM of the same ε on "
        f"the network itself, over {count} folds. Without examples, over the same: {plain} (there 0.696).\n\n"
        + table(heads, rows)
        + "\n\nEach under FGSM on itself and under uniform noise, of the ε that it was trained with:\n\n"
        + table(["ε", "share", *each], beyond)
    )


def _folds_of(numbers: Measured, epsilon: str, share: float) -> int:
    """Count the folds in which a cell of approach 1 was trained."""
    return max(len(numbers.folds(augmented(kind, float(epsilon), share), "clean", "accuracy")) for kind in EXAMPLES)


def _natural(numbers: Measured) -> str:
    """Return the accuracy under natural changes, the README's second aim."""
    rows = [
        [NAMES[system], kind, *(_spread(numbers.folds(system, kind, "accuracy", name)) for name in names), *fill]
        for kind in NATURAL
        if (names := numbers.strengths(kind))
        for fill in [[""] * (max(map(len, NATURAL.values())) - len(names))]
        for system in _systems(numbers)
    ]
    head = "## natural changes\n\n"
    if not rows:
        return f"{head}Not measured yet: no result here has {', '.join(NATURAL)}, which the protocol now sweeps."
    strengths = "; ".join(f"{kind} {', '.join(numbers.strengths(kind))}" for kind in NATURAL)
    heads = ["model", "change", "weakest", *("" for _ in range(max(map(len, NATURAL.values())) - 1))]
    return f"{head}Accuracy at the strengths in their order: {strengths}.\n\n" + table(heads, rows)


def _shown(figures: Iterable[tuple[str, str]], images: str) -> str:
    """Return links to figures, with what they show."""
    links = "\n\n".join(f"![{what}]({images}{name})" for what, name in figures)
    return f"{links}\n\nMeans of the folds; bars to the least and the largest."


def _origin(result: Result) -> str:
    told, models = result["provenance"], result["models"]
    versions = ", ".join(f"{name} {value}" for name, value in told["versions"].items())
    seconds = sum(about["seconds"] or 0 for about in models.values())
    doubts = sorted({doubt for about in result["evidence"].values() for doubt in about["doubts"]})
    said = f" **Doubts:** {'; '.join(doubts)}." if doubts else ""
    return (
        f"## where this comes from\n\nMade {told['made']} by `python -m {MODULE} --data-set {result['source']} --scale "
        f"{result['scale']}` on {told['device']}, {told['cores']} cores; {versions}. {len(models)} trainings took "
        f"{seconds:,.0f} s of one core, sweeping {told['sweeping']:,.0f} s of the last runs. The result files "
        f"hold every number by fold, the hashes of all models, and key and digest of all evidence.{said}"
    )
