"""The page of hybrid-gan, made from its result files alone; published numbers beside measured ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from reports.hybrid_gan.criteria import Found, verdicts
from reports.hybrid_gan.data import PROBES
from reports.hybrid_gan.parts import parts
from reports.hybrid_gan.protocol import CLASSIFIERS, HEADS, STREAMS
from reports.hybrid_gan.published import contradictions, printed
from reports.hybrid_gan.summary import short
from reports.rows import unpacked
from reports.verdicts import Verdict, counted, listed
from reports.writing import joined, number, seeds, table

MODULE = "reports.hybrid_gan"
Result = Mapping[str, Any]
HEAD_TITLES = {"classify": "ten classes", "detect": "real or adversarial"}
SWEEPS = {
    "own": "the generator of the set", "another": "a generator with another seed", "fgsm": "FGSM on itself",
    "anew": "a generator fitted to itself", "noise": "uniform noise",
}  # fmt: skip


def found(result: Result) -> Found:
    """Return the rows of a result."""
    rows = unpacked(result)
    return Found(result["source"], rows, result["streams"], result["pairs"], result["scale"], result["networks"])


def figure(result: Result, kind: str = "strips") -> str:
    """
    Return the file name of a result's picture strips, or of its curves.

    >>> figure({"source": "cifar10", "scale": "short"})
    'hybrid-gan-cifar10-short-strips.svg'
    """
    return f"hybrid-gan-{result['source']}-{result['scale']}-{kind}.svg"


def body(results: Sequence[Result], images: str = "figures/") -> str:
    """Return everything below the heading of the page, one part a result."""
    return joined(results, lambda result: _parts(result, images))


def judged(result: Result) -> list[Verdict]:
    """Return the verdicts on all claims."""
    return verdicts(found(result), _missing(result))


def summary(result: Result) -> str:
    """Count what came of the claims, and name the parts that are not there yet."""
    missing, told = _missing(result), counted(judged(result))
    return f"{told}; parts not measured yet: {', '.join(missing)}" if missing else told


def _parts(result: Result, images: str) -> Iterator[str]:
    numbers, outcomes = found(result), judged(result)
    every = [
        short(result, numbers, outcomes),
        f"![accuracy over k]({images}{figure(result, 'curves')})\n\nLeft the generators that the set was made with, "
        "right generators fitted to each network itself; solid lines were trained on the hybrid set, dashed ones on "
        "its real half.",
        *_strips(result, images),
        _what(result),
        f"## the paper's claims\n\nEach criterion was written before the run. {listed(outcomes)}",
        "## where the text contradicts itself\n\n" + "\n".join(f"- {said}" for said in contradictions()),
        _targets(numbers),
        _trained(numbers, result),
        _probes(numbers),
        _streams(numbers),
        _lost(numbers),
        _origin(result),
    ]
    return (part.replace("## ", f"## {result['source']}: ", 1) for part in every)


def _strips(result: Result, images: str) -> Iterator[str]:
    if result["strips"]:
        yield (
            f"![perturbations over k]({images}{figure(result)})\n\nThe generators over k on an image of the test set "
            "and each target: above, the perturbation ten times as large; below, what the target says."
        )


def _what(result: Result) -> str:
    hybrid = result["hybrid"]
    return (
        f"## what was measured\n\nScale **{result['scale']}**: networks at width {result['width']:g} (1 is the "
        f"original's), {_epochs(result)}{_narrow(result)}, trained from scratch: the published ones were pre-trained, "
        f"and such weights are not to be had here. The hybrid set has {hybrid['train kind']:,} real images and as many "
        f"adversarial ones for training (of which {hybrid['train fooled']:,} mislead their target), "
        f"{hybrid['test kind']:,} of either kind for testing ({hybrid['test fooled']:,}); {seeds(result)}, "
        f"{result['provenance']['device']}. In brackets the 95 % interval, by Wilson's formula. "
        f"Claims: {summary(result)}."
        + (f" The parts were measured on {sets} hybrid sets." if (sets := _sets(result)) > 1 else "")
    )


def _epochs(result: Result) -> str:
    """
    Say how long the networks were trained.

    >>> _epochs({"epochs": {"vgg19_bn": 53, "resnet50": 99}})
    '99 epochs (vgg19_bn 53; twins that see real images alone twice as many)'
    """
    most = max(result["epochs"].values())
    other = ", ".join(f"{name} {epochs}" for name, epochs in result["epochs"].items() if epochs != most)
    return f"{most} epochs ({other}{'; ' if other else ''}twins that see real images alone twice as many)"


def _narrow(result: Result) -> str:
    """Return the width and the epochs of the targets, if they differ from the networks'."""
    targets = result.get("targets", {"width": result["width"]})
    if targets["width"] == result["width"]:
        return ""
    return f"; targets at width {targets['width']:g}, {targets['epochs']} epochs"


