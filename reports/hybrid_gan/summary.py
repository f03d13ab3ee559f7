"""What the page of hybrid-gan begins with: what came out, published numbers beside measured ones, and a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.hybrid_gan.criteria import Found
from reports.hybrid_gan.protocol import CLASSIFIERS, HEADS, STREAMS, TARGETS, TITLES
from reports.hybrid_gan.published import printed
from reports.verdicts import Verdict, counted
from reports.writing import ANOTHER_PROCESSOR, seeds, table

PANELS = {"own": "generators of the set", "anew": "generators fitted to the network itself"}


def short(result: Mapping[str, Any], numbers: Found, judged: Sequence[Verdict]) -> str:
    """Return the lines that the page begins with."""
    about, hybrid = result["provenance"], result["hybrid"]
    last = max(numbers.strengths("own", "targets"), key=float, default="")
    left = [numbers.value(f"target-{name}", "targets", sweep="own", strength=last) for name in numbers.targets]
    lines = [
        f"Scale **{result['scale']}**: networks at width {result['width']:g}, {max(result['epochs'].values())} epochs "
        f"from scratch, {seeds(result)}; {about['device']}, {about['cores']} cores. The paper's are pre-trained.",
        f"Hybrid set: {hybrid['train kind']:,} real images and as many adversarial ones for training, "
        f"{hybrid['test kind']:,} of either kind for testing.",
        _targets(numbers),
        f"Claims: {counted(judged)}.",
        *(f"{verdict.outcome[0].upper()}{verdict.outcome[1:]}: {verdict.claim}." for verdict in judged
          if verdict.outcome in ("reproduced", "not reproduced")),
        *([f"At k = {last} the generators leave their undefended targets {_range(left)} of accuracy."] if left else []),
        ANOTHER_PROCESSOR,
    ]  # fmt: skip
    return "## what came out\n\n" + "\n".join(f"- {line}" for line in lines) + "\n\n" + _beside(numbers)


def _targets(numbers: Found) -> str:
    names = ", ".join(numbers.networks[name] for name in numbers.targets)
    wanted = ", ".join(TITLES[name] for name in TARGETS)
    if names in ("", wanted):
        return f"Targets: {names or 'not measured yet'}."
    return (
        f"**Measured with the targets of an earlier reading**: {names}. The protocol now has {wanted}, and ResNet-50 "
        "with the paper's stem as a network that is trained on the set alone; a run with these is still to be made."
    )


def _range(values: Sequence[float]) -> str:
    known = [value for value in values if not math.isnan(value)]
    return f"{min(known):.3f} to {max(known):.3f}" if known else "–"


def _beside(numbers: Found) -> str:
    rows = []
    for name in CLASSIFIERS:
        there, streams = printed()["trained"][name][3], printed()["streams"][name]
        gap = max(abs(real - adversarial) for real, adversarial in streams) / 100
        accuracies = [numbers.value(f"{head}-{name}", "hybrid") for head in HEADS]
        gaps = [_gap(numbers, f"{head}-{name}") for head in HEADS]
        cells = ["–" if math.isnan(value) else f"{value:.4f}" for value in (*accuracies, *gaps)]
        rows.append([numbers.networks[name], f"{there / 100:.3f}", *cells[:2], f"{gap:.4f}", *cells[2:]])
    heads = ["model", "accuracy, published", "ten classes", "real or adversarial"]
    heads += ["largest gap in streams, published", "ten classes", "real or adversarial"]
    return table(heads, rows)


def _gap(numbers: Found, model: str) -> float:
    """Return the largest difference between real and adversarial images in the contaminated streams."""
    streams = [numbers.stream(model, share) for share in STREAMS]
    known = [abs(stream["mean_real"] - stream["mean_adversarial"]) for stream in streams if stream]
    return max(known, default=math.nan)


def draw(numbers: Found, file: Path) -> Path:
    """Draw the accuracy on real images over k of every network beside its twin; the same bytes each time."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    file.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": file.stem, "font.size": 9}):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        for axes, (sweep, title) in zip(figure.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
            strengths = numbers.strengths(sweep, "real")
            for i, name in enumerate(CLASSIFIERS):
                for kind, line in (("classify", "-"), ("clean", "--")):
                    values = [numbers.value(f"{kind}-{name}", "real", sweep=sweep, strength=k) for k in strengths]
                    label = numbers.networks[name] if kind == "classify" else None
                    clean = numbers.value(f"{kind}-{name}", "real")
                    axes.plot([0.0, *map(float, strengths)], [clean, *values], line, color=f"C{i}", label=label)
            axes.set(title=title, xlabel="k", ylabel="accuracy on real images")
            axes.grid(alpha=0.3)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file
