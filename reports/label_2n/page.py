"""The pages of label-2n, made from its result files alone: one to read first, and its appendices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reports.label_2n import appendix, figures, tables
from reports.label_2n.criteria import verdicts as judged
from reports.label_2n.glance import glance
from reports.label_2n.numbers import READINGS, Measured, Reading, read, readings
from reports.label_2n.tables import TITLES
from reports.rows import unpacked
from reports.verdicts import counted, listed
from reports.writing import NOTHING

MODULE = "reports.label_2n"
Result = Mapping[str, Any]
SIZES = ("smoke", "short", "medium", "full")
"""Scales, from the smallest."""


def measured(result: Result, reading: Reading = READINGS[0]) -> Measured:
    """Return the rows of a result, as what the paper leaves open is read."""
    return read(result["source"], unpacked(result), result["scale"], reading)


def verdicts(result: Result) -> str:
    """Count the outcomes of the claims."""
    return counted(judged(measured(result)))


def bodies(results: Sequence[Result], causes: Sequence[Result] = (), images: str = "figures/") -> dict[str, str]:
    """Return what goes into each page by its file's name."""
    every = [(result, measured(result)) for result in results]
    made: dict[str, Iterator[str]] = {
        "label-2n.md": _front(every, images),
        "label-2n-tables.md": _tables(every, images),
        "label-2n-attacked.md": _each(every, appendix.attacked),
        "label-2n-causes.md": map(appendix.causes, causes),
        "label-2n-protocol.md": iter([appendix.scales()]),
    }
    return {name: "\n\n".join(parts) + "\n" if (parts := list(found)) else NOTHING for name, found in made.items()}


def largest(every: Sequence[tuple[Result, Measured]]) -> list[tuple[Result, Measured]]:
    """Return the result of the largest scale of each data set, in the order of the titles."""
    of: dict[str, tuple[Result, Measured]] = {}
    for result, numbers in sorted(every, key=lambda each: SIZES.index(each[1].scale)):
        of[numbers.source] = (result, numbers)
    return [of[source] for source in TITLES if source in of]


def _front(every: Sequence[tuple[Result, Measured]], images: str) -> Iterator[str]:
    if not every:
        return
    first = largest(every)
    yield "## At a glance"
    yield from glance(first)
    for result, numbers in first:
        yield _shown(result, numbers, "half_accuracy", images)
    for result, numbers in first:
        yield _titled(f"## the paper's claims\n\n{_reading(result)}{listed(judged(numbers))}", numbers)
        yield from (_titled(part, numbers) for part in tables.main(numbers))


def _tables(every: Sequence[tuple[Result, Measured]], images: str) -> Iterator[str]:
    """Return what the first page leaves out, and all of the scales that a larger one has taken the place of there."""
    first = [numbers for _, numbers in largest(every)]
    for result, numbers in every:
        if numbers not in first:
            yield _shown(result, numbers, "half_accuracy", images)
            yield _titled(f"## the paper's claims\n\n{_reading(result)}{listed(judged(numbers))}", numbers)
            yield from (_titled(part, numbers) for part in tables.main(numbers))
        yield _shown(result, numbers, "transferability", images)
        yield from (_titled(part, numbers) for part in tables.more(numbers))
        others = {reading: measured(result, reading) for reading in readings(unpacked(result))}
        if len(others) > 1:
            yield _titled(appendix.readings(others), numbers)
        yield _titled(appendix.origin(result), numbers)


def _each(
    every: Sequence[tuple[Result, Measured]], parts: Callable[[Result, Measured], Iterator[str]]
) -> Iterator[str]:
    for result, numbers in every:
        yield from (_titled(part, numbers) for part in parts(result, numbers))


def _titled(part: str, numbers: Measured) -> str:
    return part.replace("## ", f"## {TITLES[numbers.source]}, scale {numbers.scale}: ", 1)


def _reading(result: Result) -> str:
    """Say which reading a table shows, where there are others."""
    if len(readings(unpacked(result))) == 1:
        return ""
    threshold, examples = READINGS[0]
    return (
        f"Threshold of the filter {threshold}; BIN trained on examples of {examples}. The appendix has the other "
        "readings.\n\n"
    )


def _shown(result: Result, numbers: Measured, metric: str, images: str) -> str:
    name, what = figures.names(result["source"], result["scale"])[metric], figures.WHAT[metric]
    number = figures.NUMBERS.get((result["source"], metric), "Figure")
    of = f"{number}: {what} over ε ({TITLES[result['source']]}, scale {result['scale']})"
    return (
        f"![{of}]({images}{name})\n\n*{of}. Examples made on the substitute; means of the trainings, bars to the least "
        "and the largest.*"
    )