def _missing(result: Result) -> list[str]:
    """Return the parts that are not measured yet."""
    return [part for part in parts(result["source"]) if f"set of {part}" not in result["provenance"]["data"]]


def _sets(result: Result) -> int:
    """Count the hybrid sets that the parts were measured on: targets may come out otherwise on another machine."""
    told = result["provenance"]["data"]
    return len({told[f"set of {part}"]["fingerprint"] for part in parts(result["source"]) if f"set of {part}" in told})


def _shown(numbers: Found, model: str, images: str, metric: str = "accuracy", **more: str) -> str:
    value, low, high = (numbers.value(model, images, metric=name, **more) for name in (metric, "low", "high"))
    return "–" if math.isnan(value) else f"{value:.4f} [{low:.3f}, {high:.3f}]"


def _targets(numbers: Found) -> str:
    names = numbers.strengths("own", "targets")
    rows = []
    for name in numbers.targets:
        clean = _shown(numbers, f"target-{name}", "targets")
        for sweep in ("own", "another", "fgsm"):
            cells = [_shown(numbers, f"target-{name}", "targets", sweep=sweep, strength=k) for k in names]
            rows.append([numbers.networks[name], SWEEPS[sweep].replace("of the set", "fitted to it"), clean, *cells])
        if name in printed()["clean"]:
            rows.append(["", "published", f"{printed()['clean'][name] / 100:.4f}", *("" for _ in names)])
    heads = ["undefended target", "", "clean", *(f"k or ε {name}" for name in names)]
    return (
        "## what the generators do to the undefended targets\n\nThe text prints the clean accuracy of three targets "
        "and of none what is left under attack.\n\n"
    ) + table(heads, rows)


def _trained(numbers: Found, result: Result) -> str:
    """Table 2, with both heads."""
    rows = []
    for name in CLASSIFIERS:
        for head, what in (*HEAD_TITLES.items(), ("clean", "without hybrid")):
            told = result["models"].get(f"{result['source']}-{head}-{name}", {})
            training = ["–" if told.get(key) is None else f"{told[key]:g}" for key in ("epochs", "loss")]
            training.append(number(told.get("held_out_accuracy"), 4))
            cells = [_shown(numbers, f"{head}-{name}", "hybrid", kind=kind) for kind in ("all", "real", "adversarial")]
            more = [numbers.value(f"{head}-{name}", "hybrid", metric=m) for m in ("precision", "recall", "roc_auc")]
            cells += ["–" if math.isnan(value) else f"{value:.4f}" for value in more]
            rows.append([numbers.networks[name], what, *training, *cells])
        epochs, loss, accuracy, *there = printed()["trained"][name]
        shown = [f"{value:.1f} %" for value in there]
        rows.append(["", "published", f"{epochs}", f"{loss:g}", f"{accuracy} %", shown[0], "", "", *shown[1:], ""])
    heads = ["model", "head", "epochs", "loss", "held-out accuracy", "accuracy", "on real", "on adversarial"]
    return (
        "## table 2: on the hybrid test set\n\nThe paper speaks of ten classes and of telling real from "
        "adversarial; its table may show either. Loss is that of the last epoch in training, held-out accuracy that "
        "of the images by which the epoch is chosen; the published column beside it is accuracy in training.\n\n"
    ) + table([*heads, "precision", "recall", "ROC AUC"], rows)


def _probes(numbers: Found) -> str:
    rows = [
        [
            numbers.networks[name],
            *(_shown(numbers, f"detect-{name}", "probes", metric="called_adversarial", kind=what) for what in PROBES),
        ]
        for name in CLASSIFIERS
    ]
    return (
        "## what a detector takes for adversarial\n\nReal images and noise should not be, the others should; all went "
        "through the same rounding to bytes. FGSM is made on the target at ε 8/255.\n\n"
    ) + table(["detector", *PROBES], rows)


