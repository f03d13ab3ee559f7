"""One run of the suites: what was planned, what came of it, and whether it may be called green."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustness import hardware, selection
from robustness.cards import Card, Claim
from robustness.errors import RobustnessError
from robustness.evidence import Evidence
from robustness.harness import Harness, data_root, no_progress, store_root
from robustness.reporting.document import RED, ClaimOutcome, ModelResult, build
from robustness.store import Store

if TYPE_CHECKING:
    from torch import nn

WORST_FIRST = (*RED, "skipped", "held")
VERSIONS = ("pytest-robustness", "torch", "numpy", "pytest")


@dataclass(frozen=True)
class Options:
    """What the user asked for, as plain values."""

    handed: tuple[Path, ...] = ()
    named: tuple[Path, ...] = ()
    models: tuple[str, ...] = ()
    data: str | None = None
    store: str | None = None
    device: str = "auto"
    seed: int = 0
    strict: bool = False
    workers: int = 1
    worker: int = 0
    run: str | None = None

    def check(self) -> None:
        """Refuse a seed or a device that cannot be; RobustnessError says what can."""
        if not 0 <= self.seed < 2**32:
            raise RobustnessError(f"`seed` must lie in [0, 2**32), got {self.seed}; leave it out for 0")
        kind, _, number = self.device.partition(":")
        if self.device not in ("auto", "cpu", "cuda") and not (kind == "cuda" and number.isdecimal()):
            raise RobustnessError(f"`device` must be cpu, cuda, cuda:N or auto, got {self.device!r}")
        if kind == "cuda" and (due := int(number or 0)) >= hardware.gpus() and due >= _torch_gpus():
            raise RobustnessError(
                f"`device` = {self.device!r}: this machine has {_torch_gpus()} GPU(s) that torch can use; "
                "take cpu, or auto for what there is"
            )


def _torch_gpus() -> int:
    """Ask torch itself where the driver's folder lists too few, as on systems that have none."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@dataclass
