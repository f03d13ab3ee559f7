"""`robustness baseline accept`: accept runs, or retrainings by the card's recipe, as a model's baseline."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from robustness.cards import Card
from robustness.errors import StoreError
from robustness.gate import baseline, comparability
from robustness.gate.baseline import AcceptedModel
from robustness.gate.differences import GateError
from robustness.metrics.evidence import OK, Evidence
from robustness.reporting.report import ModelReport, RunReport
from robustness.reporting.report_file import read_report
from robustness.reporting.sweep_report import EvidenceReference
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace


def model_of(report: RunReport, name: str, path: Path) -> ModelReport:
    """Return one model's part of a run's report; GateError if the run did not include it."""
    known = {model.name: model for model in report.models}
    if name not in known:
        raise GateError(f"{path}: the run has no model {name!r}; its models: {', '.join(known) or 'none'}")
    return known[name]


def accepted_from_report(path: Path, name: str, store: Store) -> AcceptedModel:
    """Return one model's evidence in a run, as its report names it; GateError if any of it is missing."""
    report = read_report(path)
    if not report.run.complete:
        raise GateError(
            f"{path}: the run is incomplete (interrupted or still running); accept it after it has finished"
        )
    model = model_of(report, name, path)
    swept: dict[str, Evidence] = {}
    for sweep in sorted(model.sweeps, key=lambda each: each.name != "clean"):
        wanted = tuple(cell.strength for cell in sweep.cells)
        swept[sweep.name] = _evidence_of_report(store, f"{path}: {sweep.name}", sweep.evidence, wanted, swept)
    run = {"started": report.run.started, "versions": report.run.versions}
    about = {"weights": model.weights, "device": model.device, "verdict": report.verdict, **run}
    return AcceptedModel(about, swept)


def _evidence_of_report(
    store: Store, where: str, named: EvidenceReference | None, wanted: Sequence[str], swept: Mapping[str, Evidence]
) -> Evidence:
    """Return the evidence that a report names, if it is still bit-identical to the run's."""
    again = "run the suites again, with the same --robustness-store, and accept that run"
    if named is None:
        raise GateError(f"{where}: the run stored no evidence; {again}")
    try:
        path = store.path("evidence", str(named.key))
        evidence = Evidence.from_bytes(store.read(path))
    except (OSError, StoreError) as error:
        raise GateError(f"{where}: its evidence {named.key} cannot be read ({error}); {again}") from error
    if evidence.strengths != tuple(wanted) and "clean" in swept:
        evidence = evidence.with_clean(swept["clean"], tuple(wanted))
    if evidence.digest != named.digest:
        raise GateError(f"{where}: its evidence {path} was recomputed after the run; {again}")
    return evidence


def train(card: Card, seeds: Sequence[int], workspace: Workspace, workers: int | None) -> None:
    """Train a card's model from several seeds in parallel, except those in the store."""
    from robustness.util.progress import progress_bar
    from robustness.workspace.training import train_many

    if card.file.recipe is None:
        raise GateError(
            f"{card.path}: --seeds needs a [recipe] in the card, which has none; accept reports of runs instead"
        )
    every = [card.reseeded(seed) for seed in seeds]
    what = f"training {card.name}"
    train_many(
        every,
        workspace.store.root,
        workspace.data_root,
        workers,
        say=workspace.store.say,
        progress=progress_bar,
        what=what,
    )


def accepted_from_seed(
    workspace: Workspace, card: Card, seed: int, sweeps: Sequence[str] | None = None
) -> AcceptedModel:
    """
    Train a card's model with another seed (or load that training from the store) and run its gate's sweeps.

    Other sweeps can be named; the clean images are always included.
    """
    own = card.reseeded(seed)
    swept = {
        sweep: workspace.evidence(own, sweep) for sweep in dict.fromkeys(("clean", *(sweeps or card.gated_sweeps)))
    }
    clean = swept["clean"].provenance
    about = {"weights": workspace.weights_hash(own), "device": clean.get("device"), "seed": seed}
    return AcceptedModel(about, swept)


def accept(
    path: Path, name: str, accepted: Sequence[AcceptedModel], store: Store, card: Card | None = None
) -> Iterator[str]:
    """
    Write accepted models as the baseline at `path`, and return a summary; GateError if nothing is written.

    Given the model's card, also store what its gate needs, and report what the card lacks.
    """
    _check(name, accepted)
    if card and card.file.gate and (original := card.file.gate.accepted_model) not in (None, name):
        raise GateError(
            f"{card.path}: its gate compares with {original}, whose baseline this would replace; accept a run of "
            f"{original} with its own card"
        )
    lock = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    with store.exclusive(f"baseline-{lock}", f"accepting a baseline of {name}"):
        before = path.exists()
        baseline.write(path, name, accepted, card.file.gate.metrics if card and card.file.gate else ())
    first = accepted[0]
    images, cells = len(next(iter(first.swept.values()))), sum(len(e.strengths) for e in first.swept.values())
    yield (
        f"{name}: {len(accepted)} accepted model(s), {cells} cells of {images} images, "
        f"{'replace' if before else 'are'} the baseline {path}"
    )
    for one in accepted:
        if one.about.get("verdict", "passed") != "passed":
            yield f"note: the run of weights {str(one.about['weights'])[:12]} is {one.about['verdict']}, and accepted"
    yield f"next: commit it with its .npz, {_missing_in_card(path, card)}pytest suites/"


def _missing_in_card(path: Path, card: Card | None) -> str:
    """Return what a card's gate lacks to read a baseline here; "" if it lacks nothing."""
    if card is not None and card.file.gate is None and path == card.baseline:
        return "add a [gate] to the card, and "
    if card is None or path.resolve() != card.baseline.resolve():
        return "name it as `baseline` in the card's [gate], and "
    return "and "


def _check(name: str, accepted: Sequence[AcceptedModel]) -> None:
    """Raise GateError for invalid baselines: no cells, no numbers, duplicate weights, different sweeps."""
    if not accepted or not any(one.swept for one in accepted):
        raise GateError(f"{name}: the run has no cells to accept; give the report of a run with sweeps")
    for one in accepted:
        if not any(status == OK for evidence in one.swept.values() for status in evidence.status):
            why = next(status for evidence in one.swept.values() for status in evidence.status)
            raise GateError(f"{name}: no cell of weights {one.about['weights']} has numbers ({why}); fix the model")
    weights = [one.about["weights"] for one in accepted]
    if twice := sorted({str(each) for each in weights if weights.count(each) > 1}):
        raise GateError(
            f"{name}: weights {', '.join(twice)} appear more than once; each model counts once, so train with other "
            "seeds"
        )
    first = comparability.of_evidence(accepted[0].swept) | _architecture(accepted[0])
    for number, one in enumerate(accepted[1:], 2):
        if unlike := comparability.differences(first, comparability.of_evidence(one.swept) | _architecture(one)):
            raise GateError(
                f"{name}: the first model and number {number} were not swept under the same conditions:\n  "
                + "\n  ".join(unlike)
            )


def _architecture(one: AcceptedModel) -> dict[str, Any]:
    """Return what accepted models must have in common (not a candidate): several come from one recipe."""
    subject = next(iter(one.swept.values())).provenance["subject"]
    return {"model": {key: subject[key] for key in ("factory", "arguments", "decision")}}
