"""The model card: what a model is, what it was trained on, how it is perturbed, and what it claims."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustness import metrics, sources, strengths
from robustness.datasets.spec import DataSpec
from robustness.errors import CardError
from robustness.perturbations import Clean, Perturbation
from robustness.problems import sentence
from robustness.schema import CardFile

PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "tox.ini", "pytest.ini", ".git")


@dataclass(frozen=True)
class Claim:
    """One promise of a card: this metric, under this perturbation, at this strength, at least this much."""

    model: str
    sweep: str
    strength: str
    metric: str
    threshold: float
    family: str
    clean: tuple[tuple[str, float], ...] = ()
    """What the card claims of the clean images, metric and least value: some claims count only together with it."""

    @property
    def id(self) -> str:
        """How test ids and reports call it."""
        return f"{self.model}:{self.sweep}:{self.strength}:{self.metric}"


@dataclass(frozen=True)
class Card:
    """A card and where it lies; paths in it are relative to its folder."""

    file: CardFile
    path: Path
    tested_on: DataSpec | None = None
    """Other data than its own that it is swept on, where it serves as the source of another card's sweep."""
    tested_beside: Path = Path()
    """The folder of the card whose data these are."""
    seeded: int | None = None
    """The seed that it was trained anew from, and with it the models that its recipe needs."""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.file.name

    @cached_property
    def project(self) -> Path:
        """The folder from which the card's modules are imported: the nearest that looks like a project's root."""
        for folder in self.path.resolve().parents:
            if any((folder / name).exists() for name in PROJECT_FILES):
                return folder
        return self.path.resolve().parent

    @property
    def weights(self) -> Path | None:
        """The file of the weights that the card names."""
        return None if self.file.model.weights is None else self.path.parent / self.file.model.weights

    def reseeded(self, seed: int, **arguments: Any) -> Card:
        """
        Give the same card with weights trained anew from another seed (and other recipe arguments).

        The models that its recipe needs are trained anew from that seed too, but those that have weights of their own.
        """
        assert self.file.recipe is not None
        recipe = self.file.recipe.model_copy(
            update={"seed": seed, "arguments": {**self.file.recipe.arguments, **arguments}}
        )
        model = self.file.model.model_copy(update={"weights": None})
        return replace(self, file=self.file.model_copy(update={"recipe": recipe, "model": model}), seeded=seed)

    def perturbation(self, sweep: str) -> Perturbation:
        """Give a sweep's perturbation by the sweep's name."""
        return Clean() if sweep == "clean" else self.file.sweeps[sweep].perturbation

    def source(self, sweep: str) -> Path | None:
        """Give the file of the card that a sweep's examples are made on; None where that is the swept model."""
        made_on = self.perturbation(sweep).made_on
        return None if made_on is None else self.path.parent / made_on

    def attacked_for(self, other: Card, sweep: str) -> Card:
        """Give this card as the source of another's sweep: attacked itself, at the same strengths, on its images."""
        table = other.file.sweeps[sweep]
        own = table.perturbation.model_copy(update={"source": None})
        sweeps = {sweep: table.model_copy(update={"perturbation": own})}
        file = self.file.model_copy(update={"sweeps": sweeps, "claims": {}})
        beside = other.path.parent if other.tested_on is None else other.tested_beside
        return replace(self, file=file, tested_on=other.tested_on or other.file.data, tested_beside=beside)

    def claims(self) -> Iterator[Claim]:
        """Give every claim in the order of the file."""
        for sweep, table in self.file.claims.items():
            chosen = table.strengths if table.strengths is not None else self.file.strengths_of(sweep)
            perturbation = self.perturbation(sweep)
            family = perturbation.family if perturbation.made_on is None else "transfer"
            clean = tuple(self.file.clean.items())
            for i, strength in enumerate(chosen):
                for metric, row in table.thresholds.items():
                    if not isinstance(threshold := row[i], str):
                        kind = metrics.METRICS[metric.partition("[")[0]]
                        held_by = kind.family or family
                        yield Claim(self.name, sweep, strengths.name(strength), metric, threshold, held_by, clean)


def load(path: Path) -> Card:
    """
    Read and check a card without importing anything that it names.

    CardError names the file, every key that is wrong, its value, and what is allowed.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CardError(f"{path}: not a readable TOML file: {error}") from error
    try:
        card = Card(CardFile.model_validate(table), path)
    except ValidationError as error:
        problems = [sentence(dict(e), table, CardFile) for e in error.errors()]
        raise CardError("\n  ".join([f"{path}: {len(problems)} problem(s) in this card", *problems])) from error
    _check_importable(card)
    return card


def _check_importable(card: Card) -> None:
    named = {"model.factory": card.file.model.factory}
    if card.file.recipe:
        named["recipe.callable"] = card.file.recipe.callable
    for key, value in named.items():
        module, _, attribute = value.partition(":")
        file = sources.find(module, [str(card.project), *sys.path])
        if file is None:
            raise CardError(
                f"{card.path}: {key} = {value!r}: there is no module {module!r} below {card.project} "
                "or among the installed ones; write 'module:callable'"
            )
        if not sources.installed(file) and file.suffix == ".py":
            try:
                known = sources.defines(file, attribute)
            except SyntaxError as error:
                raise CardError(f"{card.path}: {key} = {value!r}: {file} cannot be read: {error}") from error
            if not known:
                raise CardError(f"{card.path}: {key} = {value!r}: {file} defines no {attribute!r} at its top level")
