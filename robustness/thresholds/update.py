"""Updates a card's weights and thresholds if they no longer match its recipe."""

from __future__ import annotations

import importlib.metadata
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from robustness import claims
from robustness.cards import Card, edit
from robustness.claims import Verdict
from robustness.classifiers import weights
from robustness.errors import TrainingError
from robustness.thresholds import retrainings
from robustness.thresholds.derive import Thresholds
from robustness.util import atomic_write, hardware
from robustness.util.hashing import sha256_json
from robustness.workspace.models import is_stale, recipe_hash
from robustness.workspace.training import train_many
from robustness.workspace.workspace import Workspace, fresh_workspace

HEALTHY, FRESH = 1000, 2000
"""The first training seed, from which thresholds are derived, and the first validation seed."""


@dataclass(frozen=True)
class UpdateResult:
    """What an update did, as sentences, and which claims the card's own weights meet afterwards."""

    done: tuple[str, ...]
    verdicts: tuple[Verdict, ...] = ()

    @property
    def broken(self) -> list[Verdict]:
        """The claims that the card's own weights fail."""
        return [verdict for verdict in self.verdicts if not verdict.passed]


@dataclass
class CardUpdate:
    """
    One card's update; trained models and evidence stay in the store, so an interrupted update resumes.

    ``seeds`` is the number of healthy trainings (default: by training time), ``fresh`` that of validation seeds,
    ``workers`` that of parallel trainings. ``force`` also updates what is up to date, and handwritten claims.
    """

    workspace: Workspace
    card: Card
    seeds: int | None = None
    fresh: int = 20
    workers: int | None = None
    force: bool = False

    def run(self) -> UpdateResult:
        """Update what is due; if nothing is, write nothing."""
        done = []
        if reason := self._weights_due():
            done.append(f"{reason}: {self._write_weights()}")
        by_hand = self.card.file.claims and not self.card.file.thresholds and not self.force
        if by_hand and done:
            done.append("its claims are handwritten (there is no [thresholds] table) and stay; --force replaces them")
        elif not by_hand and (reason := "its weights are new" if done else self._thresholds_due()):
            done.append(f"{reason}: {self._write_thresholds()}")
        return UpdateResult(tuple(done), tuple(self._judged()) if done else ())

    @cached_property
    def recipe(self) -> str:
        """The hash of all that the card's own training depends on."""
        if self.card.file.recipe is None:
            raise TrainingError(f"{self.card.path}: the card has no [recipe], so nothing can be updated; add one")
        return recipe_hash(self.workspace, self.card)

    @cached_property
    def tested(self) -> str:
        """A hash of what thresholds depend on besides the trainings: test images, sweeps, their sources, the seed."""
        sweeps = {name: table.model_dump() for name, table in self.card.file.sweeps.items()}
        about: dict[str, Any] = {
            "images": self.workspace.images(self.card).fingerprint, "sweeps": sweeps, "seed": self.workspace.seed
        }  # fmt: skip
        if self.card.file.search is not None:
            about["search"] = self.card.file.search.model_dump(exclude={"max_flip_rate"})
        if sources := {name: source for name in sweeps if (source := self._source(name))}:
            about["sources"] = sources
        return sha256_json(about)

    def _source(self, sweep: str) -> str | None:
        """Hash a transfer's source model: its weights, or the recipe that will train them."""
        source = self.workspace.source(self.card, sweep)
        if source is None:
            return None
        if source.weights is not None and source.weights.is_file():
            return weights.content_hash(source.weights)
        return recipe_hash(self.workspace, source)

    def _weights_due(self) -> str:
        if not self.recipe or self.card.weights is None:
            return ""
        if not self.card.weights.is_file():
            return f"{self.card.weights} was missing"
        if is_stale(self.workspace, self.card):
            return f"{self.card.weights} was stale because its recipe changed"
        return f"{self.card.weights} was updated on request" if self.force else ""

    def _write_weights(self) -> str:
        assert self.card.weights is not None
        self.card.check_written(self.card.weights)
        (file,) = self._train([self.card])
        atomic_write.replace(self.card.weights, file.read_bytes())
        return "trained by its recipe and written"

    def _thresholds_due(self) -> str:
        thresholds = self.card.file.thresholds
        if not thresholds or not self.card.file.claims:
            return "thresholds were missing"
        if thresholds.get("recipe") != self.recipe:
            return "thresholds were derived from another recipe"
        if thresholds.get("tested") != self.tested:
            return "thresholds were derived from other images, sweeps, seeds or source models"
        if self.fresh and "fresh_red" not in thresholds:
            return "thresholds were not validated on fresh seeds"
        return "thresholds were updated on request" if self.force else ""

    def _write_thresholds(self) -> str:
        count = self.seeds or self._how_many()
        seeds = [*range(HEALTHY, HEALTHY + count), *range(FRESH, FRESH + self.fresh)]
        own = [] if self.card.weights else [self.card]
        self._train([*own, *map(self.card.reseeded, seeds)])
        measured, resolution = retrainings.measure(self.workspace, self.card, seeds)
        derived = retrainings.derive(self.workspace, self.card, measured[:count], resolution, seeds)
        missed = derived.missed(measured[count:])
        for seed, row in zip(seeds[count:], missed, strict=True):
            if broken := [
                str(cell) for cell, bad in zip(retrainings.threshold_cells(self.card), row, strict=True) if bad
            ]:
                self.workspace.notice(f"fresh seed {seed} of {self.card.name} fails: {'; '.join(broken)}")
        about = self._about(derived, count, np.logical_or.reduce(missed, axis=1))
        self.card = edit.write_claims(self.card, self._tables(derived), about, self._flip_rate(derived))
        possible = int(np.isfinite(derived.bounds).sum())
        return (
            f"{possible} of {len(derived.bounds)} thresholds, the rest no claim possible; c = {derived.c:g}, healthy "
            f"seeds that fail when left out: {about['left_out_red']}, fresh seeds that fail: "
            f"{about.get('fresh_red', 'not tried')}; written to {self.card.path}"
        )

    def _tables(self, derived: Thresholds) -> dict[str, dict[str, list[float | None]]]:
        tables: dict[str, dict[str, list[float | None]]] = {}
        for cell, bound in zip(retrainings.threshold_cells(self.card), derived.bounds.tolist(), strict=True):
            if cell.metric == retrainings.FLIP_RATE:
                continue
            row = tables.setdefault(cell.sweep, {}).setdefault(cell.metric, [])
            row.append(None if np.isnan(bound) else bound)
        return tables

    def _flip_rate(self, derived: Thresholds) -> float | None:
        """Return the claimed maximum of the flip rate; None if the card has no search."""
        table = self.card.file.search
        if table is None:
            return None
        bound = float(derived.bounds[-1])
        if np.isnan(bound):
            raise TrainingError(
                f"{self.card.path}: search: no claim on the flip rate can fail: healthy trainings are misled on too "
                f"many images within {table.budget.norm} {table.budget.size:g}, or are confident on none; use a "
                "smaller `budget` or a lower `min_confidence`; nothing was written"
            )
        return bound

    def _about(self, derived: Thresholds, count: int, red: np.ndarray) -> dict[str, Any]:
        images = self.workspace.images(self.card)
        seeds = f" --seeds {self.seeds}" if self.seeds else ""
        tried = f"{int(red.sum())} of {len(red)} (seeds {FRESH}-{FRESH + len(red) - 1})"
        return {
            "command": f"robustness update-thresholds {shlex.quote(self.card.name)}{seeds}",
            "seeds": f"{HEALTHY}-{HEALTHY + count - 1}",
            "c": derived.c,
            "left_out_red": f"{len(derived.left_out_red)} of {count}",
            **({"fresh_red": tried} if len(red) else {}),
            "data": images.name,
            "images": len(images),
            "draws": self.workspace.seed,
            "device": hardware.device_fingerprint(self.workspace.device),
            "torch": importlib.metadata.version("torch"),
            "recipe": self.recipe,
            "tested": self.tested,
        }

    def _judged(self) -> Iterator[Verdict]:
        """Check the card's own weights against its current claims."""
        workspace = fresh_workspace(self.workspace)
        for claim in self.card.claims():
            yield claims.judge(claim, workspace.evidence(self.card, claim.sweep))

    def _how_many(self) -> int:
        """Return the number of healthy trainings, by the duration of the first."""
        most = retrainings.default_retraining_count(0)
        for seed in range(HEALTHY, HEALTHY + most):
            (file,) = self._train([self.card.reseeded(seed)])
            if seconds := weights.metadata(file).get("seconds"):  # unless it was interrupted
                return retrainings.default_retraining_count(float(seconds))
        return most

    def _train(self, every: Sequence[Card]) -> list[Path]:
        store, what = self.workspace.store, f"training {self.card.name}"
        return train_many(
            every,
            store.root,
            self.workspace.data_root,
            self.workers,
            say=store.say,
            progress=self.workspace.progress,
            what=what,
        )
