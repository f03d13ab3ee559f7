"""The state of a run of the suites: planned tests, their outcomes, and whether the run passes."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from robustness.cards import Card, Claim, selection, shards
from robustness.metrics.intervals import half_width
from robustness.plugin.measured import UnclaimedSweep, UnclaimedSweeps, sweeps_without_claims, unclaimed_sweeps
from robustness.reporting.report_types import RED
from robustness.reporting.results import ClaimOutcome, GateOutcome
from robustness.util import hardware
from robustness.util.text import one_line

if TYPE_CHECKING:
    from torch import nn

    from robustness.plugin.options import RunOptions
    from robustness.workspace.workspace import Workspace

WORST_FIRST = (*RED, "waived", "skipped", "passed")
VERSIONS = ("pytest-robustness", "torch", "numpy", "pytest")
HEADER_MODELS = 3
"""Models named in the header; the summary has a line for each."""


@dataclass
class RunState:
    """
    The state of a run, in the testing processes and, under xdist, in the controller.

    ``asked`` has which of "claim", "card" and "gate" the collected tests use, ``unreadable`` why there are no cards for
    them; ``planned`` maps test ids to claims, ``outcomes`` to their outcomes.
    """

    options: RunOptions
    say: Any = None
    progress: Any = None
    requested: set[str] = field(default_factory=set)
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
    explained: dict[str, str] = field(default_factory=dict)
    """By claim that is not met and not part of the run: the first claim that failed with it, whose message says why."""
    collected_notices: list[str] = field(default_factory=list)
    """Notices from workers and from the selection of cards; the workspace has its own."""
    started: float = field(default_factory=time.time)
    _modules: dict[str, nn.Module] = field(default_factory=dict)

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
        return take_cards(self)

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
    def workspace(self) -> Workspace:
        """The workspace of this process; a run that only lists tests needs none."""
        from robustness.workspace.context import data_root, homeless, no_progress, store_root
        from robustness.workspace.store import Store
        from robustness.workspace.workspace import Workspace

        options = self.options
        elsewhere = options.engine != "local" and not hardware.gpu_count()
        root = store_root(options.store)
        return Workspace(
            Store(root, options.run, self.say),
            data_root(options.data),
            device="cpu" if elsewhere else hardware.worker_device(options.device, options.worker),
            seed=options.seed,
            dtype=options.dtype,
            threads=max(1, hardware.cpu_count() // options.workers),
            kind=options.kind,
            progress=self.progress or no_progress,
            notices=[notice] if (notice := homeless(root)) else [],
        )

    def needed(self) -> list[tuple[Card, str]]:
        """Return the sweeps that the selected cards need, whichever tests run."""
        pairs = []
        for card in self.cards:
            sweeps = ["clean", *sweeps_without_claims(card), *card.file.claims]
            sweeps += card.gated_sweeps if card.file.gate is not None else ()
            pairs += [(card, sweep) for sweep in dict.fromkeys(sweeps)]
        return pairs

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

        engines.fill(self.workspace, engines.parse(self.options.engine), wanted, self.options.device)

    def classifier(self, card: Card) -> nn.Module:
        """Return a card's module for tests, loaded once; sweeps use another instance, so tests may change it."""
        if card.name not in self._modules:
            from robustness.classifiers import build as classifiers

            module = classifiers.load_model(card, self.workspace.weights(card), self.workspace.classes(card)).module
            classifiers.initialize_lazy_layers(module, lambda: self.workspace.images(card).shape)
            self._modules[card.name] = module
        return self._modules[card.name]

    def card(self, name: str) -> Card:
        """Return a selected card by its name."""
        return next(card for card in self.cards if card.name == name)

    def plan(self, nodeids: Iterable[tuple[str, str]]) -> None:
        """Register the tests that will run, as (test id, claim id)."""
        for nodeid, claim_id in nodeids:
            if claim_id in self.claims:
                self.planned[nodeid] = self.claims[claim_id]
                self.requested.add("claim")

    def plan_params(self, params: Iterable[tuple[str, object]]) -> None:
        """Register the tests whose parameter is a claim or a sweep to measure; others may have the same name."""
        planned = list(params)
        self.plan((nodeid, claim.id) for nodeid, claim in planned if isinstance(claim, Claim))
        self.measuring.planned |= {nodeid: each for nodeid, each in planned if isinstance(each, UnclaimedSweep)}

    def record_measured(self, nodeid: str, outcome: str, numbers: Mapping[str, Any], message: str) -> None:
        """Record the outcome of a sweep without claims."""
        planned = self.measuring.planned[nodeid]
        if key := numbers.get("evidence"):
            self.keys[planned.model, planned.sweep] = key
        self.measuring.record(nodeid, outcome, message)

    def plan_gates(self, nodeids: Iterable[tuple[str, str]]) -> None:
        """Register the tests of gates, as (test id, the gate's id)."""
        named = [(nodeid, gate) for nodeid, gate in nodeids if gate.endswith(":gate")]
        if not named:  # cards that cannot be read have no gates
            return
        known = {gate_id(card): card.name for card in self.cards if card.file.gate is not None}
        for nodeid, gate in named:
            if gate in known and nodeid not in self.gates:
                self.gates[nodeid] = GateOutcome(known[gate], "not run", "no worker reported it", {})
                self.requested.add("gate")

    def record_gate(self, nodeid: str, outcome: str, message: str, table: Mapping[str, Any]) -> None:
        """Record the outcome of a planned gate; a failure is never overwritten."""
        before = self.gates[nodeid]
        for sweep, key in table.get("evidence", {}).items():
            self.keys.setdefault((before.model, sweep), key)
        if before.outcome not in ("failed", "error"):
            self.gates[nodeid] = GateOutcome(before.model, outcome, message, table)  # type: ignore[arg-type]

    def record(self, nodeid: str, outcome: str, numbers: Mapping[str, Any], message: str) -> None:
        """Record the outcome of a planned test; the first one counts, unless a failure follows."""
        claim = self.planned.get(nodeid)
        if claim is None:
            return
        before = self.outcomes.get(nodeid)
        if before is not None and outcome not in ("failed", "error", "vacuous"):
            return
        if before is not None and before.outcome in ("failed", "error", "vacuous"):
            return
        if key := numbers.get("evidence"):
            self.keys[claim.model, claim.sweep] = key
        self.outcomes[nodeid] = ClaimOutcome(claim, outcome, message, dict(numbers), nodeid)  # type: ignore[arg-type]

    def record_other(self, nodeid: str, message: str) -> None:
        """Record another failed test of a card; those with a claim, a gate or a sweep have their own records."""
        if not (nodeid in self.planned or nodeid in self.gates or nodeid in self.measuring.planned):
            self.others.setdefault(nodeid, one_line(message, 200))

    @property
    def notices(self) -> list[str]:
        """What a reader must know, from this process and from all workers."""
        own = self.workspace.notices if "workspace" in self.__dict__ else []
        return list(dict.fromkeys([*self.collected_notices, *own, *self._untested()]))

    def _untested(self) -> list[str]:
        """Return the cards that the suites cannot test; if these are all, the run fails."""
        if "claim" not in self.requested or self.unreadable:
            return []
        return [
            f"{card.name}: its card has neither sweeps nor claims, so nothing was tested" for card in self.cards
            if not sweeps_without_claims(card) and next(card.claims(), None) is None and card.file.gate is None
        ]  # fmt: skip

    def all_outcomes(self) -> list[ClaimOutcome]:
        """Return one outcome per planned claim: the worst if several tests cover it, "not run" if none reported."""
        worst: dict[str, ClaimOutcome] = {}
        for nodeid, claim in self.planned.items():
            outcome = self.outcomes.get(nodeid) or ClaimOutcome(claim, "not run", "no worker reported it", {}, nodeid)
            before = worst.setdefault(claim.id, outcome)
            if WORST_FIRST.index(outcome.outcome) < WORST_FIRST.index(before.outcome):
                worst[claim.id] = outcome
        return list(worst.values())

    def header(self) -> Sequence[str]:
        """Return the header's lines: what will be tested."""
        from robustness.workspace.context import data_root, store_root

        options = self.options
        about = ", ".join(f"{name} {version}" for name, version in versions().items() if name != "pytest")
        names = [
            card.name + ("" if card.overrides.weights is None else f" (weights {card.overrides.weights})")
            for card in self.cards
        ]
        models = ", ".join(names[:HEADER_MODELS]) or "none"
        models += f" and {len(names) - HEADER_MODELS} more" if len(names) > HEADER_MODELS else ""
        part = "" if options.shard is None else f"shard {options.shard}, "
        return [
            f"robustness: {part}models {models}; device {hardware.worker_device(options.device, 0)}, "
            f"seed {options.seed}, {about}",
            f"robustness: store {store_root(options.store)}, data root {data_root(options.data)}",
        ]


def gate_id(card: Card) -> str:
    """Return the id of a gate's test, which differs from those of claims and models."""
    return f"{card.name}:gate"


def versions() -> dict[str, str]:
    """Return the versions on which numbers depend."""
    installed = {}
    for name in VERSIONS:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = "not installed"
    return installed


def take_cards(run: RunState) -> list[Card]:
    """
    Return the cards of a run with its options applied: other weights, fewer images, a profile instead of claims.

    A model without a card becomes a draft, which is only measured.
    """
    options = run.options
    if options.draft is not None:
        chosen = [options.draft.card()]
    else:
        chosen = selection.select(options.handed, options.named, options.models)
        chosen = selection.with_weights(chosen, options.weights, options.folder)
    if options.images is not None:
        chosen = [selection.limit_test_images(card, options.images) for card in chosen]
        known = half_width(options.images, 0.5)
        run.collected_notices.append(
            f"tested on {options.images} images: the margin of error of a rate is at most ± {known:.3f} (95 %)"
        )
    if options.draft is not None or options.profile is not None:
        from robustness.plugin.measured import without_claims

        profile = options.profile or "default"
        chosen = [without_claims(card, profile, run.workspace.images(card).shape) for card in chosen]
    return chosen
