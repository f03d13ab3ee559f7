"""The parts of label-2n's appendices: other readings, attackers who see the defence, causes, scales, origin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from reports.label_2n import protocol, tables
from reports.label_2n.beyond import survivals, too_weak
from reports.label_2n.criteria import verdicts
from reports.label_2n.numbers import Measured, Reading
from reports.writing import number, seeds, spread, summary, table

Result = Mapping[str, Any]


def readings(others: Mapping[Reading, Measured]) -> str:
    """Return what comes of the claims under every reading of what the paper leaves open, with the main numbers."""
    names = [f"threshold {reading.threshold}, BIN on {reading.examples}" for reading in others]
    each = [verdicts(measured) for measured in others.values()]
    rows = [[those[0].claim, *(f"**{verdict.outcome}**" for verdict in those)] for those in zip(*each, strict=True)]
    parts = [
        "## every reading\n\nThe threshold of the filter is 0.5, or the one of each system that gives 1 % false alarms "
        "on clean validation images; the detector BIN beside ADV, CDAEC and DISTILL was trained on examples of the "
        "undefended network, or of the network that it stands beside.\n\n" + table(["claim", *names], rows)
    ]
    for name, measured in zip(names[1:], list(others.values())[1:], strict=True):
        parts += [
            part.replace("## ", f"### {name}: ", 1) for part in (*tables.filtered(measured), tables.kept(measured))
        ]
    return "\n\n".join(parts)


def attacked(result: Result, measured: Measured) -> Iterator[str]:
    """Return what survives an attacker who sees the defence, and all attacks on the systems themselves."""
    rows = [[row.claim, row.attack, f"**{row.outcome}**", row.numbers] for row in survivals(measured)]
    weak = too_weak(measured)
    doubt = f"\n\n**The adaptive attack is too weak here:** {'; '.join(weak)}." if weak else ""
    yield (
        f"## what survives\n\nAttacks of up to {result['steps']} steps on {result['few']:,} held-out images a "
        "fold, made on the system itself; the adaptive attacks must also stay undetected at the threshold "
        "0.5: an image stays at the first iterate that misleads and is not discarded.\n\n"
    ) + table(["claim", "attack", "", "numbers"], rows) + doubt  # fmt: skip
    for sweep, said in tables.WHITE.items():
        yield tables.white(measured, sweep, said)


def causes(cause: Result) -> str:
    """Show the variants by which the causes of 2N's sensitivity were looked for."""
    strengths = [f"{strength:g}" for strength in cause["strengths"][:3]]
    rows = []
    for variant, found in cause["variants"].items():
        areas = [number(found["areas"][strength], 3) for strength in strengths]
        half, alike = found["at_half"], found["alike"]
        cells = [number(half["max_accuracy_slope"], 3), number(half["coverage"][0], 3), number(half["coverage"][1], 3)]
        cells += [number(alike["max_accuracy_slope"], 3), number(alike["coverage"][1], 3)]
        rows.append([protocol.VARIANTS[variant], *areas, *cells])
    heads = ["trained", *(f"AUC, ε {strength}" for strength in strengths)]
    heads += ["sensitivity at 0.5", "kept, clean", f"kept, ε {strengths[0]}"]
    heads += ["sensitivity at 1 % false alarms", f"kept there, ε {strengths[0]}"]
    told = cause["provenance"]
    return (
        f"## {tables.TITLES[cause['source']]}, scale {cause['scale']}\n\nThe first fold alone, "
        f"{told['data']['n']:,} images, {seeds(cause)}, {told['device']}; examples made on the substitute; half "
        "of the images perturbed. The areas know no threshold; the last two columns have each system's own, at which "
        f"it discards one clean image in a hundred. Made {told['made']} by "
        f"`python -m reports.label_2n.causes --data-set {cause['source']} --scale {cause['scale']}`.\n\n"
    ) + table(heads, rows)


def scales() -> str:
    """Return what each scale does, as the protocol has it."""
    rows = []
    for name in protocol.SCALES:
        for source, title in tables.TITLES.items():
            if (source == "digits") != (name == "smoke"):
                continue
            scale = protocol.scale(name, source)
            folds = sorted({fold + 1 for fold, _ in scale.runs})
            which = f"{scale.folds}" if len(folds) == scale.folds else f"fold {folds[0]} of {scale.folds}"
            patience = " at most, early stopping" if "patience" in scale.plan else ""
            rows.append([
                name, title, f"{scale.width:g}", f"{scale.plan['epochs']}{patience}", which, scale.seeds,
                "yes" if scale.beside else "no", "yes" if scale.behind else "no", f"{scale.few:,}",
            ])  # fmt: skip
    heads = [
        "scale",
        "data set",
        "width",
        "epochs",
        "folds",
        "seeds",
        "BIN on both",
        "CDAEC's classifier trained behind",
    ]
    return "## Scales\n\n" + table([*heads, "images attacked in the white box"], rows)


def origin(result: Result) -> str:
    """Say where the numbers of a result come from."""
    told, models = result["provenance"], result["models"]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    sizes = Counter(about["n"] for name, about in told["data"].items() if name.endswith("@fold"))
    kinds: dict[str, list[dict[str, Any]]] = {}
    for name, about in models.items():
        kinds.setdefault(name.split("-", 2)[-1] if name.count("-") > 1 else "substitute", []).append(about)
    rows = []
    for kind, those in kinds.items():
        seconds = [float("nan") if about["seconds"] is None else about["seconds"] for about in those]
        held = [about["held_out_accuracy"] for about in those if about["held_out_accuracy"] is not None]
        rows.append([kind, len(those), spread(summary(seconds), 0), spread(summary(held)) if held else "–"])
    doubts = sorted({doubt for about in result["evidence"].values() for doubt in about["doubts"]})
    said = f" **Doubts:** {'; '.join(doubts)}." if doubts else ""
    few = (
        "" if result["folds"] >= (due := result["folds_of_the_protocol"]) else f", {result['folds']} of {due} trainings"
    )
    command = f"python -m reports.label_2n --data-set {result['source']} --scale {result['scale']}"
    return (
        f"## where this comes from\n\nMade {told['made']} by `{command}` on {told['device']}, {told['cores']} cores; "
        f"{versions}; tested on {' or '.join(f'{n:,}' for n in sizes)} held-out images each{few}. Sweeping took "
        f"{told['sweeping']:.0f} s of the last runs. The result files hold every number by fold, the hashes of all "
        f"{len(models)} models, and key and digest of all evidence.{said}\n\n"
    ) + table(["model", "trained", "seconds each", "accuracy on held-out images"], rows)
