"""The page of label-2n, made from its result files alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from reports.label_2n import figures
from reports.label_2n.beyond import survivals, too_weak
from reports.label_2n.criteria import CLAIMS
from reports.label_2n.numbers import Measured
from reports.label_2n.protocol import VARIANTS
from reports.label_2n.tables import NAMES, sections, systems
from reports.rows import unpacked
from reports.verdicts import counted, listed
from reports.writing import number, seeds, spread, summary, table

MODULE = "reports.label_2n"
TITLES = {"cifar10": "CIFAR-10", "gtsrb": "GTSRB", "digits": "digits"}
Result = Mapping[str, Any]


def measured(result: Result) -> Measured:
    """Give the rows of a result."""
    return Measured(result["source"], unpacked(result), result["scale"])


def body(results: Sequence[Result], images: str = "figures/", causes: Sequence[Result] = ()) -> str:
    """Give everything below the heading of the page, one part a data set, with the causes that were looked for."""
    if not results:
        return "Nothing has been measured yet.\n"
    why = {(cause["source"], cause["scale"]): cause for cause in causes}
    parts = [
        part for result in results for part in _parts(result, images, why.get((result["source"], result["scale"])))
    ]
    return "\n\n".join(parts) + "\n"


def verdicts(result: Result) -> str:
    """Count the outcomes of the claims."""
    return counted(decide(measured(result)) for decide in CLAIMS)


def _parts(result: Result, images: str, cause: Result | None) -> list[str]:
    numbers, title = measured(result), TITLES[result["source"]]
    parts = [_what(result), _claims(numbers), *([] if cause is None else [_why(cause)]), _beyond(numbers)]
    parts += sections(numbers)
    parts += [_shown(result, *figure, images) for figure in figures.names(result["source"], result["scale"]).items()]
    return [part.replace("## ", f"## {title}: ", 1) for part in (*parts, _origin(result))]


def _shown(result: Result, metric: str, name: str, images: str) -> str:
    number = figures.NUMBERS.get((result["source"], metric), "Figure")
    metric = figures.WHAT[metric]
    return (
        f"## {number}: {metric} over ε\n\nExamples made on the substitute; means of the folds, bars to the least and "
        f"the largest.\n\n![{metric} over ε]({images}{name})"
    )


def _what(result: Result) -> str:
    folds, due, plan = result["folds"], result["folds_of_the_protocol"], result["plan"]
    sizes = Counter(about["n"] for name, about in result["provenance"]["data"].items() if name.endswith("@fold"))
    few = "" if folds >= due else f" (of {due} that the protocol has at this scale)"
    scaled = "" if result["scale"] == "full" else " **It is not the result that is compared with the paper's numbers.**"
    tested = " or ".join(f"{n:,}" for n in sizes)
    return (
        f"## what was measured\n\nScale **{result['scale']}**: networks at width {result['width']:g} (1 is the "
        f"paper's), {plan['epochs']} epochs, {folds} folds{few}, tested on {tested} held-out images each, "
        f"{seeds(result)}; attacks on the systems themselves, of up to {result['steps']} steps, on {result['few']:,} "
        f"of them.{scaled}\n"
        f"Numbers are means ± standard deviations over the folds. {verdicts(result).capitalize()}."
    )


def _claims(numbers: Measured) -> str:
    verdicts = listed(decide(numbers) for decide in CLAIMS)
    return f"## the paper's claims\n\n{verdicts}"


def _why(cause: Result) -> str:
    """Show the variants by which the causes of 2N's sensitivity were looked for."""
    strengths = [f"{strength:g}" for strength in cause["strengths"][:3]]
    rows = []
    for variant, found in cause["variants"].items():
        areas = [number(found["areas"][strength], 3) for strength in strengths]
        half, alike = found["at_half"], found["alike"]
        cells = [number(half["sensitivity"], 3), number(half["kept"][0], 3), number(half["kept"][1], 3)]
        cells += [number(alike["sensitivity"], 3), number(alike["kept"][1], 3)]
        rows.append([VARIANTS[variant], *areas, *cells])
    heads = ["trained", *(f"AUC, ε {strength}" for strength in strengths)]
    heads += ["sensitivity at 0.5", "kept, clean", f"kept, ε {strengths[0]}"]
    heads += ["sensitivity at 1 % false alarms", f"kept there, ε {strengths[0]}"]
    told = cause["provenance"]
    return (
        f"## why 2N is not the least sensitive\n\nScale **{cause['scale']}**, the first fold alone, "
        f"{told['data']['n']:,} images, {seeds(cause)}, {told['device']}; examples made on the substitute; half "
        "of the images perturbed. The areas know no threshold; the last two columns have each system's own, at which "
        f"it discards one clean image in a hundred. Made {told['made']} by "
        f"`python -m reports.label_2n.causes --data-set {cause['source']} --scale {cause['scale']}`.\n\n"
    ) + table(heads, rows)


def _beyond(numbers: Measured) -> str:
    rows = [[row.claim, row.attack, f"**{row.outcome}**", row.numbers] for row in survivals(numbers)]
    weak = too_weak(numbers)
    doubt = f"\n\n**The adaptive attack is too weak here:** {'; '.join(weak)}." if weak else ""
    return (
        "## what survives an attacker who sees the defence\n\nExamples made on the system itself; the adaptive attacks "
        "must also stay undetected: an image stays at the first iterate that misleads and is not discarded.\n\n"
    ) + table(["claim", "attack", "", "numbers"], rows) + doubt  # fmt: skip


def _origin(result: Result) -> str:
    told, models = result["provenance"], result["models"]
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    kinds: dict[str, list[dict[str, Any]]] = {}
    for name, about in models.items():
        kinds.setdefault(name.split("-", 2)[-1] if name.count("-") > 1 else "substitute", []).append(about)
    rows = []
    for kind, those in kinds.items():
        cells = [[float("nan") if about[key] is None else about[key] for about in those] for key in ("seconds",)]
        held = [about["held_out_accuracy"] for about in those if about["held_out_accuracy"] is not None]
        rows.append([kind, len(those), spread(summary(cells[0]), 0), spread(summary(held)) if held else "–"])
    doubts = sorted({doubt for about in result["evidence"].values() for doubt in about["doubts"]})
    said = f" **Doubts:** {'; '.join(doubts)}." if doubts else ""
    return (
        f"## where this comes from\n\nMade {told['made']} by `python -m reports.label_2n --data-set {result['source']} "
        f"--scale {result['scale']}` on {told['device']}, {told['cores']} cores; {versions}. Sweeping took "
        f"{told['sweeping']:.0f} s of the last runs. The result files hold every number by fold, the hashes of "
        f"all {len(models)} models, and key and digest of all evidence.{said}\n\n"
    ) + table(["model", "trained", "seconds each", "accuracy on held-out images"], rows)


def names(result: Result) -> list[str]:
    """Give the systems of a result as tables call them."""
    return [NAMES[system] for system in systems(measured(result))]
