"""`robustness plan`: the expected cost of sweeps: passes, evidence, memory, time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from robustness.cards import Card
from robustness.engines import EngineSpec
from robustness.errors import RobustnessError
from robustness.planning.costs import Cost, Plan
from robustness.planning.planner import Planner
from robustness.util import hardware
from robustness.util.text import size
from robustness.workspace.workspace import Workspace


def plan_lines(workspace: Workspace, cards: Sequence[Card], engine: EngineSpec) -> tuple[list[str], list[str]]:
    """Return the lines of a plan, and the errors of cards that it lacks."""
    started = time.perf_counter()
    planner, plan, errors = Planner(workspace), Plan(), list[str]()
    for card in cards:
        try:
            with workspace.progress(f"timing the sweeps of {card.name}") as progress:
                plan += planner.plan(card, progress)
        except RobustnessError as error:
            errors.append(str(error) if card.name in str(error) else f"{card.name}: {error}")
    took = time.perf_counter() - started
    count, threads = share(engine, planner.threads)
    lines = [*table(plan, threads), *_summary(workspace, plan, engine.name, count, threads, planner.threads)]
    if plan.costs:
        lines.append(_measured_on(workspace, plan, planner.threads, took))
    if errors:
        lines.append(f"NOT IN THIS PLAN: {len(errors)} of {len(cards)} cards, because:")
    return lines, errors


def share(engine: EngineSpec, threads: int) -> tuple[int, int]:
    """
    Return the workers, and the threads of each: the local engine's share one machine, Ray's have their own cores.

    >>> engines = EngineSpec(), EngineSpec(workers=4), EngineSpec("ray"), EngineSpec("ray", cores=4)
    >>> tuple(share(engine, 8) for engine in engines)
    ((1, 8), (4, 2), (8, 1), (2, 4))
    >>> share(EngineSpec("ray", workers=100), 8)
    (100, 1)
    """
    if engine.name == "ray":
        return engine.workers or max(1, threads // engine.cores), engine.cores
    workers = engine.workers or 1
    return workers, max(1, threads // workers)


def table(plan: Plan, threads: int) -> Iterator[str]:
    """Return one line per sweep, those in the store at the end."""
    from tabulate import tabulate

    rows = [_row(cost, threads) for cost in plan.costs]
    rows += [[label, *[""] * 5, "in the store"] for label in plan.stored]
    header = ["sweep", "images", "strengths", "forward", "backward", "evidence", "time"]
    align = ["left", *["right"] * 6]
    yield from tabulate(rows, header, disable_numparse=True, colalign=align if rows else None).splitlines()
    yield ""


def _row(cost: Cost, threads: int) -> list[str]:
    passes = [str(cost.forward), str(cost.backward)]
    return [
        cost.label, f"{cost.images:,}", str(cost.strengths), *passes, size(cost.evidence), span(cost.seconds(threads))
    ]  # fmt: skip


def _summary(workspace: Workspace, plan: Plan, engine: str, workers: int, threads: int, abreast: int) -> Iterator[str]:
    stored = f"; {len(plan.stored)} are in the store and cost nothing" if plan.stored else ""
    if not plan.costs:
        yield f"nothing to compute: all {len(plan.stored)} sweeps are in the store" if plan.stored else "nothing"
    else:
        yield (
            f"{len(plan.costs)} sweeps to compute{stored}: {plan.passes('forward'):,} images forward, "
            f"{plan.passes('backward'):,} backward, {size(plan.evidence)} of evidence"
        )
        yield (
            f"time: {span(plan.seconds(engine, workers, threads))} on the {engine} engine, {workers} worker(s) of "
            f"{threads} thread(s), {hardware.device_fingerprint(workspace.device)}"
        )
        yield f"memory: {size(plan.memory)} per worker, measured with {abreast} batches at a time"
        if engine == "ray":
            yield "starting Ray and its workers, and the network, are not included"
    for note in plan.notes:
        yield f"not counted: {note}"


def _measured_on(workspace: Workspace, plan: Plan, threads: int, seconds: float) -> str:
    """Describe the measurement behind the times."""
    sizes = sorted({cost.batch_size for cost in plan.costs})
    batches = " to ".join(str(each) for each in dict.fromkeys((sizes[0], sizes[-1])))
    return (
        f"extrapolated from the first batches of each sweep, measured in {seconds:.1f} s: {batches} images per batch, "
        f"up to {threads} batches at a time, {hardware.device_fingerprint(workspace.device)}; other load or another "
        "kind of machine changes the time"
    )


def span(seconds: float) -> str:
    """
    Format a duration.

    >>> span(0.04), span(12.3), span(75), span(7320), span(9e5)
    ('0.04 s', '12.3 s', '1 min 15 s', '2 h 02 min', '10 d 10 h')
    """
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"
