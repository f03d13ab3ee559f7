"""The transferability matrix: every model attacked with examples computed on every other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from robustness import claims
from robustness.cards import Card
from robustness.errors import ModelError, SweepError
from robustness.metrics import attack_success
from robustness.metrics.detection import discarded
from robustness.metrics.evidence import OK, Evidence
from robustness.metrics.metric import MetricError
from robustness.perturbations import strength as strengths
from robustness.workspace.workspace import Workspace

METRICS = ("transferability", "selective_transferability")
Crossed = dict[tuple[str, str], Evidence | str]
"""Evidence by (source, target), white-box on the diagonal; or the reason why there is none."""


def matrix(workspace: Workspace, chosen: Sequence[Card], sweep: str) -> Crossed:
    """
    Sweep every model with examples computed on every model, all on the images of the first card with the sweep.

    That card's table sets perturbation and strengths. A source's directions are computed once for all targets, and all
    evidence is stored for cards with the same claims. SweepError if there is no such sweep, or it is no attack.
    """
    first = next((card for card in chosen if sweep in card.file.sweeps), None)
    if first is None:
        names = ", ".join(card.name for card in chosen)
        known = sorted({name for card in chosen for name in card.file.sweeps})
        raise SweepError(f"`sweep` must be one of {', '.join(known)}, got {sweep!r}, which no card of {names} has")
    table = first.file.sweeps[sweep]
    if not hasattr(table.perturbation, "source") or not table.perturbation.uses_model:
        raise SweepError(
            f"`sweep` must be an attack, whose examples depend on a model, got {sweep!r} of {first.name}, which is "
            f"{table.perturbation.family}"
        )

    def crossed(source: Card, target: Card) -> Card:
        source_card = None if source is target else str(source.path.resolve())
        swept = table.model_copy(update={"perturbation": table.perturbation.model_copy(update={"source": source_card})})
        file = target.file.model_copy(update={"sweeps": {sweep: swept}, "claims": {}})
        return replace(target, file=file).override(data=first.data("test"))

    def swept(source: Card, target: Card) -> Evidence | str:
        try:
            return workspace.evidence(crossed(source, target), sweep)
        except (ModelError, SweepError) as error:
            return str(error)

    return {(source.name, target.name): swept(source, target) for source in chosen for target in chosen}


def has_errors(crossed: Crossed) -> bool:
    """Return whether some pair, or some cell of one, has no numbers."""
    return any(isinstance(evidence, str) or set(evidence.status) != {OK} for evidence in crossed.values())


def described(crossed: Crossed, sweep: str) -> Iterator[str]:
    """Return the matrix as text, one per strength, and one more after filtering if a decision discards."""
    models = list(dict.fromkeys(source for source, _ in crossed))
    known = {pair: evidence for pair, evidence in crossed.items() if not isinstance(evidence, str)}
    if not known:
        yield from (f"{source} to {target}: {evidence}" for (source, target), evidence in crossed.items())
        return
    some = next(iter(known.values()))
    about = some.provenance
    yield (
        f"{sweep} computed on the row's model, tested on the column's: |Xb| / |Xa|, with 95 % Wilson intervals; "
        f"{len(some)} images of {about['images']['name']}, seed {about['seed']}, {about['device']}"
    )
    for metric in METRICS:
        discards = {target for (_, target), evidence in known.items() if evidence.attack_probability is not None}
        able = [m for m in models if metric == METRICS[0] or m in discards]
        for strength in (each for each in some.strengths if able and each != strengths.name(0.0)):
            yield ""
            yield f"{metric} at {strength}"
            yield from _table(crossed, models, able, strength, metric)


def _table(crossed: Crossed, models: Sequence[str], able: Sequence[str], strength: str, metric: str) -> Iterator[str]:
    from tabulate import tabulate

    rows, reasons = [], {}
    for source in models:
        row = {"made on": source}
        for target in able:
            try:
                row[target] = _cell(crossed[source, target], strength, metric, white=source == target)
            except MetricError as error:
                row[target], reasons[f"{target} under {source}'s"] = "error", error
        rows.append(row)
    yield tabulate(rows, headers="keys", disable_numparse=True)
    yield from (f"  {pair}: {reason}" for pair, reason in reasons.items())


def _cell(evidence: Evidence | str, strength: str, metric: str, *, white: bool) -> str:
    """Write a cell; on the diagonal, where the rate is trivially 1, write the count."""
    if isinstance(evidence, str):
        raise MetricError(evidence)
    row = evidence.index(strength)
    if evidence.status[row] != OK:
        raise MetricError(evidence.status[row])
    if white:
        fooled = attack_success.fooled(evidence, row)
        if metric == METRICS[1]:
            fooled = fooled & ~discarded(evidence, row)
        return f"white-box: {int(fooled.sum())} misled"
    measured = claims.measure(evidence, strength, metric)
    if not measured.n:
        return "— (no example misleads the source)"
    low, high = measured.interval
    return f"{measured.value:.3f} [{low:.3f}, {high:.3f}] ({measured.successes} of {measured.n})"
