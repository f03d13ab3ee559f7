"""
The five papers in one table, made from their result files alone.

    python -m reports.overview

writes ``docs/papers/index.md``: for every result its data, scale, seeds and device, a published number beside the
measured one, and the outcomes of the claims.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import paper
from reports.digits_noise.paper import PAPER as DIGITS
from reports.eyes_parseval.paper import PAPER as EYES
from reports.hybrid_gan.paper import PAPER as HYBRID
from reports.label_2n.paper import PAPER as LABEL
from reports.paper import Paper, Result
from reports.signs_adversarial.paper import PAPER as SIGNS
from reports.verdicts import RULE, count_outcomes
from reports.writing import ANOTHER_PROCESSOR, table
from robustness.util import output

MODULE, PAGE = "reports.overview", "index.md"
PAPERS: tuple[Paper, ...] = (DIGITS, SIGNS, LABEL, EYES, HYBRID)
HEADS = ["paper", "data, images", "scale", "seeds", "made on", "a number", "published", "measured", "claims"]


def row(of: Paper, result: Result) -> list[str]:
    """Return a result's row of the table."""
    provenance = result["provenance"]
    count = f"; {result['folds']} files" if result["folds"] > 1 else ""
    versions = ", ".join(f"{name} {provenance['versions'][name]}" for name in ("torch", "python"))
    return [
        f"[{of.name}]({of.name}.md)", data_sets(result), f"**{result['scale']}**",
        f"{', '.join(map(str, result['seeds']))}{count}", f"{provenance['device']}; {versions}", *of.headline(result),
        count_outcomes(of.verdicts(result), words=of.words),
    ]  # fmt: skip


def data_sets(result: Result) -> str:
    """Return the data sets of a result with their sizes; parts of one name, such as folds, are added."""
    parts: dict[str, dict[str, int]] = {}
    for record in result["provenance"]["data"].values():
        parts.setdefault(record["name"], {})[record["fingerprint"]] = record["n"]
    return "; ".join(
        f"{name} {sum(sizes.values()):,}" + (f" in {len(sizes)} parts" if len(sizes) > 1 else "")
        for name, sizes in parts.items()
    )


def body(folder: Path = paper.MEASURED) -> str:
    """Return the table of all results in a folder, after the meaning of its columns."""
    rows = [row(of, result) for of in PAPERS for result in of.results(folder)]
    words = (
        "The document of signs-adversarial prints no number, so its criteria are the project's and hold or do not hold."
    )
    return f"{RULE} {words} {ANOTHER_PROCESSOR}\n\n{table(HEADS, rows)}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 2 if it fails, with the reason."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n")[1])
    parser.parse_args(arguments)
    return paper.answer(lambda: [paper.write_page(PAGE, MODULE, body(), paper.MEASURED)])


if __name__ == "__main__":
    sys.exit(output.run(main))