class Session:
    """
    The state of a run, in the process that tests and, under xdist, in the one that only listens.

    ``asked`` holds which of "claim" and "card" the collected tests take, ``unreadable`` why there are no cards
    for them; ``planned`` maps test ids to claims, ``outcomes`` what was heard of them.
    """

    options: Options
    say: Any = None
    progress: Any = no_progress
    asked: set[str] = field(default_factory=set)
    unreadable: str = ""
    planned: dict[str, Claim] = field(default_factory=dict)
    outcomes: dict[str, ClaimOutcome] = field(default_factory=dict)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.time)
    _lent: dict[str, nn.Module] = field(default_factory=dict)

    @cached_property
    def cards(self) -> list[Card]:
        """The selected cards; CardError where they cannot be read."""
        return selection.select(self.options.handed, self.options.named, self.options.models)

    @cached_property
    def claims(self) -> dict[str, Claim]:
        """Every claim of the selected cards, by id."""
        return {claim.id: claim for card in self.cards for claim in card.claims()}

    @cached_property
    def harness(self) -> Harness:
        """What makes evidence in this process."""
        options = self.options
        return Harness(
            Store(store_root(options.store), options.run, self.say),
            data_root(options.data),
            device=hardware.worker_device(options.device, options.worker),
            seed=options.seed,
            threads=max(1, hardware.cores() // options.workers),
            progress=self.progress,
        )

    def classifier(self, card: Card) -> nn.Module:
        """Give a card's module for tests, loaded once; not the one that is swept: what tests do to it is theirs."""
        if card.name not in self._lent:
            from robustness import classifiers

            self._lent[card.name] = classifiers.load(card, self.harness.weights(card)).module
        return self._lent[card.name]

    def card(self, name: str) -> Card:
        """Give a selected card by its name."""
        return next(card for card in self.cards if card.name == name)

    def plan(self, nodeids: Iterable[tuple[str, str]]) -> None:
        """Take note of the tests that are to run, as (test id, claim id)."""
        for nodeid, claim_id in nodeids:
            if claim_id in self.claims:
                self.planned[nodeid] = self.claims[claim_id]
                self.asked.add("claim")

    def plan_params(self, params: Iterable[tuple[str, object]]) -> None:
        """Take note of the tests whose parameter is a claim; others may call theirs so."""
        self.plan((nodeid, claim.id) for nodeid, claim in params if isinstance(claim, Claim))

    def hear(self, nodeid: str, outcome: str, numbers: Mapping[str, Any], message: str) -> None:
        """Take note of what came of a planned test; the first word on it stands, unless a failure follows."""
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

    @property
    def notices(self) -> list[str]:
        """What a reader must know, from this process and from all workers."""
        own = self.harness.notices if "harness" in self.__dict__ else []
        return list(dict.fromkeys([*self.heard, *own]))

    def all_outcomes(self) -> list[ClaimOutcome]:
        """Give one outcome for every planned claim: of several tests' the worst, "never ran" where none was heard."""
        found: dict[str, ClaimOutcome] = {}
        for nodeid, claim in self.planned.items():
            heard = self.outcomes.get(nodeid) or ClaimOutcome(claim, "never ran", "no worker reported it", {}, nodeid)
            before = found.setdefault(claim.id, heard)
            if WORST_FIRST.index(heard.outcome) < WORST_FIRST.index(before.outcome):
                found[claim.id] = heard
        return list(found.values())

    def problems(self) -> list[str]:
        """Say why the run may not be called green although no test failed: nothing is green by absence."""
        if not self.asked:
            return []
        if not self.cards:
            return ["no card is selected; name models with --robustness-model or cards with --robustness-card"]
        if not self.planned and "claim" in self.asked:
            return ["no claim was run: none of the selected tests holds a claim of the selected cards"]
        outcomes = self.all_outcomes()
        found = []
        if never := [o for o in outcomes if o.outcome == "never ran"]:
            found.append(f"{len(never)} of {len(outcomes)} claims never ran, {never[0].claim.id} among them")
        if outcomes and all(outcome.outcome == "skipped" for outcome in outcomes):
            found.append(f"all {len(outcomes)} claims were skipped")
        return found

    def document(self, *, complete: bool) -> dict[str, Any]:
        """Give the report of the run."""
        outcomes = self.all_outcomes()
        results = [
            ModelResult(card, self._evidence(card), [o for o in outcomes if o.claim.model == card.name])
            for card in self.cards
            if any(o.claim.model == card.name for o in outcomes)
        ]
        return build(results, self._about(complete), self.notices)

    def illustrate(self, document: dict[str, Any]) -> None:
        """Put the pictures of the gallery into the report; what keeps one from being made is a notice in it."""
        from robustness.reporting.web import pictures

        pictures.add(document, self.harness, self.cards)

    def _evidence(self, card: Card) -> dict[str, Evidence | None]:
        judged = {sweep: key for (name, sweep), key in self.keys.items() if name == card.name}
        found: dict[str, Evidence | None] = dict.fromkeys(judged)
        with suppress(RobustnessError):  # the claims were judged; the report makes do with what they were told
            for sweep, key in judged.items():
                found[sweep] = self.harness.kept(card, sweep, key)
            # Every sweep has made the clean entry, claimed or not.
            if any(found.values()) and "clean" not in judged:
                clean = self.harness.kept(card, "clean", self.harness.key(card, "clean"))
                found |= {} if clean is None else {"clean": clean}
        return found

    def _about(self, complete: bool) -> dict[str, Any]:
        return {
            "started": datetime.fromtimestamp(self.started, UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - self.started, 1),
            "versions": versions(),
            "device": hardware.worker_device(self.options.device, 0),
            "seed": self.options.seed,
            "workers": self.options.workers,
            "complete": complete,
            "problems": self.problems(),
        }

    def header(self) -> Sequence[str]:
        """Say what is about to be tested."""
        options = self.options
        about = ", ".join(f"{name} {version}" for name, version in versions().items() if name != "pytest")
        models = ", ".join(f"{card.name} ({card.file.data.name}, {card.file.scale})" for card in self.cards)
        return [
            f"robustness: models {models or 'none'}; device {hardware.worker_device(options.device, 0)}, "
            f"seed {options.seed}, {about}",
            f"robustness: store {store_root(options.store)}, data root {data_root(options.data)}",
        ]


def versions() -> dict[str, str]:
    """Give the versions that a number depends on."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
