"""The first lines of label-2n's page: at which scale, what the paper prints beside what was measured, what came out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from reports.comparing import compared
from reports.label_2n import published
from reports.label_2n.criteria import DEFENCES, STRONG, transferred, verdicts
from reports.label_2n.numbers import Measured
from reports.label_2n.tables import NAMES, TITLES, systems
from reports.rows import mean
from reports.verdicts import Outcome, counted
from reports.writing import number, seeds, table

Result = Mapping[str, Any]
SAID = {"reproduced": "Reproduced", "not reproduced": "Not reproduced"}
OTHERS = (
    "Another processor rounds otherwise and trains another net: the same command elsewhere gives other numbers, of "
    "which the spread over folds and seeds gives an idea."
)


def trained(result: Result) -> str:
    """Say of which networks, folds and seeds the numbers are."""
    plan, runs = result["plan"], result["runs"]
    folds = sorted({run["fold"] + 1 for run in runs})
    of = runs[0]["of"]
    which = f"{of} folds" if len(folds) == of else f"fold{'s' * (len(folds) > 1)} {_listed(folds)} of {of}"
    patience = ", early stopping" if "patience" in plan else ""
    return (
        f"networks at {result['width']:g} of the paper's width, {plan['epochs']} epochs{patience}, {which}, "
        f"{seeds(result)}"
    )


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def glance(each: Sequence[tuple[Result, Measured]]) -> Iterator[str]:
    """Return the paragraphs, for the result of each data set with its rows."""
    lines = []
    for result, measured in each:
        found = sorted(verdicts(measured), key=lambda verdict: get_args(Outcome).index(verdict.outcome))
        lines.append(f"- **{TITLES[measured.source]}, scale {measured.scale}** ({trained(result)}): {counted(found)}.")
        for outcome, word in SAID.items():
            those = [verdict.claim for verdict in found if verdict.outcome == outcome]
            if those:
                lines.append(f"    - {word}: {'; '.join(those)}.")
        if attacked := _attacked(measured):
            lines.append(f"    - {attacked}")
    paper = "The paper: the whole width, up to 200 epochs with early stopping, five folds, seeds not said."
    yield "\n".join([*lines, f"- {paper} {OTHERS}"])
    heads = ["what the paper says", "the paper", *(f"{TITLES[m.source]}, {m.scale}" for _, m in each)]
    rows = [[said, due, *(show(m) for _, m in each)] for said, (due, show) in PUBLISHED.items()]
    yield (
        "Published beside measured; all of it with the filter. Everywhere numbers are means over the trainings of a "
        "system (folds, or seeds), and after ± their standard deviations.\n\n"
    ) + table(heads, rows)


def _attacked(measured: Measured) -> str:
    """Say what is left where the attacker sees the defence."""
    strengths = measured.strengths("adaptive")
    if not strengths:
        return ""
    last = strengths[-1]
    found = {NAMES[s]: measured.mean(s, "adaptive", "undetected_error_rate", last, "few") for s in systems(measured)}
    known = {name: value for name, value in found.items() if math.isfinite(value)}
    if "2N" not in known:
        return ""
    lines = ", ".join(f"{name} {value:.2f}" for name, value in sorted(known.items(), key=lambda each: each[1]))
    return (
        f"An attacker who sees the defence, as the paper's does not: share of images that are undetected and wrong "
        f"after many adaptive steps within ε {last}: {lines}."
    )


def _top(value: Callable[[Measured, str], float], *, lowest: bool = False) -> Callable[[Measured], str]:
    """Show the defence with the highest value, and 2N's where it is another one."""

    def show(measured: Measured) -> str:
        found = {name: value(measured, system) for system, name in DEFENCES.items()}
        if not all(map(math.isfinite, found.values())):
            return "–"
        first = (min if lowest else max)(found, key=lambda name: found[name])
        own = "" if first == "2N" else f"; 2N {found['2N']:.4f}"
        return f"{first} {found[first]:.4f}{own}"

    return show


def _number(value: float, places: int = 4) -> str:
    return number(value if math.isfinite(value) else None, places)


def _mixed(measured: Measured, system: str) -> float:
    return measured.mean(system, "mixed", "selective_accuracy")


def _welch(measured: Measured) -> str:
    values = (measured.folds(system, "mixed", "selective_accuracy") for system in ("null", "2n"))
    return _number(compared(*values).means)


def _ratio(measured: Measured) -> str:
    rival = published.of(measured.source)["transferability_rival"]
    own, other = transferred(measured, "2n"), transferred(measured, rival)
    return f"{DEFENCES[rival]} {_number(other)}, 2N {_number(own)}" + (f": {other / own:.1f}" if own > 0 else "")


def _largest(measured: Measured) -> str:
    return _number(max(measured.curve("2n", "selective_transferability"), default=math.nan))


def _printed(key: str) -> str:
    """Write a printed number of each data set that has it."""
    each = {TITLES[source]: about[key] for source, about in published.load().items() if key in about}
    return ", ".join(f"{value} ({title})" for title, value in each.items())


PUBLISHED: Mapping[str, tuple[str, Callable[[Measured], str]]] = {
    "best mean accuracy": ("2N (GTSRB), NULL (CIFAR-10)", _top(_mixed)),
    "NULL's mean accuracy above 2N's": (
        _printed("accuracy_null_above_2n"),
        lambda m: _number(_mixed(m, "null") - _mixed(m, "2n")),
    ),
    "Welch's p of NULL's and 2N's accuracy": (_printed("welch_accuracy_null"), _welch),
    f"best accuracy for ε above {STRONG:g}": (
        "2N",
        _top(lambda m, s: mean(m.curve(s, "half_selective_accuracy", above=STRONG))),
    ),
    "range of 2N's accuracy over ε": (
        "nearly constant",
        lambda m: _number(m.mean("2n", "shape", "selective_accuracy_range")),
    ),
    "lowest sensitivity of the accuracy": (
        "2N",
        _top(lambda m, s: m.mean(s, "shape", "selective_max_accuracy_slope"), lowest=True),
    ),
    "largest transferability to 2N over ε": ("almost zero", _largest),
    "mean transferability, that of the second best over 2N's": (_printed("transferability_ratio"), _ratio),
}
"""What the text still has of the results: what it says, and what shows the measured value."""
