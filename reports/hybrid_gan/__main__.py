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

from reports import commands, running
from reports.hybrid_gan import building, data, measure, page, protocol
from reports.strips import draw


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where it cannot, with the reason."""
    given = _parser().parse_args(arguments)
    return commands.answered(lambda: _made(given))


def _made(given: argparse.Namespace) -> list[Path]:
    output = given.output or commands.OUTPUT
    return render(output) if given.render or _measured(given, output) else []


def _measured(given: argparse.Namespace, output: Path) -> bool:
    """Build the set, and judge networks that are trained on it unless only the set was asked for; say which."""
    scale = protocol.SCALES[given.scale]
    folder = (given.work or commands.RUNS) / f"hybrid_gan-{given.data_set}-{scale.name}"
    harness = running.harness_for(given)
    built = measure.build(given.data_set, scale, folder, harness, running.work(given))
    print(f"the hybrid set: {built.root / data.HYBRID}")
    if given.pictures:
        print(f"{building.pictures(built.root / data.HYBRID, given.pictures):,} pictures in {given.pictures}")
    if given.only == "set":
        return False
    result = measure.result(built, harness, running.work(given))
    commands.keep(output / f"hybrid_gan_{given.data_set}_{scale.name}.json", result)
    print(f"{given.data_set}, {scale.name}: {page.verdicts(result)}")
    return True


def render(output: Path) -> list[Path]:
    """Write pictures and page anew from all results in a folder."""
    results = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(output.glob("hybrid_gan_*.json"))]
    figures = commands.pages(output) / "figures"
    written = [draw(result["strips"], figures / page.figure(result), "") for result in results]
    return [*written, commands.write_page("hybrid-gan.md", page.MODULE, page.body(results), output)]


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