def _streams(numbers: Found) -> str:
    rows = []
    for name, (place, share), head in product(CLASSIFIERS, enumerate(STREAMS), HEADS):
        if stream := numbers.stream(f"{head}-{name}", share):
            there = printed()["streams"][name][place]
            cells = [
                f"{stream[f'mean_{kind}']:.4f} [{stream[f'low_{kind}']:.3f}, {stream[f'high_{kind}']:.3f}], "
                f"{stream[f'least_{kind}']:.3f} to {stream[f'largest_{kind}']:.3f}"
                for kind in ("real", "adversarial")
            ]
            published = [number(value / 100, 4) for value in there]
            told = [numbers.networks[name], HEAD_TITLES[head], f"{share:.0%}"]
            rows.append([*told, cells[0], published[0], cells[1], published[1]])
    return (
        "## tables 3 to 5: contaminated streams\n\nThe published numbers stand beside both heads, for the text "
        "does not say which they are. The mean of 200 streams of 1,000 images (fewer where the test set has not as "
        "many), in brackets the interval of one such stream, and the least and the largest of "
        "all. At 3 % thirty images carry the adversarial column.\n\n"
    ) + table(["model", "head", "adversarial", "on real", "there", "on adversarial", "there"], rows)


def _lost(numbers: Found) -> str:
    rows = []
    for name in CLASSIFIERS:
        for kind, what in (("classify", "hybrid"), ("clean", "real alone")):
            lost = [numbers.lost(f"{kind}-{name}", sweep) for sweep in SWEEPS]
            clean = _shown(numbers, f"{kind}-{name}", "real")
            rows.append(
                [numbers.networks[name], what, clean, *("–" if math.isnan(value) else f"{value:.4f}" for value in lost)]
            )
        rows.append([numbers.networks[name], "loses less by", "", *(_pair(numbers, name, sweep) for sweep in SWEEPS)])
        rows.append([numbers.networks[name], "more accurate by", *_gains(numbers, name)])
    tables = []
    for sweep, what in SWEEPS.items():
        names = numbers.strengths(sweep, "real")
        each = [
            [
                numbers.networks[name],
                trained,
                *(_shown(numbers, f"{kind}-{name}", "real", sweep=sweep, strength=k) for k in names),
            ]
            for name in CLASSIFIERS
            for kind, trained in (("classify", "hybrid"), ("clean", "real alone"))
        ]
        tables.append(f"**{what}**\n\n" + table(["model", "trained on", *names], each))
    return (
        "## what is lost of the clean accuracy, on average over the strengths\n\nTwins are trained for as many "
        "updates; the interval of the difference is over the images, which both saw. Who is right less often on clean "
        "images has less to lose: how much more accurate the network is under attack, on average, stands below.\n\n"
        + table(["model", "trained on", "clean", *SWEEPS.values()], rows)
        + "\n\nAccuracy at every strength:\n\n"
        + "\n\n".join(tables)
    )


def _pair(numbers: Found, network: str, sweep: str) -> str:
    pair = numbers.pair(network, sweep)
    shown = f"{pair['difference']:.4f} [{pair['low']:.3f}, {pair['high']:.3f}]"
    return "–" if math.isnan(pair["difference"]) else shown


def _gains(numbers: Found, network: str) -> list[str]:
    """Return how much more accurate a network is than its twin: on clean images, and on average over each sweep."""
    means = [
        [numbers.value(model, "real"), *(numbers.under(model, sweep) for sweep in SWEEPS)]
        for model in (f"classify-{network}", f"clean-{network}")
    ]
    gains = [hybrid - twin for hybrid, twin in zip(*means, strict=True)]
    return ["–" if math.isnan(gain) else f"{gain:+.4f}" for gain in gains]


def _origin(result: Result) -> str:
    told, models = result["provenance"], result["models"]
    versions = ", ".join(f"{name} {value}" for name, value in told["versions"].items())
    doubts = sorted({doubt for about in result["evidence"].values() for doubt in about["doubts"]})
    said = f" **Doubts:** {'; '.join(doubts)}." if doubts else ""
    seconds = sum(about["seconds"] or 0 for about in models.values())
    return (
        f"## where this comes from\n\nMade {told['made']} by `python -m {MODULE} --data-set {result['source']} --scale "
        f"{result['scale']}` on {told['device']}, {told['cores']} cores; {versions}. {len(models)} trainings took "
        f"{seconds:,.0f} s of one core. The result file holds every number, the hashes of all models, and key and "
        f"digest of all evidence.{said}"
    )
