"""Several trainings, or fittings of generators, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustness.cards import Card
from robustness.classifiers import weights
from robustness.errors import ModelError, TrainingError
from robustness.perturbations import Perturbation
from robustness.util import hardware
from robustness.workspace import attack_inputs
from robustness.workspace.models import recipe_hash, train_if_missing
from robustness.workspace.parallel import run_in_order, run_in_processes
from robustness.workspace.store import Store
from robustness.workspace.workspace import Progress, Workspace, no_progress


@dataclass(frozen=True)
class TrainingJob:
    """A model that its recipe trains."""

    card: Card

    @property
    def name(self) -> str:
        """Say which training it is."""
        return f"training {self.card.name} with seed {self.card.file.recipe.seed if self.card.file.recipe else None}"

    def __call__(self, harness: Workspace) -> Path:
        """Train it unless the store has its weights, and give their file."""
        return train_if_missing(harness, self.card, by_command=True)


@dataclass(frozen=True)
class GeneratorJob:
    """A generator that is fitted to a card's model, which is there."""

    card: Card
    perturbation: Perturbation

    @property
    def name(self) -> str:
        """Say which generator it is."""
        return f"fitting a generator to {self.card.name}"

    def __call__(self, harness: Workspace) -> Path:
        """Fit it with the harness's seed unless the store has it, and give its file."""
        attack_inputs.generator(harness, self.card, self.perturbation)
        return attack_inputs.generator_file(harness, self.card, self.perturbation)


def train_many(
    cards: Sequence[Card],
    store: Path,
    data_root: Path,
    workers: int | None = None,
    *,
    say: Callable[[str], None] | None = None,
    progress: Progress = no_progress,
    what: str = "",
    device: str = "cpu",
) -> list[Path]:
    """
    Train each card by its recipe, unless the store has its weights, and give the files in the order of the cards.

    ``workers`` processes work side by side (default: as many as the cores carry); with one, or one card to train, it
    is done here. They are spawned, so a script that calls this needs ``if __name__ == "__main__":``. The first failure
    ends all and is raised, TrainingError or what the recipe met; what was finished is in the store.
    """
    here = Workspace(Store(store, say=say), data_root, device)
    found = [stored(here, card) for card in cards]
    missing = [i for i, path in enumerate(found) if path is None]
    if missing:
        many = len(missing) > 1
        with progress(f"{what or 'training'}, percent of {len(missing)} models") if many else no_progress("") as show:
            tasks = [TrainingJob(cards[i]) for i in missing]
            workers = min(workers or workers_for(cards), len(tasks))
            if workers > 1:
                made = run_in_processes(tasks, here, workers, show)
            else:
                made = run_in_order(tasks, here, show, no_progress if many else progress)
        for i, path in zip(missing, made, strict=True):
            found[i] = path
    for notice in here.notices:
        here.store.say(notice)
    return [path for path in found if path is not None]


def fit_many(wanted: Sequence[tuple[Card, Perturbation]], harness: Workspace, workers: int | None = None) -> None:
    """
    Fit generators to trained models, by card and perturbation, unless the store has them.

    ``workers`` and failures are as with `train_many`; on a GPU they follow each other, each in the whole of it.
    """
    files = {attack_inputs.generator_file(harness, card, about): GeneratorJob(card, about) for card, about in wanted}
    left = [task for file, task in files.items() if not harness.store.holds(file)]
    workers = min(workers or hardware.cpu_count(), len(left)) if harness.device == "cpu" else 1
    if workers > 1:
        with harness.progress(f"fitting, percent of {len(left)} generators") as show:
            run_in_processes(left, harness, workers, show)
    else:
        run_in_order(left, harness, None, harness.progress)


def workers_for(cards: Sequence[Card]) -> int:
    """Return how many trainings the cores carry at once."""
    return max(1, hardware.cpu_count() // max((c.file.recipe.threads for c in cards if c.file.recipe), default=1))


def stored(harness: Workspace, card: Card) -> Path | None:
    """Return the file of the weights that a card's recipe makes if the store has it whole; train nothing."""
    if card.file.recipe is None:
        raise TrainingError(f"{card.path}: the card names no [recipe], so there is nothing to train it by")
    path = harness.store.path("weights", recipe_hash(harness, card))
    try:
        weights.verify_checksum(path)
    except ModelError:
        return None
    return path
