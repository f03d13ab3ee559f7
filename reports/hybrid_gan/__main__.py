"""
The paper hybrid-gan rebuilt: targets, generators, the hybrid set, classifiers and detectors, and their tables.

    python -m reports.hybrid_gan --data-set cifar10 --scale short

trains five targets and fits a generator to each, builds the hybrid set, trains four networks on it with either head and
on its real half alone, and sweeps all. All of it is kept in the store: interrupted anywhere, the same command goes on
from where it was. ``hybrid_gan_cifar10_short_targets.json`` is the result of one part; a part whose file stands is not
measured again, also where the store is another. ``docs/papers/hybrid-gan.md`` is made from all results alone.
``--only set`` stops at the hybrid set, ``--only resnet50`` measures one part, ``--pictures DIR`` writes the set as
folders of PNGs too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports import commands, folds, running
from reports.hybrid_gan import building, built, data, measure, page, parts, protocol, summary
from reports.strips import draw
from robustness.util import hardware, output


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 where it cannot, with the reason."""
    return commands.run(_parser().parse_args(arguments), _measure, render)


def _measure(given: argparse.Namespace, output: Path) -> bool:
    """Build the set, and judge networks that are trained on it unless only the set was asked for."""
    scale, harness, work = protocol.SCALES[given.scale], running.harness_for(given), running.work(given)
    folder = (given.work or commands.RUNS) / f"hybrid_gan-{given.data_set}-{scale.name}"
    begun = built.begin(given.data_set, scale, folder, harness)
    every = parts.parts(given.data_set)
    files = {part: folds.path(output, "hybrid_gan", given.data_set, scale.name, part) for part in every}
    made_of = parts.made_of(begun, harness)
    wanted = [part for part in every if given.only in (None, part)]
    missing = [part for part in wanted if not folds.holds(files[part], made_of)]
    for part in wanted:
        if part not in missing:
            running.say(f"{part} is measured: {files[part]}")
    if given.only == "set" or given.pictures or missing:
        made = built.build(begun, harness, work)
        print(f"the hybrid set: {begun.root / data.HYBRID}")
    if given.pictures:
        print(f"{building.pictures(begun.root / data.HYBRID, given.pictures):,} pictures in {given.pictures}")
    if given.only == "set":
        return False
    trainings = {part: [name for name in every[part] if part != parts.TARGETS] for part in missing}
    for group in parts.groups(trainings, work.workers or hardware.cpu_count()):
        trained = measure.train(made, [name for part in group for name in every[part]], harness, work)
        for part in group:
            found = measure.result(made, part, every[part], trained, harness, work)
            folds.keep(files[part], list(every).index(part), made_of, found)
    return True


def render(output: Path) -> list[Path]:
    """Write pictures and page anew from all results in a folder."""
    results = folds.results(output, "hybrid_gan")
    figures = commands.pages(output) / "figures"
    for result in results:
        print(f"{result['source']}, {result['scale']}: {page.summary(result)}")
    written = [draw(result["strips"], figures / page.figure(result), "{}") for result in results if result["strips"]]
    written += [summary.draw(page.found(result), figures / page.figure(result, "curves")) for result in results]
    return [*written, commands.write_page("hybrid-gan.md", page.MODULE, page.body(results), output)]


def _parser() -> argparse.ArgumentParser:
    parser = commands.parser(page.MODULE, __doc__, data.SOURCES, protocol.SCALES, ("cifar10", "short"))
    only = ["set", *parts.parts("cifar10")]
    parser.add_argument("--only", choices=only, help="stop when the hybrid set is there, or measure one part alone")
    parser.add_argument("--pictures", metavar="DIR", type=Path, help="write the hybrid set as folders of PNGs too")
    parser.add_argument("--work", metavar="DIR", type=Path, help="where cards and sets are written (reports/runs)")
    return parser


if __name__ == "__main__":
    sys.exit(output.run(main))
