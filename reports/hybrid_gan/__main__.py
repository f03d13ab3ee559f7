"""
The paper hybrid-gan rebuilt: targets, generators, the hybrid set, classifiers and detectors, and their tables.

    python -m reports.hybrid_gan --data-set cifar10 --scale short

trains five targets and fits a generator to each, builds the hybrid set, trains four networks on it with either head and
on its real half alone, and sweeps all. Interrupted anywhere, the same command goes on from where it was.
``hybrid_gan_cifar10_short.json`` is the result; ``docs/papers/hybrid-gan.md`` is made from all results alone.
``--only set`` stops at the hybrid set, ``--pictures DIR`` writes it as folders of PNGs too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import running
from reports.hybrid_gan import building, data, measure, page, protocol
from reports.strips import draw
from reports.writing import dumped, inserted
from robustness.errors import RobustnessError

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "reports" / "runs"
"""Where cards and sets of a run are written: below the checkout, so that they can import its models."""
OUTPUT = ROOT / "reports" / "measured"
DOCS = ROOT / "docs" / "papers"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where it cannot, with the reason."""
    given = _parser().parse_args(arguments)
    output = given.output or OUTPUT
    try:
        if not given.render and not _measured(given, output):
            return 0
        written = render(output, DOCS if output.resolve() == OUTPUT else output)
    except (RobustnessError, OSError) as error:
        running.say(f"error: {error}")
        return 2
    print("\n".join(f"written: {file}" for file in written))
    return 0


def _measured(given: argparse.Namespace, output: Path) -> bool:
    """Build the set, and judge networks that are trained on it unless only the set was asked for; say which."""
    scale, folder = protocol.SCALES[given.scale], (given.work or RUNS) / f"hybrid_gan-{given.data_set}-{given.scale}"
    harness = running.harness_for(given)
    built = measure.build(given.data_set, scale, folder, harness, given.workers)
    print(f"the hybrid set: {built.root / data.HYBRID}")
    if given.pictures:
        print(f"{building.pictures(built.root / data.HYBRID, given.pictures):,} pictures in {given.pictures}")
    if given.only == "set":
        return False
    result = measure.result(built, harness, given.workers)
    output.mkdir(parents=True, exist_ok=True)
    (output / f"hybrid_gan_{given.data_set}_{scale.name}.json").write_text(dumped(result), encoding="utf-8")
    print(f"{given.data_set}, {scale.name}: {page.verdicts(result)}")
    return True


def render(output: Path, docs: Path) -> list[Path]:
    """Write pictures and page anew from all results in a folder."""
    results = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(output.glob("hybrid_gan_*.json"))]
    written = [draw(result["strips"], docs / "figures" / page.figure(result), "") for result in results]
    file = docs / "hybrid-gan.md"
    text = page.body(results)
    if docs == DOCS:
        text = inserted(file.read_text(encoding="utf-8"), page.MODULE, text)
    file.write_text(text, encoding="utf-8")
    return [*written, file]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {page.MODULE}", description=(__doc__ or "").split("\n")[1])
    parser.add_argument("--data-set", choices=data.SOURCES, default="cifar10")
    parser.add_argument("--scale", choices=sorted(protocol.SCALES), default="short")
    parser.add_argument("--only", choices=["set"], help="stop when the hybrid set is there")
    parser.add_argument("--pictures", metavar="DIR", type=Path, help="write the hybrid set as folders of PNGs too")
    parser.add_argument("--work", metavar="DIR", type=Path, help="where cards and sets are written (reports/runs)")
    running.add_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
