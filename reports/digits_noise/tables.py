"""The digits-noise paper's tables as Markdown sections, published beside measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from reports.digits_noise import published
from reports.digits_noise.numbers import METRICS, READINGS
from reports.writing import number, spread, table

NAMES = {"f1[0]": "F1[0]", "precision": "precision, macro", "recall": "recall, macro", "f1": "F1, macro"}
COLUMNS = {"full": "measured", "short": "short run", "smoke": "smoke run"}
"""What the column beside the published one is called: no table of a reduced run says "measured"."""

Result = Mapping[str, Any]


def sections(result: Result) -> list[str]:
    """Give every table in the order of the paper, then what is not in the paper."""
    found = [_clean(result)]
    found += [_confusion(result, number, e) for number, e in ((1, 1), (2, 10)) if e in result["provenance"]["epochs"]]
    found += [_noise(result), _readings(result), _groups(result), _collecting(result), _macro(result)]
    return [*found, _by_epochs(result)]


def _clean(result: Result) -> str:
    """Table 3."""
    measured, kinds = result["tables"]["clean_by_epochs"], ("published", COLUMNS[result["scale"]])
    rows = []
    for metric in METRICS:
        pairs = [(number(published.after(int(e)).get(metric)), spread(measured[e][metric])) for e in measured]
        rows.append([NAMES.get(metric, metric), *(cell for pair in pairs for cell in pair)])
    heads = ["metric", *(f"{kind}, {e} ep." for e in measured for kind in kinds)]
    return (
        "## Table 3: without noise\n\nThe paper calls digit 0's precision, recall and F1 the system's; here they are "
        "`[0]`, with macro averages below.\nWith as many images of each class, macro recall is accuracy.\n\n"
    ) + table(heads, rows)


def _confusion(result: Result, number: int, epochs: int) -> str:
    """Tables 1 and 2."""
    seed = result["provenance"]["seeds"][0]
    entry = next(c for c in result["counts"] if (c["seed"], c["epochs"], c["reading"]) == (seed, epochs, "bounded"))
    pairs = zip(published.confusion(epochs).tolist(), entry["matrices"][0], strict=True)
    rows = [
        [f"**{digit}**", *(f"{p} / {m}" for p, m in zip(row, own, strict=True))]
        for digit, (row, own) in enumerate(pairs)
    ]
    return (
        f"## Table {number}: confusion matrix, epochs = {epochs}\n\nPublished / {COLUMNS[result['scale']]} with seed "
        f"{seed}, in images. Rows are the true digit, columns the prediction.\n\n"
    ) + table(["", *map(str, range(len(rows)))], rows)


def _noise(result: Result) -> str:
    """Tables 5 to 8."""
    noise, printed = result["tables"]["noise"], len(published.load()["recall"]["values"])
    rows = []
    for i, v in enumerate(result["V"]):
        row = [f"{v:.1f}"]
        for metric, curve in published.curves().items():
            known = number(curve[i])
            row += [f"*{known}*" if metric.startswith("recall") and i >= printed else known, spread(noise[metric][i])]
        rows.append(row)
    kinds = ("published", COLUMNS[result["scale"]])
    heads = ["V", *(f"{NAMES.get(m, m)} {kind}" for m in published.curves() for kind in kinds)]
    return (
        f"## Tables 5 to 8: under noise\n\nThe reading `bounded`: NI = I + V·R, {READINGS['bounded']}, NI clipped to "
        "[0, 1].\nIn italics: lost from the text, computed from precision and F1.\n\n"
        f"{table(heads, rows)}\n\nHow far the mean over seeds lies from each published curve, and in how many "
        f"deviations over seeds where it is farthest:\n\n{_fits(result)}"
    )


def _fits(result: Result) -> str:
    rows = []
    for metric, fit in result["tables"]["fit"].items():
        most = fit["largest"]
        at = [f"{most['V']:.1f}", number(most["published"]), number(most["measured"])] if most else ["–"] * 3
        rows.append([NAMES.get(metric, metric), number(fit["mean"]), *at, number(most and most["deviations"], 1)])
    return table(
        ["metric", "mean distance", "farthest at V", "published", COLUMNS[result["scale"]], "deviations"], rows
    )


def _readings(result: Result) -> str:
    """Table 5 again, beside every reading of the noise."""
    curves, curve = result["tables"]["accuracy_by_reading"], published.curves()["accuracy"]
    rows = []
    for i, v in enumerate(result["V"]):
        bounded, *others = (curves[reading][i] for reading in READINGS)
        off, deviation = curve[i] - bounded["mean"], bounded["deviation"]
        apart = [f"{off:+.4f}", f"{off / deviation:+.1f}" if deviation else "–"]
        rows.append([f"{v:.1f}", number(curve[i]), spread(bounded), *apart, *map(spread, others)])
    distances = result["tables"]["distance"]
    lines = []
    for reading, words in READINGS.items():
        of_mean, alone = distances[reading]["of_mean"], distances[reading]["of_seeds"]["values"]
        lines.append([f"`{reading}`: {words}", number(of_mean), f"{min(alone):.4f} to {max(alone):.4f}"])
    seeds = len(result["provenance"]["seeds"])
    error = max((point["deviation"] or 0.0) for point in curves["bounded"]) / math.sqrt(seeds)
    return (
        "## Which noise\n\nThe mean of |accuracy − table 5| over V = 0.0 to 1.0, for each reading of `NI = I + V·R`, "
        f"clipped to [0, 1]:\n\n{table(['reading', 'of the mean over seeds', 'of each seed alone'], lines)}\n\n"
        "The paper's table is one training; how many deviations over seeds it lies from the mean stands beside the "
        f"difference.\nThe mean of {seeds} seeds is itself known to a standard error of up to {error:.3f}: other seeds "
        "would give another distance.\n\n"
    ) + table(["V", "table 5", "bounded", "table 5 − bounded", "in deviations", *list(READINGS)[1:]], rows)


def _groups(result: Result) -> str:
    """List which wrong classes draw the images of each digit at the strongest noise."""
    found, seeds = result["tables"]["groups"], result["provenance"]["seeds"]
    rows = []
    for digit, drawn in found["digits"].items():
        listed = ", ".join(f"{wrong} ({share:.1%})" for wrong, share in published.groups()[int(digit)].items())
        own = ", ".join(f"{w['class']} ({w['share']:.1%}, {w['seeds']})" for w in drawn) or "–"
        rows.append([digit, listed, own])
    pairs = found["pairs"]
    common = ", ".join(f"{a} of {b}" for a, b in zip(pairs["of_seeds_published"], pairs["of_seeds"], strict=True))
    ranks: list[list[str]] = [
        [str(seed), *(f"{label} ({share:.1%})" for label, share in ranked)]
        for seed, ranked in zip(seeds, found["attractors"], strict=True)
    ]
    ranks.append(["published", *(f"{label} ({share:.1%})" for label, share in published.attractors())])
    return (
        f"## Confusion groups at V = {result['V'][-1]:g}\n\nFor each digit the wrong classes that draw at least "
        f"{found['share']:.0%} of its images, on the mean over seeds,\nwith that mean and the number of seeds (of "
        f"{len(seeds)}) in which it is so.\n\n{table(['digit', 'published', COLUMNS[result['scale']]], rows)}\n\n"
        f"Of the {pairs['of_mean']} pairs (digit, wrong class) in the last column, {pairs['of_mean_published']} are "
        f"among the {pairs['published']} published; seed by seed {common}.\n\nThe attractors, by the share of all "
        "wrong predictions that they draw. The paper's follow from its groups and table 5 at V = 1;\nwhat its groups "
        "leave out would add to them.\n\n"
    ) + table(["seed", "first", "second", "third", "fourth"], ranks)


def _collecting(result: Result) -> str:
    """Put the paper's finding in numbers."""
    found = result["tables"]["collecting"]
    rows = [
        [f"{v:.1f}", spread(share), spread(entropy, 2)]
        for v, share, entropy in zip(result["V"], found["share"], found["entropy"], strict=True)
    ]
    least = sum(share for _, share in published.attractors(3))
    return (
        "## Do errors collect as noise grows?\n\nThe paper's finding, as numbers: the share of the wrong predictions "
        "that the three most drawing classes take,\nand the entropy of the wrong predictions over the classes. Spread "
        "evenly over ten classes they would be 0.30 and 3.32 bits.\nThe published groups imply a share of at least "
        f"{least:.2f}, if they were read at V = 1.\n\n"
    ) + table(["V", "share of the first three", "entropy, bits"], rows)


def _macro(result: Result) -> str:
    noise = result["tables"]["noise"]
    rows = [
        [f"{v:.1f}", *(spread(noise[metric][i]) for metric in ("precision", "recall", "f1"))]
        for i, v in enumerate(result["V"])
    ]
    heading = "## Macro averages under noise\n\nNot in the paper. A class that is never predicted counts 0.\n\n"
    return heading + table(["V", "precision", "recall", "F1"], rows)


def _by_epochs(result: Result) -> str:
    curves = result["tables"]["accuracy_by_epochs"]
    rows = [[f"{v:.1f}", *(spread(curve[i]) for curve in curves.values())] for i, v in enumerate(result["V"])]
    heading = "## Accuracy under noise by epochs of training\n\nNot in the paper. The reading `bounded`.\n\n"
    return heading + table(["V", *(f"epochs = {e}" for e in curves)], rows)
