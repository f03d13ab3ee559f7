"""Mutation testing of a model's claims and gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from robustness import claims
from robustness.cards import Card, Claim
from robustness.errors import CardError, RobustnessError, TrainingError
from robustness.gate import baseline
from robustness.gate.decide import decide
from robustness.gate.mutation import results
from robustness.gate.mutation.plan import MutationOptions, MutationPlan, plan
from robustness.metrics.evidence import OK, Evidence
from robustness.mutations.kinds import ALL, KINDS, Mutation
from robustness.util import hardware
from robustness.workspace.training import train_many
from robustness.workspace.workspace import Workspace, fresh_workspace

Row = dict[str, Any]

CATCHERS = ("claims", "gate", "either")


@dataclass
class MutationTarget:
    """
    What tests the damaged models: the card's claims and gate that can be measured and pass without damage.

    Sweeps by a generator are left out: it would have to be refitted to each damaged model.
    """

    workspace: Workspace
    card: Card
    claims: list[Claim]
    sweeps: list[str]
    left_out: list[str]
    notes: list[str] = field(default_factory=list)

    def row(self, card: Card) -> Row:
        """Test one model with claims and gate; RobustnessError if it cannot be swept."""
        swept = self._swept(card)
        verdicts = [claims.judge(claim, swept[claim.sweep]) for claim in self.claims]
        red = [verdict for verdict in verdicts if not verdict.passed]
        clean = swept["clean"]
        decision = decide(card, swept.__getitem__) if card.file.gate else None
        return {
            "clean_accuracy": claims.measure(clean, "0", "accuracy").value if clean.status[0] == OK else None,
            "red": len(red),
            "red_groups": sorted({group(verdict.claim) for verdict in red}),
            "first": red[0].message if red else "",
            "gate": decision.outcome if decision else None,
            "gate_message": decision.message if decision else "",
            "error": "",
        }

    def _swept(self, card: Card) -> dict[str, Evidence]:
        one = fresh_workspace(self.workspace)
        swept = {sweep: one.evidence(card, sweep) for sweep in ("clean", *self.sweeps)}
        for notice in one.notices:
            self.workspace.notice(notice)
        return swept

    def undamaged(self) -> Row:
        """Test the undamaged model: claims and gates that fail on it are left out, with a note."""
        swept = self._swept(self.card)
        if broken := [claim for claim in self.claims if not claims.judge(claim, swept[claim.sweep]).passed]:
            self.claims = [claim for claim in self.claims if claim not in broken]
            self.notes.append(
                f"{len(broken)} claims fail without any damage and are left out, for instance {broken[0].id}"
            )
        row = self.row(self.card)
        if row["gate"] in ("failed", "error"):
            self.card = replace(self.card, file=self.card.file.model_copy(update={"gate": None}))
            self.notes.append(f"the gate fails without any damage and is left out: {row['gate_message']}")
        if not self.claims and self.card.file.gate is None:
            raise CardError(f"{self.card.path}: nothing is left to detect damage: {'; '.join(self.notes)}")
        return {**row, "gate": row["gate"] if self.card.file.gate else None}

    @property
    def gate(self) -> dict[str, Any] | None:
        """The gate in plain types."""
        gate = self.card.file.gate
        if gate is None:
            return None
        return {"kind": gate.kind, "alpha": gate.alpha, "accepted": len(baseline.read(self.card.baseline).accepted)}


def mutation_target(workspace: Workspace, card: Card) -> MutationTarget:
    """Return what mutations of a card's model are tested against; CardError if there is nothing."""
    claimed = {claim.sweep for claim in card.claims()} | set(card.gated_sweeps if card.file.gate else ())
    # The model's own generator would be refitted to each damaged model; that of another model stays.
    on_itself = {name for name in card.file.sweeps if card.perturbation(name).source_card is None}
    left_out = [
        name for name in card.file.sweeps if name in claimed & on_itself and card.perturbation(name).needs_fitting
    ]
    sweeps = [name for name in ("clean", *card.file.sweeps) if name in claimed and name not in left_out]
    if not sweeps:
        raise CardError(
            f"{card.path}: nothing can detect damage: there is no gate, and no claim on a sweep without a generator; "
            "write [claims], let `robustness update-thresholds` write them, or add a [gate]"
        )
    gate, gated = card.file.gate, tuple(name for name in card.gated_sweeps if name in sweeps)
    narrowed = gate.model_copy(update={"sweeps": gated}) if gate is not None and gated else None
    own = [claim for claim in card.claims() if claim.sweep in sweeps and card.waiver(claim) is None]
    return MutationTarget(
        workspace, replace(card, file=card.file.model_copy(update={"gate": narrowed})), own, sweeps, left_out
    )


