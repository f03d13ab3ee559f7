"""The reports of all shards of a run as one: one verdict, one exit code, or every reason why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from robustness.errors import RobustnessError
from robustness.reporting.report import FORMAT, UNDECIDED, verdict

Plain = Mapping[str, Any]
Shards = Sequence[tuple[str, Plain]]
"""The name of each file, and the report in it."""

COUNTED = ("models", "gates", "skips")
"""Keys of the counts that are no number."""


class MergeError(RobustnessError):
    """Reports that are not all shards of one run, each once."""


def merge(shards: Shards) -> dict[str, Any]:
    """
    Return one report of all shards of a run; MergeError lists everything that keeps them from being one.

    A model is in one shard alone, with all its evidence: gates were decided there, and nothing is judged here.
    """
    if wrong := list(_problems(shards)):
        raise MergeError("\n  ".join([f"{len(wrong)} problem(s) in these shards, nothing is merged:", *wrong]))
    found = [report for _, report in sorted(shards, key=lambda each: each[1]["run"]["shard"]["number"])]
    order = [model["name"] for model in found[0]["run"]["shard"]["models"]]
    models = {model["name"]: model for report in found for model in report["models"]}
    tallies = {model["name"]: model for report in found for model in report["counts"]["models"]}
    counts = _counts([report["counts"] for report in found])
    counts["models"] = [tallies[name] for name in order if name in tallies]
    run = _run([report["run"] for report in found])
    return {
        "format": FORMAT,
        "verdict": verdict(counts, run),
        "counts": counts,
        "run": run,
        "notices": list(dict.fromkeys(notice for report in found for notice in (*report["notices"], *_unlike(found)))),
        "models": [models[name] for name in order if name in models],
    }


def exit_code(report: Plain) -> int:
    """Return the exit code of a merged run: 0 only where every shard's is 0 and the verdict is not red."""
    codes = [shard["exit"] for shard in report["run"]["shards"]]
    red = [code for code in codes if code not in (0, UNDECIDED)]
    return max(red or codes) or int(report["verdict"] == "failed")


def _problems(shards: Shards) -> Iterator[str]:
    """Say why reports are not all shards of one run, each once."""
    whole = [name for name, report in shards if not isinstance(report["run"].get("shard"), dict)]
    yield from (f"{name}: the report of a whole run, not of a shard (robustness run --shard I/N)" for name in whole)
    parts = [(name, report) for name, report in shards if name not in whole]
    if not parts:
        return
    first, expected = parts[0]
    unlike = []
    for name, report in parts[1:]:
        if differences := list(_differences(expected["run"], report["run"])):
            unlike.append(name)
            yield from (f"{first} and {name}: {difference}" for difference in differences)
    of = expected["run"]["shard"]["of"]
    numbers: dict[int, list[str]] = {}
    for name, report in parts:
        if name not in unlike:
            numbers.setdefault(report["run"]["shard"]["number"], []).append(name)
        yield from _strangers(name, report)
    for number in range(1, of + 1):
        if number not in numbers:
            yield f"shard {number} of {of} is missing: its job did not end, or its report was not brought here"
        elif len(numbers[number]) > 1:
            yield f"shard {number} of {of} is there {len(numbers[number])} times: {', '.join(numbers[number])}"


def _differences(one: Plain, other: Plain) -> Iterator[str]:
    """List how two shards' plans and versions differ; where they ran, and on which device, may."""
    from robustness.util.diff import diff_nested

    described = [
        {
            **{key: run["shard"][key] for key in ("of", "asked")},
            "models": {model["name"]: {**model} for model in run["shard"]["models"]},
            "versions": run["versions"],
        }
        for run in (one, other)
    ]
    yield from diff_nested(*described)
    if one["shard"]["plan"] != other["shard"]["plan"] and described[0] == described[1]:
        yield f"plan: {one['shard']['plan']} and {other['shard']['plan']}"


def _strangers(name: str, report: Plain) -> Iterator[str]:
    shard = report["run"]["shard"]
    own = {model["name"] for model in shard["models"] if model["shard"] == shard["number"]}
    for model in report["models"]:
        if model["name"] not in own:
            yield f"{name}: holds {model['name']}, which its plan gives to another shard: edited"


def _counts(every: Sequence[Plain]) -> dict[str, Any]:
    total: Counter[str] = Counter()
    gates: Counter[str] = Counter()
    for counts in every:
        total.update({key: n for key, n in counts.items() if key not in COUNTED})
        gates.update(counts["gates"])
    return {
        **total,
        "gates": dict(gates),
        "models": [],
        "skips": [skip for counts in every for skip in counts["skips"]],
    }


def _run(every: Sequence[Plain]) -> dict[str, Any]:
    """Describe the whole run: from the first start to the last end, and each shard's part of it."""
    started = [datetime.fromisoformat(run["started"]) for run in every]
    ended = [begin.timestamp() + run["seconds"] for begin, run in zip(started, every, strict=True)]
    told = ("started", "seconds", "device", "workers", "complete", "exit")
    return {
        "started": min(started).isoformat(timespec="seconds"),
        "seconds": round(max(ended) - min(started).timestamp(), 1),
        "versions": every[0]["versions"],
        "device": ", ".join(dict.fromkeys(str(run["device"]) for run in every)),
        "seed": every[0]["seed"],
        "workers": sum(run["workers"] for run in every),
        "shard": None,
        "shards": [{"number": run["shard"]["number"], **{key: run[key] for key in told}} for run in every],
        "complete": all(run["complete"] for run in every),
        "exit": None,
        "problems": [f"shard {run['shard']['number']}: {said}" for run in every for said in run["problems"]],
        "causes": list(dict.fromkeys(cause for run in every for cause in run.get("causes", ()))),
    }


def _unlike(found: Sequence[Plain]) -> Iterator[str]:
    """Note kinds of device that differ: each model is measured on one of them."""
    devices = dict.fromkeys(str(model["device"]) for report in found for model in report["models"])
    if len(devices) > 1:
        yield f"shards ran on different kinds of device ({', '.join(devices)}); each model's evidence is of one"
