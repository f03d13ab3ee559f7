"""The state of a run of the suites: planned tests, their outcomes, and whether the run passes."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from robustness.cards import Card, Claim, selection, shards
from robustness.cards.doubts import doubt_of
from robustness.errors import RobustnessError
from robustness.gate.mutation import results as keeping
from robustness.metrics.evidence import Evidence
from robustness.metrics.intervals import half_width
from robustness.plugin.measured import UnclaimedSweep, UnclaimedSweeps, sweeps_without_claims, unclaimed_sweeps
from robustness.reporting.build import build
from robustness.reporting.report import CaughtReport, RunReport
from robustness.reporting.report_types import RED
from robustness.reporting.results import ClaimOutcome, GateOutcome, ModelResult
from robustness.reporting.run_info import RunInfo, ShardPlan
from robustness.reporting.suggested_claims import suggested
from robustness.util import hardware
from robustness.util.text import one_line
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace, data_root, homeless, no_progress, store_root

if TYPE_CHECKING:
    from torch import nn

    from robustness.plugin.options import RunOptions

WORST_FIRST = (*RED, "waived", "skipped", "held")
VERSIONS = ("pytest-robustness", "torch", "numpy", "pytest")


@dataclass
class RunState:
    """
    The state of a run, in the testing processes and, under xdist, in the controller.

    ``asked`` has which of "claim", "card" and "gate" the collected tests use, ``unreadable`` why there are no cards for
    them; ``planned`` maps test ids to claims, ``outcomes`` to their outcomes.
    """

    options: RunOptions
    say: Any = None
    progress: Any = no_progress
    asked: set[str] = field(default_factory=set)
    unreadable: str = ""
    planned: dict[str, Claim] = field(default_factory=dict)
    measuring: UnclaimedSweeps = field(default_factory=UnclaimedSweeps)
    outcomes: dict[str, ClaimOutcome] = field(default_factory=dict)
    gates: dict[str, GateOutcome] = field(default_factory=dict)
    """By test id: the outcome of each planned gate."""
    others: dict[str, str] = field(default_factory=dict)
    """By test id: why a card's other test failed, such as one of a doubt."""
    doubted: dict[str, list[str]] = field(default_factory=dict)
    """By model: the doubts that were raised or could not be checked."""
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.time)
    _lent: dict[str, nn.Module] = field(default_factory=dict)

    @cached_property
    def cards(self) -> list[Card]:
        """The selected cards, or those of the shard; CardError if they cannot be read."""
        if self.shard is None:
            return self.selected
        own = {each["name"] for each in self.shard["models"] if each["shard"] == self.shard["number"]}
        return [card for card in self.selected if card.name in own]

    @cached_property
    def selected(self) -> list[Card]:
        """The selected cards of all shards."""
        return take_cards(self.options, self.harness)

    @cached_property
    def shard(self) -> dict[str, Any] | None:
        """The division into shards, and which shard this is; None for a complete run."""
        if self.options.shard is None:
            return None
        return shards.plan(self.selected, shards.parse(self.options.shard), self.options.common())

    @cached_property
    def claims(self) -> dict[str, Claim]:
        """Every claim of the selected cards, by id."""
        return {claim.id: claim for card in self.cards for claim in card.claims()}

    @cached_property
    def measurable(self) -> dict[str, UnclaimedSweep]:
        """Every sweep without claims of the selected cards, by id."""
        return {each.id: each for each in unclaimed_sweeps(self.cards)}

    @cached_property
    def harness(self) -> Workspace:
        """The workspace of this process."""
        options = self.options
        elsewhere = options.engine != "plain" and not hardware.gpu_count()
        root = store_root(options.store)
        return Workspace(
            Store(root, options.run, self.say),
            data_root(options.data),
            device="cpu" if elsewhere else hardware.worker_device(options.device, options.worker),
            seed=options.seed,
            dtype=options.dtype,
            threads=max(1, hardware.cpu_count() // options.workers),
            kind=options.kind,
            progress=self.progress,
            notices=[said] if (said := homeless(root)) else [],
        )

    def needed(self) -> list[tuple[Card, str]]:
        """Return the sweeps that the selected cards need, whichever tests run."""
        found = []
        for card in self.cards:
            sweeps = ["clean", *sweeps_without_claims(card), *card.file.claims]
            sweeps += card.gated_sweeps if card.file.gate is not None else ()
            found += [(card, sweep) for sweep in dict.fromkeys(sweeps)]
        return found

    def planned_sweeps(self) -> list[tuple[Card, str]]:
        """Return the sweeps that the planned tests need."""
        every = [(claim.model, claim.sweep) for claim in self.planned.values()]
        every += [(each.model, each.sweep) for each in self.measuring.planned.values()]
        gates = [self.card(gate.model) for gate in self.gates.values()]
        every += [(card.name, sweep) for card in gates for sweep in card.gated_sweeps]
        return [(self.card(name), sweep) for name, sweep in dict.fromkeys(every)]

    def fill(self, wanted: list[tuple[Card, str]]) -> None:
        """Let the run's engine compute what is missing of these sweeps; EngineError if it fails."""
        from robustness import engines

        engines.fill(self.harness, engines.parse(self.options.engine), wanted, self.options.device)

    def classifier(self, card: Card) -> nn.Module:
        """Return a card's module for tests, loaded once; sweeps use another instance, so tests may change it."""
        if card.name not in self._lent:
            from robustness.classifiers import build as classifiers

            module = classifiers.load_model(card, self.harness.weights(card), self.harness.classes(card)).module
            classifiers.initialize_lazy_layers(module, lambda: self.harness.images(card).shape)
            self._lent[card.name] = module
        return self._lent[card.name]

    def card(self, name: str) -> Card:
        """Return a selected card by its name."""
        return next(card for card in self.cards if card.name == name)

    def plan(self, nodeids: Iterable[tuple[str, str]]) -> None:
        """Register the tests that will run, as (test id, claim id)."""
        for nodeid, claim_id in nodeids:
            if claim_id in self.claims:
                self.planned[nodeid] = self.claims[claim_id]
                self.asked.add("claim")

    def plan_params(self, params: Iterable[tuple[str, object]]) -> None:
        """Register the tests whose parameter is a claim or a sweep to measure; others may have the same name."""
        given = list(params)
        self.plan((nodeid, claim.id) for nodeid, claim in given if isinstance(claim, Claim))
        self.measuring.planned |= {nodeid: each for nodeid, each in given if isinstance(each, UnclaimedSweep)}

    def hear_measured(self, nodeid: str, outcome: str, numbers: Mapping[str, Any], message: str) -> None:
        """Record the outcome of a sweep without claims."""
        planned = self.measuring.planned[nodeid]
        if key := numbers.get("evidence"):
            self.keys[planned.model, planned.sweep] = key
        self.measuring.hear(nodeid, outcome, message)

    def plan_gates(self, nodeids: Iterable[tuple[str, str]]) -> None:
        """Register the tests of gates, as (test id, the gate's id)."""
        named = [(nodeid, gate) for nodeid, gate in nodeids if gate.endswith(":gate")]
        if not named:  # cards that cannot be read have no gates
            return
        known = {gate_id(card): card.name for card in self.cards if card.file.gate is not None}
        for nodeid, gate in named:
            if gate in known and nodeid not in self.gates:
                self.gates[nodeid] = GateOutcome(known[gate], "never ran", "no worker reported it", {})
                self.asked.add("gate")

    def hear_gate(self, nodeid: str, outcome: str, message: str, table: Mapping[str, Any]) -> None:
        """Record the outcome of a planned gate; a failure is never overwritten."""
        before = self.gates[nodeid]
        for sweep, key in table.get("evidence", {}).items():
            self.keys.setdefault((before.model, sweep), key)
        if before.outcome not in ("failed", "errored"):
            self.gates[nodeid] = GateOutcome(before.model, outcome, message, table)  # type: ignore[arg-type]

    def hear(self, nodeid: str, outcome: str, numbers: Mapping[str, Any], message: str) -> None:
        """Record the outcome of a planned test; the first one counts, unless a failure follows."""
        claim = self.planned.get(nodeid)
        if claim is None:
            return
        before = self.outcomes.get(nodeid)
        if before is not None and outcome not in ("failed", "errored", "refused"):
            return
        if before is not None and before.outcome in ("failed", "errored", "refused"):
            return
        if key := numbers.get("evidence"):
            self.keys[claim.model, claim.sweep] = key
        self.outcomes[nodeid] = ClaimOutcome(claim, outcome, message, dict(numbers), nodeid)  # type: ignore[arg-type]

    def hear_other(self, nodeid: str, message: str) -> None:
        """Record another failed test of a card; those with a claim, a gate or a sweep have their own records."""
        if not (nodeid in self.planned or nodeid in self.gates or nodeid in self.measuring.planned):
            self.others.setdefault(nodeid, one_line(message, 200))

    @property
    def notices(self) -> list[str]:
        """What a reader must know, from this process and from all workers."""
        own = self.harness.notices if "harness" in self.__dict__ else []
        return list(dict.fromkeys([*self.heard, *own, *self._untested()]))

    def _untested(self) -> list[str]:
        """Return the cards that the suites cannot test; if these are all, the run fails."""
        if "claim" not in self.asked or self.unreadable:
            return []
        return [
            f"{card.name}: its card has neither sweeps nor claims, so nothing was tested" for card in self.cards
            if not sweeps_without_claims(card) and next(card.claims(), None) is None and card.file.gate is None
        ]  # fmt: skip

    def all_outcomes(self) -> list[ClaimOutcome]:
        """Return one outcome per planned claim: the worst if several tests cover it, "never ran" if none reported."""
        found: dict[str, ClaimOutcome] = {}
        for nodeid, claim in self.planned.items():
            heard = self.outcomes.get(nodeid) or ClaimOutcome(claim, "never ran", "no worker reported it", {}, nodeid)
            before = found.setdefault(claim.id, heard)
            if WORST_FIRST.index(heard.outcome) < WORST_FIRST.index(before.outcome):
                found[claim.id] = heard
        return list(found.values())

    def problems(self) -> list[str]:
        """Return why the run fails although no test failed: nothing passes by absence."""
        return [said for _, said in self.reasons()]

    def reasons(self) -> list[tuple[str, str]]:
        """Return each problem with its cause, which determines the next step (`robustness.reporting.advice`)."""
        if not self.asked:
            return []
        if not self.cards:
            said = "no card is selected; name models with --robustness-model or cards with --robustness-card"
            return [("no card", said)]
        if "claim" in self.asked and not (self.planned or self.measuring.planned or self.gates):
            return [self._nothing_ran()]
        if not self.gates and self.asked == {"gate"}:
            said = "no gate ran: no selected card has a [gate] table (docs/gate.md)"
            return [("no gate", said)]
        return [*self.measuring.problems(), *self._unclaimed(), *self._reasons()]

    def _nothing_ran(self) -> tuple[str, str]:
        """Return why no claim ran."""
        if any(card.measured or list(card.claims()) for card in self.cards):
            return (
                "no test selected",
                "no claim ran: no selected test checks a claim of the selected cards",
            )
        names = one_line(", ".join(card.name for card in self.cards), 60)
        said = f"no claim ran: the cards of {names} claim nothing"
        if self.measurable:
            return "nothing claimed", f"{said}, and no selected test measures their sweeps"
        return "nothing swept", f"{said}, and have no sweeps"

    def _unclaimed(self) -> Iterator[tuple[str, str]]:
        """Return the cards with neither claims nor a gate, which --robustness-strict fails."""
        asked = self.options.strict and "claim" in self.asked
        for card in self.cards if asked else ():
            if not card.measured and not list(card.claims()) and card.file.gate is None:
                yield "nothing claimed", f"{card.name} has neither claims nor a gate: --robustness-strict fails it"

    def _reasons(self) -> Iterator[tuple[str, str]]:
        outcomes = self.all_outcomes()
        for card in self.cards:
            for waiver in card.file.waivers:
                if waiver.expired:
                    yield "waiver expired", f"{card.name}: the {waiver.place} is no longer {waiver}"
        if unheard := [gate.model for gate in self.gates.values() if gate.outcome == "never ran"]:
            yield "gate never ran", f"the gate of {', '.join(unheard)} never ran"
        for nodeid, message in self.others.items():
            doubted = doubt_of(nodeid, [card.name for card in self.cards])
            yield ("doubt" if doubted else "other test"), f"{nodeid} failed: {message}"
        if self.gates and all(gate.outcome == "skipped" for gate in self.gates.values()) and not outcomes:
            yield "gate skipped", "all gates were skipped"
        if never := [o for o in outcomes if o.outcome == "never ran"]:
            yield "never ran", f"{len(never)} of {len(outcomes)} claims never ran, for instance {never[0].claim.id}"
        if outcomes and all(outcome.outcome == "skipped" for outcome in outcomes):
            yield "skipped", f"all {len(outcomes)} claims were skipped"

    def undecided(self) -> list[str]:
        """Return the gates that were inconclusive, if that fails the run."""
        gates = [gate.model for gate in self.gates.values() if gate.outcome == "inconclusive"]
        return [f"the gate of {name} is inconclusive" for name in gates if self.options.undecided_is_red]

    def document(self, *, complete: bool, code: int) -> RunReport:
        """Return the report of the run, given its exit code."""
        outcomes, gates = self.all_outcomes(), {gate.model: gate for gate in self.gates.values()}
        results = []
        for card in self.cards:
            mine = [outcome for outcome in outcomes if outcome.claim.model == card.name]
            measured = self.measuring.of(card.name)
            if mine or measured or card.name in gates:
                evidence = self._evidence(card)
                doubted = self._doubted(card, evidence)
                claims = suggested(evidence, doubted) if not list(card.claims()) else ""
                caught = self._caught(card, evidence)
                results.append(
                    ModelResult(card, evidence, mine, gates.get(card.name), measured, claims, caught, doubted)
                )
        return build(results, self._about(complete, code), self.notices)

    def illustrate(self, document: RunReport) -> None:
        """Add the gallery's pictures to the report, or a notice if one cannot be rendered."""
        from robustness.reporting.html import gallery

        gallery.add_gallery(document, self.harness, self.cards)

    def _evidence(self, card: Card) -> dict[str, Evidence | None]:
        judged = {sweep: key for (name, sweep), key in self.keys.items() if name == card.name}
        found: dict[str, Evidence | None] = dict.fromkeys(judged)
        with suppress(RobustnessError):  # the claims were judged; the report uses their numbers
            for sweep, key in judged.items():
                found[sweep] = self.harness.cached_evidence(card, sweep, key)
            # Every sweep has computed the clean entry, claimed or not.
            if any(found.values()) and "clean" not in judged:
                clean = self.harness.cached_evidence(card, "clean", self.harness.key(card, "clean"))
                found |= {} if clean is None else {"clean": clean}
        return found

    def _doubted(self, card: Card, evidence: Mapping[str, Evidence | None]) -> list[str]:
        """Return the open doubts of a card: from failed tests and from its sweeps."""
        swept = (doubt for each in evidence.values() if each for doubt in each.provenance.get("doubts", []))
        open_ = dict.fromkeys([*self.doubted.get(card.name, []), *swept])
        return [doubt for doubt in open_ if doubt not in card.file.doubts]

    def _caught(self, card: Card, evidence: Mapping[str, Evidence | None]) -> CaughtReport | None:
        """Return which damage to a card's model is detected, if stored results exist and are current."""
        found = next((each.provenance for each in evidence.values() if each is not None), None)
        if found is None or card.candidate is not None or card.measured:
            return None
        subject = found["subject"]
        kept, reason = keeping.stored_result(card, subject["weights"], subject["images"], subject["seed"])
        if reason:
            self.harness.notice(reason)
        return keeping.summary(kept)

    def _about(self, complete: bool, code: int) -> RunInfo:
        return RunInfo(
            causes=list(dict.fromkeys([cause for cause, _ in self.reasons()])),
            started=datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
            seconds=round(time.time() - self.started, 1),
            versions=versions(),
            device=hardware.worker_device(self.options.device, 0),
            seed=self.options.seed,
            workers=self.options.workers,
            shard=None if self.shard is None else ShardPlan.model_validate(self.shard),
            complete=complete,
            exit=code,
            problems=[*self.problems(), *self.undecided()],
        )

    def header(self) -> Sequence[str]:
        """Return the header's lines: what will be tested."""
        options = self.options
        about = ", ".join(f"{name} {version}" for name, version in versions().items() if name != "pytest")
        models = ", ".join(
            f"{card.name} ({card.file.data.name}, {card.file.scale}"
            f"{'' if card.candidate is None else f', weights {card.candidate}'})"
            for card in self.cards
        )
        part = "" if options.shard is None else f"shard {options.shard}, "
        return [
            f"robustness: {part}models {models or 'none'}; device {hardware.worker_device(options.device, 0)}, "
            f"seed {options.seed}, {about}",
            f"robustness: store {store_root(options.store)}, data root {data_root(options.data)}",
        ]


def gate_id(card: Card) -> str:
    """Return the id of a gate's test, which differs from those of claims and models."""
    return f"{card.name}:gate"


def versions() -> dict[str, str]:
    """Return the versions on which numbers depend."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def take_cards(options: RunOptions, harness: Workspace) -> list[Card]:
    """
    Return the cards of a run with its options applied: other weights, fewer images, a profile instead of claims.

    A model without a card becomes a draft, which is only measured.
    """
    if options.draft is not None:
        chosen = [options.draft.card()]
    else:
        chosen = selection.select(options.handed, options.named, options.models)
        chosen = selection.with_weights(chosen, options.weights, options.folder)
    if options.images is not None:
        chosen = [selection.limit_test_images(card, options.images) for card in chosen]
        known = half_width(options.images, 0.5)
        harness.notice(
            f"tested on {options.images} images: the margin of error of a rate is at most ± {known:.3f} (95 %)"
        )
    if options.draft is not None or options.profile is not None:
        from robustness.plugin.measured import without_claims

        profile = options.profile or "default"
        chosen = [without_claims(card, profile, harness.images(card).shape) for card in chosen]
    return chosen
