"""A sweep of a card, resolved once: what runs it, stores it and plans it takes these values."""

from __future__ import annotations

from dataclasses import dataclass

from robustness.cards import Card
from robustness.data.images import Images
from robustness.perturbations import Perturbation, Step
from robustness.perturbations import strength as strengths
from robustness.perturbations.strength import Strength


@dataclass(frozen=True, eq=False)
class SweepJob:
    """
    One sweep of one card.

    Attributes:
        card: The card whose model is swept.
        sweep: The name of the sweep; "clean" for the images as they are.
        images: The test images.
        perturbation: What is done to the images.
        source: The card of the model that a transfer attack is made on, with the same images; None for other attacks.
    """

    card: Card
    sweep: str
    images: Images
    perturbation: Perturbation
    source: Card | None = None

    @property
    def label(self) -> str:
        """The sweep as users see it, as in "tiny:fgsm"."""
        return f"{self.card.name}:{self.sweep}"

    @property
    def models(self) -> tuple[Card, ...]:
        """The cards of all models that the sweep calls: the swept one first, the attacked one last."""
        return (self.card,) if self.source is None else (self.card, self.source)

    @property
    def attacked(self) -> Card:
        """The card of the model that the perturbation attacks."""
        return self.models[-1]

    @property
    def unit(self) -> strengths.Unit:
        """The unit of the strengths."""
        table = self.card.file.sweeps.get(self.sweep)
        return table.unit if table else "default"

    @property
    def strengths(self) -> tuple[Strength, ...]:
        """The strengths without 0, which is the clean evidence that all sweeps share; 0 dB is a strength."""
        requested = self.card.file.strengths_of(self.sweep)
        if self.sweep not in self.card.file.sweeps or self.unit in strengths.RATIOS:
            return requested
        return tuple(strength for strength in requested if strength != 0) or (0.0,)

    @property
    def requested(self) -> tuple[str, ...]:
        """The names of all strengths of the card, 0 among them."""
        return tuple(strengths.name(strength) for strength in self.card.file.strengths_of(self.sweep))

    @property
    def direction_job(self) -> SweepJob | None:
        """The same attack on its source, whose signs all strengths share; None if the attack has no such signs."""
        if self.source is None or not isinstance(self.perturbation, Step) or not self.perturbation.signed:
            return None
        return SweepJob(self.source, self.sweep, self.images, self.source.perturbation(self.sweep))
