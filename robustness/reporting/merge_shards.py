"""Merges the reports of all shards of a run into one, with one verdict and exit code, or lists every reason why not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from robustness.errors import RobustnessError
from robustness.reporting.report import FORMAT, RunReport, verdict
from robustness.reporting.report_types import GATE_FATES, OUTCOMES, SKIPPED, UNDECIDED
from robustness.reporting.run_info import Counts, GateTally, ModelTally, RunInfo, ShardPlan, ShardRun
from robustness.util.diff import diff_nested


class MergeError(RobustnessError):
    """Reports that are not all shards of one run, each once."""


def merge(shards: Sequence[tuple[str, RunReport]]) -> RunReport:
    """
    Merge the reports of all shards of a run, given with the names of their files.

    Each model is in a single shard, with all its evidence: gates were decided there, and nothing is judged here.

    Raises:
        MergeError: They are not all shards of one run, each once; it lists every reason.
    """
    if wrong := list(_problems(shards)):
        raise MergeError("\n  ".join([f"{len(wrong)} problem(s) in these shards, nothing was merged:", *wrong]))
    parts = sorted(_shards(shards), key=lambda part: part[1].number)
    reports = [report for _, _, report in parts]
    order = [model.name for model in parts[0][1].models]
    models = {model.name: model for report in reports for model in report.models}
    tallies = {tally.name: tally for report in reports for tally in report.counts.models}
    counts = _counts([report.counts for report in reports], [tallies[name] for name in order if name in tallies])
    run = _run([(plan, report.run) for _, plan, report in parts])
    return RunReport(
        format=FORMAT,
        verdict=verdict(counts, run),
        counts=counts,
        run=run,
        notices=list(dict.fromkeys(notice for report in reports for notice in (*report.notices, *_unlike(reports)))),
        models=[models[name] for name in order if name in models],
    )


def exit_code(report: RunReport) -> int:
    """
    Return the exit code of a merged run: 0 only if every shard's is 0 and the verdict is not "failed".

    A failure outranks an inconclusive gate, and that what was skipped.
    """
    codes = [shard.exit for shard in report.run.shards if shard.exit is not None]
    red = [code for code in codes if code not in (0, UNDECIDED, SKIPPED)]
    if red or UNDECIDED in codes:
        return max(red, default=UNDECIDED)
    return 1 if report.verdict == "failed" else SKIPPED if SKIPPED in codes else 0


def _shards(reports: Sequence[tuple[str, RunReport]]) -> list[tuple[str, ShardPlan, RunReport]]:
    """Return the reports of shards."""
    return [(name, report.run.shard, report) for name, report in reports if report.run.shard is not None]


def _problems(shards: Sequence[tuple[str, RunReport]]) -> Iterator[str]:
    """Explain why reports are not all the shards of one run, each once."""
    for name, report in shards:
        if report.run.shard is None:
            yield f"{name}: the report of a complete run, not of a shard (robustness run --shard I/N)"
    parts = _shards(shards)
    if not parts:
        return
    first, expected, whole = parts[0]
    numbers: dict[int, list[str]] = {}
    for name, plan, report in parts:
        if differences := list(_differences(expected, whole.run, plan, report.run)):
            yield from (f"{first} and {name}: {difference}" for difference in differences)
        else:
            numbers.setdefault(plan.number, []).append(name)
        yield from _strangers(name, plan, report)
    for number in range(1, expected.of + 1):
        if number not in numbers:
            yield f"shard {number} of {expected.of} is missing: its job did not finish, or its report is not here"
        elif len(numbers[number]) > 1:
            yield f"shard {number} of {expected.of} appears {len(numbers[number])} times: {', '.join(numbers[number])}"


def _differences(one: ShardPlan, first: RunInfo, other: ShardPlan, second: RunInfo) -> Iterator[str]:
    """List the differences between two shards' plans and versions; machine and device may differ."""
    described = [
        {
            "of": plan.of,
            "asked": plan.asked,
            "models": {model.name: model.as_json() for model in plan.models},
            "versions": run.versions,
        }
        for plan, run in ((one, first), (other, second))
    ]
    yield from diff_nested(*described)
    if one.plan != other.plan and described[0] == described[1]:
        yield f"plan: {one.plan} and {other.plan}"


def _strangers(name: str, plan: ShardPlan, report: RunReport) -> Iterator[str]:
    own = {model.name for model in plan.models if model.shard == plan.number}
    for model in report.models:
        if model.name not in own:
            yield f"{name}: contains {model.name}, which its plan assigns to another shard: edited"


def _counts(every: Sequence[Counts], models: list[ModelTally]) -> Counts:
    gates = [counts.gates.by_fate() for counts in every]
    return Counts.model_validate(
        {
            **{
                key: sum(counts.of(key) for counts in every)
                for key in ("claims", *OUTCOMES, "not selected", "measured")
            },
            "gates": GateTally.model_validate({fate: sum(each.get(fate, 0) for each in gates) for fate in GATE_FATES}),
            "models": models,
            "skips": [skip for counts in every for skip in counts.skips],
        }
    )


def _run(parts: Sequence[tuple[ShardPlan, RunInfo]]) -> RunInfo:
    """Describe the complete run: from the first start to the last end, and each shard's part."""
    every = [run for _, run in parts]
    started = [datetime.fromisoformat(run.started) for run in every]
    ended = [begin.timestamp() + run.seconds for begin, run in zip(started, every, strict=True)]
    fields = tuple(name for name in ShardRun.model_fields if name != "number")
    return RunInfo(
        causes=list(dict.fromkeys(cause for run in every for cause in run.causes)),
        started=min(started).isoformat(timespec="seconds"),
        seconds=round(max(ended) - min(started).timestamp(), 1),
        **{key: value for key in ("commit", "ci") if (value := _shared(getattr(run, key) for run in every))},
        versions=every[0].versions,
        device=", ".join(dict.fromkeys(run.device for run in every)),
        seed=every[0].seed,
        workers=sum(run.workers for run in every),
        shard=None,
        shards=[ShardRun(number=plan.number, **{key: getattr(run, key) for key in fields}) for plan, run in parts],
        complete=all(run.complete for run in every),
        exit=None,
        problems=[f"shard {plan.number}: {problem}" for plan, run in parts for problem in run.problems],
    )


def _shared(values: Iterable[str | None]) -> str | None:
    """Return a value that all shards have; a merged report names no commit if they tested several."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def _unlike(reports: Sequence[RunReport]) -> Iterator[str]:
    """Note different device types: each model ran on one of them."""
    devices = dict.fromkeys(str(model.device) for report in reports for model in report.models)
    if len(devices) > 1:
        yield f"shards ran on different kinds of device ({', '.join(devices)}); each model ran on one"