def run_mutations(workspace: Workspace, card: Card, options: MutationOptions) -> dict[str, Any]:
    """
    Damage a card's model and return what claims and gate detect, in plain types (docs/mutation.md).

    Trained models and evidence stay in the store, so the next call reuses them.
    """
    of = mutation_target(workspace, card)
    unhurt = of.undamaged()
    planned = plan(workspace, of.card, options)
    _train(workspace, planned.trainings(of.card), options.workers)
    with workspace.progress(f"damaging {card.name}") as show:
        damage, retrainings = _measured(of, planned, options, show or (lambda done, total: None))
    images = workspace.images(card)
    return {
        "about": results.result_key(card, workspace.weights_hash(card), images.fingerprint, workspace.seed),
        "model": card.name,
        "data": images.name,
        "n": len(images),
        "seed": workspace.seed,
        "device": hardware.device_fingerprint(workspace.device),
        "scale": card.file.scale,
        "weights": workspace.weights_hash(card),
        "sweeps": of.sweeps,
        "sweeps_left_out": of.left_out,
        "claims": len(of.claims),
        "groups": len({group(claim) for claim in of.claims}),
        "thresholds": dict(card.file.thresholds),
        "gate": of.gate,
        "undamaged": unhurt,
        "damage": damage,
        "retrainings": retrainings,
        "false_alarms": {by: sum(is_detected(row, by) for row in retrainings) for by in CATCHERS},
        "left_out": dict(planned.left_out),
        "notes": of.notes,
    }


def _measured(
    of: MutationTarget, planned: MutationPlan, options: MutationOptions, show: Callable[[int, int], None]
) -> tuple[list[Row], list[Row]]:
    """Test every damaged model and every retraining with claims and gate."""
    done, damage, retrainings = 0, [], []
    for name, steps in planned.damage.items():
        rows: list[Row] = []
        for step in steps:
            rows.append(_row(of, step))
            show(done + len(rows), len(planned))
            if not (options.every or rows[-1]["error"] or is_detected(rows[-1])):
                break  # milder levels are not tested
        done += len(steps)
        first = {by: detected_from(rows, by) for by in CATCHERS}
        damage.append({"kind": name, "title": KINDS[name].title, "rows": rows, "caught_from": first})
    for one in planned.retrainings:
        retrainings.append({"seed": one.overrides.seed, **of.row(one)})
        show(done + len(retrainings), len(planned))
    return damage, retrainings


def _row(of: MutationTarget, damage: Mutation) -> Row:
    """Test a damaged model with claims and gate, or record why it cannot be built."""
    card = of.card.mutated(damage)
    about = {"level": None if damage.level == ALL else damage.level, "says": str(damage)}
    try:
        if damage.operator.target == "training":
            train_many([card], of.workspace.store.root, of.workspace.data_root)
        return {**about, **of.row(card)}
    except RobustnessError as error:
        return {**about, "error": str(error)}


def _train(workspace: Workspace, every: Sequence[Card], workers: int | None) -> None:
    """Train missing models in parallel; a failed training is reported when its model is tested."""
    if not every:
        return
    store, what = workspace.store, f"training {every[0].name}, damaged and undamaged"
    settings: dict[str, Any] = {"say": store.say, "progress": workspace.progress, "what": what}
    try:
        train_many(every, store.root, workspace.data_root, workers, **settings)
    except TrainingError as error:
        store.say(f"{error}; the remaining models are trained one at a time")


def is_detected(row: Row, by: str = "either") -> bool:
    """
    Return whether "claims", the "gate", or "either" detects a model, as the suites would.

    >>> is_detected({"red": 0, "gate": "inconclusive"}), is_detected({"red": 0, "gate": "error"}, "gate")
    (False, True)
    """
    detected = {"claims": bool(row.get("red")), "gate": row.get("gate") in ("failed", "error")}
    return any(detected.values()) if by == "either" else detected[by]


def detected_from(rows: Sequence[Row], by: str) -> str | None:
    """
    Return the mildest level such that it and all worse ones are detected; rows come worst first, errors are skipped.

    >>> red = {"3": 8, "2": 5, "1": 0, "0": 1}
    >>> detected_from([{"says": level, "red": red[level], "error": ""} for level in red], "claims")
    '2'
    """
    detected = None
    for row in rows:
        if row["error"]:
            continue
        if not is_detected(row, by):
            break
        detected = row["says"]
    return detected


def group(claim: Claim) -> str:
    """Return a claim's group: its sweep and metric."""
    return f"{claim.sweep} {claim.metric}"
