"""The digits-noise paper's page, made from the result file alone."""

from __future__ import annotations

from reports.digits_noise import criteria, published
from reports.digits_noise.figures import FIGURES
from reports.digits_noise.numbers import INITIAL_WEIGHTS, NAMES
from reports.digits_noise.tables import COLUMNS, Result, sections
from reports.verdicts import counted, listed
from reports.writing import ANOTHER_PROCESSOR, number, spread, table

MODULE = "reports.digits_noise"
"""What makes the page anew."""
SCALES = {
    "full": "Scale **full**: the paper's classifier, data, epochs and amplitudes.",
    "short": "Scale **short**: the paper's classifier and data, but fewer or other seeds or epochs. "
    "This is **not** the result that is compared with the paper.",
    "smoke": "Scale **smoke**: a small run on other data or another classifier than the paper's, to see that it works. "
    "**Its numbers cannot be compared with the published ones.**",
}


def report(result: Result) -> str:
    """Return the whole page of a result."""
    return f"# digits-noise, scale {result['scale']}\n\n{body(result)}"


def verdict(result: Result) -> str:
    """Say how far the mean curves lie from table 5 and whether that is near enough; only a full run is judged."""
    said = []
    for initial in INITIAL_WEIGHTS:
        distance = result["tables"]["initial"][initial]["distance"]
        found, limit = distance["of_mean"], distance["limit"]
        judged = f", at most {limit:g} is asked: {'held' if found <= limit else 'NOT held'}"
        said.append(
            f"{found:.4f} with {NAMES[initial]} initial weights" + (judged if result["scale"] == "full" else "")
        )
    unless = "" if result["scale"] == "full" else f"Scale {result['scale']}: not judged against table 5. "
    return f"{unless}Mean distance to table 5: {'; '.join(said)}"


def body(result: Result, figures: str | None = None) -> str:
    """Return everything but the title; ``figures`` is where the page finds its figures, if it has any."""
    first, *others = _figures(figures) if figures else ("",)
    parts = [_what(result), first, *_doubts(result), _claims(result), *sections(result), *others]
    return "\n\n".join(filter(None, [*parts, _contradictions(), _origin(result)])) + "\n"


def _figures(folder: str) -> list[str]:
    curves, *others = [f"![{words}]({folder}/{name})\n\n*{words}.*" for name, words in FIGURES.items()]
    return [curves, "## Pictures\n\n" + "\n\n".join(others)]


def _what(result: Result) -> str:
    """Say what came out, at which scale and of what, and put accuracy beside table 5."""
    told, scale = result["provenance"], result["scale"]
    data, per_class = told["data"], set(told["data"]["per_class"])
    each = f", {per_class.pop():,} a class" if len(per_class) == 1 else ""
    judged = [f"{NAMES[name]} {counted(criteria.verdicts(result, name))}" for name in INITIAL_WEIGHTS]
    lines = [
        SCALES[scale],
        f"{told['model']['name']} tested on {data['n']:,} images ({data['name']}{each}), trained on "
        f"{data['trained_on']['n']:,} others; seeds {', '.join(map(str, told['seeds']))}, two kinds of initial "
        f"weights; {told['device']}.",
        f"**{verdict(result)}.**",
        f"Claims, by initial weights: {'; '.join(judged)}.",
        ANOTHER_PROCESSOR,
    ]
    curves = [result["tables"]["initial"][name]["noise"]["accuracy"] for name in INITIAL_WEIGHTS]
    rows = [
        [f"{v:.1f}", number(known), *map(spread, points)]
        for v, known, *points in zip(result["V"], published.curves()["accuracy"], *curves, strict=True)
    ]
    heads = ["V", "published", *(f"{COLUMNS[scale]}, {NAMES[name]} initial weights" for name in INITIAL_WEIGHTS)]
    said = "\n".join(f"- {line}" for line in lines)
    return f"{said}\n\nAccuracy under noise, mean ± standard deviation over seeds:\n\n{table(heads, rows)}"


def _doubts(result: Result) -> list[str]:
    """Say what speaks against the numbers, if anything does."""
    found = {doubt for sweep in result["sweeps"] for part in sweep["evidence"].values() for doubt in part["doubts"]}
    return [f"**Doubts:** {'; '.join(sorted(found))}."] if found else []


def _claims(result: Result) -> str:
    every = [
        verdict._replace(claim=f"{verdict.claim} ({NAMES[initial]} initial weights)")
        for pair in zip(*(criteria.verdicts(result, initial) for initial in INITIAL_WEIGHTS), strict=True)
        for initial, verdict in zip(INITIAL_WEIGHTS, pair, strict=True)
    ]
    return "## What the paper says, and what came of it\n\n" + listed(every)


def _contradictions() -> str:
    return "## Where the paper contradicts itself\n\n" + "\n".join(f"- {said}" for said in published.contradictions())


def _origin(result: Result) -> str:
    """Say where the numbers come from, and how long that took."""
    told = result["provenance"]
    seconds, data, model = told["seconds"], told["data"], told["model"]
    versions = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    swept = [part for sweep in result["sweeps"] for part in sweep["evidence"].values()]
    fresh = sum(part["in_this_run"] for part in swept)
    rows = [
        [
            t["initial"],
            t["epochs"],
            t["seed"],
            "–" if t["seconds"] is None else f"{t['seconds']:.0f} s",
            t["weights"][:12],
        ]
        for t in result["trainings"]
    ]
    return (
        f"## Where this comes from\n\nMade {told['made']} by `python -m reports.digits_noise`: `{model['factory']}` "
        f"trained by `{model['recipe']}`, noise drawn with seed {told['noise_seed']}.\nDevice {told['device']}, "
        f"{told['cores']} cores, up to {told['trainings_at_once']} trainings at once; {versions}.\n"
        f"Training took {seconds['training']:.0f} s in all, sweeping {seconds['sweeping']:.0f} s ({fresh} of "
        f"{len(swept)} pieces of evidence made in this run, the others found in the store).\nImages to test on "
        f"`{data['fingerprint'][:12]}`, to train on `{data['trained_on']['fingerprint'][:12]}`. The result file holds "
        "every confusion matrix, and key and digest of all evidence.\n\n"
    ) + table(["initial weights", "epochs", "seed", "training", "weights"], rows)
