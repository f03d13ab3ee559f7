"""
The five papers in one table, made from their result files alone.

    python -m reports.overview

writes ``docs/papers/index.md``: for every result its data, scale, seeds and device, a published number beside the
measured one, and the outcomes of the claims.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reports import commands, folds
from reports.digits_noise import criteria as digits
from reports.eyes_parseval import criteria as eyes
from reports.eyes_parseval.published import NAMES
from reports.hybrid_gan import page as hybrid
from reports.hybrid_gan.protocol import CLASSIFIERS
from reports.label_2n.criteria import verdicts as label_verdicts
from reports.label_2n.glance import PUBLISHED
from reports.label_2n.page import measured as label_measured
from reports.rows import Measured
from reports.signs_adversarial import criteria as signs
from reports.signs_adversarial import page as signs_page
from reports.signs_adversarial.protocol import SYSTEMS
from reports.verdicts import OWN, RULE, Verdict, counted
from reports.writing import ANOTHER_PROCESSOR, printed, table
from robustness.util import output

MODULE = "reports.overview"
PAGE = "index.md"
Result = Mapping[str, Any]


class Row(NamedTuple):
    """A result of a paper: the paper's key, its file, one number beside the published one, and all verdicts."""

    paper: str
    result: Result
    number: str
    published: str
    measured: str
    judged: Sequence[Verdict]


def rows(folder: Path) -> Iterator[Row]:
    """Return a row per result of a folder, in the order of the papers."""
    for file in sorted(folder.glob("digits_noise.json")):
        yield _digits(json.loads(file.read_text(encoding="utf-8")))
    for name, row in (
        ("signs_adversarial", _signs),
        ("label_2n", _label),
        ("eyes_parseval", _eyes),
        ("hybrid_gan", _hybrid),
    ):
        yield from map(row, folds.results(folder, name))


def _digits(result: Result) -> Row:
    judged = digits.verdicts(result)
    falls = next(verdict for verdict in judged if "table 5" in verdict.claim)
    last = printed("digits_noise")["accuracy"]["values"][-1]
    return Row("digits-noise", result, "accuracy at V = 1, and table 5", f"{last:.4f}", falls.numbers, judged)


def _signs(result: Result) -> Row:
    numbers = Measured.of(result)
    left = {name: signs.mean(numbers, system, "pgd") for system, name in SYSTEMS.items()}
    shown = ", ".join(f"{name} {_shown(value)}" for name, value in left.items())
    number = f"accuracy under PGD at {signs.BUDGET}"
    return Row("signs-adversarial", result, number, "no number is printed", shown, signs_page.verdicts(result))


def _label(result: Result) -> Row:
    numbers = label_measured(result)
    number, (published, show) = next(iter(PUBLISHED.items()))
    return Row("label-2n", result, f"{number}, filtered", published, show(numbers), label_verdicts(numbers))


def _eyes(result: Result) -> Row:
    numbers = Measured.of(result)
    there, system = printed("eyes_parseval")["table_8"], "wrn-adv"
    own = [numbers.mean(system, "clean", "accuracy"), numbers.mean(system, eyes.published(system), "accuracy", "33")]
    number = f"accuracy of {NAMES[system]}, clean and at 33 dB"
    published = f"{there[system][0]:.3f}, {there[system][4]:.3f}"
    judged = [decide(numbers) for decide in eyes.CLAIMS]
    return Row("eyes-parseval", result, number, published, ", ".join(map(_shown, own)), judged)


def _hybrid(result: Result) -> Row:
    numbers = hybrid.found(result)
    there = [printed("hybrid_gan")["trained"][name][3] / 100 for name in CLASSIFIERS]
    own = {
        title: [numbers.value(f"{head}-{name}", "hybrid") for name in CLASSIFIERS]
        for head, title in hybrid.HEAD_TITLES.items()
    }
    shown = "; ".join(f"{title} {_range(values)}" for title, values in own.items())
    number = "accuracy of four networks on the hybrid test set"
    return Row("hybrid-gan", result, number, _range(there), shown, hybrid.judged(result))


def _shown(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "–"


def _range(values: Sequence[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    return f"{min(known):.3f} to {max(known):.3f}" if known else "–"


def data_sets(found: Any) -> Iterator[Mapping[str, Any]]:
    """Return every data set that a provenance names, however deep."""
    if isinstance(found, Mapping):
        if {"name", "n", "fingerprint"} <= set(found):
            yield found
        for value in found.values():
            yield from data_sets(value)


def _data(result: Result) -> str:
    """Return the data sets with their sizes; parts of one name, such as folds, are added."""
    parts: dict[str, dict[str, int]] = {}
    for of in data_sets(result["provenance"]["data"]):
        parts.setdefault(of["name"], {})[of["fingerprint"]] = of["n"]
    return "; ".join(
        f"{name} {sum(sizes.values()):,}" + (f" in {len(sizes)} parts" if len(sizes) > 1 else "")
        for name, sizes in parts.items()
    )


def body(every: Sequence[Row]) -> str:
    """Return the table with what its columns say."""
    cells = []
    for row in every:
        about = row.result["provenance"]
        seeds = row.result.get("seeds") or about["seeds"]
        count = f"; {row.result['folds']} files" if row.result.get("folds", 1) > 1 else ""
        versions = ", ".join(f"{name} {about['versions'][name]}" for name in ("torch", "python"))
        cells.append(
            [
                f"[{row.paper}]({row.paper}.md)",
                _data(row.result),
                f"**{row.result['scale']}**",
                f"{', '.join(map(str, seeds))}{count}",
                f"{about['device']}; {versions}",
                row.number,
                row.published,
                row.measured,
                _counted(row),
            ]
        )
    heads = ["paper", "data, images", "scale", "seeds", "made on", "a number", "published", "measured", "claims"]
    return (
        f"{RULE} The document of signs-adversarial prints no number, so its criteria are the project's and hold or do "
        f"not hold. {ANOTHER_PROCESSOR}\n\n"
    ) + f"{table(heads, cells)}\n"


def _counted(row: Row) -> str:
    words = counted(row.judged)
    if row.paper == "signs-adversarial":
        for outcome in sorted(OWN, key=len, reverse=True):
            words = words.replace(outcome, OWN[outcome])
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 if it cannot, with the reason."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[1])
    parser.parse_args(arguments)
    return commands.answered(
        lambda: [commands.write_page(PAGE, MODULE, body(list(rows(commands.OUTPUT))), commands.OUTPUT)]
    )


if __name__ == "__main__":
    sys.exit(output.run(main))
