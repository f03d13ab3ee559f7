"""Several trainings, or fittings of generators, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustness.cards import Card
from robustness.errors import TrainingError
from robustness.perturbations import Perturbation
from robustness.util import hardware
from robustness.workspace import attack_inputs, factory_weights, fitting
from robustness.workspace.context import Progress, no_progress
from robustness.workspace.models import recipe_hash, train_if_missing
from robustness.workspace.parallel import run_in_order, run_in_processes
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace


@dataclass(frozen=True)
class TrainingJob:
    """The training of a model by its recipe."""

    card: Card

    @property
    def name(self) -> str:
        """The name of the training for error messages."""
        return f"training {self.card.name} with seed {self.card.file.recipe.seed if self.card.file.recipe else None}"

    def __call__(self, workspace: Workspace) -> Path:
        """Train the model unless the store has its weights; return their file."""
        return train_if_missing(workspace, self.card, by_command=True)


@dataclass(frozen=True)
class GeneratorJob:
    """The fitting of a generator to a trained model."""

    card: Card
    perturbation: Perturbation

    @property
    def name(self) -> str:
        """The name of the fitting for error messages."""
        return f"fitting a {fitting.product(self.perturbation)} to {self.card.name}"

    def __call__(self, workspace: Workspace) -> Path:
        """Fit the generator with the workspace's seed unless the store has it; return its file."""
        attack_inputs.generator(workspace, self.card, self.perturbation)
        return attack_inputs.generator_file(workspace, self.card, self.perturbation)


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
    Train each card by its recipe unless the store has its weights; return the files in the order of the cards.

    Processes are spawned, so a script that calls this needs ``if __name__ == "__main__":``.

    Args:
        cards: The cards to train.
        store: The folder of the store.
        data_root: The folder of the data sets.
        workers: Processes that train side by side; None for as many as the cores can run. With one, or one card to
            train, this process trains.
        say: Shows the user a sentence.
        progress: Shows the progress of all trainings.
        what: What the progress shows.
        device: The device to train on, as torch names it.

    Raises:
        RobustnessError: The first failure, which ends all trainings; finished weights are in the store.
    """
    here = Workspace(Store(store, say=say), data_root, device)
    files = [stored_weights(here, card) for card in cards]
    missing = [i for i, path in enumerate(files) if path is None]
    if missing:
        many = len(missing) > 1
        with progress(f"{what or 'training'}, percent of {len(missing)} models") if many else no_progress("") as show:
            tasks = [TrainingJob(cards[i]) for i in missing]
            workers = min(workers or workers_for(cards), len(tasks))
            if workers > 1:
                trained = [*run_in_processes(tasks, here, workers, show)]
            else:
                trained = [*run_in_order(tasks, here, show, no_progress if many else progress)]
        for i, path in zip(missing, trained, strict=True):
            files[i] = path
    for notice in here.notices:
        here.store.say(notice)
    return [path for path in files if path is not None]


def fit_many(pairs: Sequence[tuple[Card, Perturbation]], workspace: Workspace, workers: int | None = None) -> None:
    """
    Fit a generator for each trained model and perturbation unless the store has it.

    Workers and failures are as in `train_many`. On a GPU the fittings run one after the other.
    """
    files = {attack_inputs.generator_file(workspace, *pair): GeneratorJob(*pair) for pair in pairs}
    left = [task for file, task in files.items() if not workspace.store.holds(file)]
    workers = min(workers or hardware.cpu_count(), len(left)) if workspace.device == "cpu" else 1
    if workers > 1:
        with workspace.progress(f"fitting, percent of {len(left)} generators") as show:
            run_in_processes(left, workspace, workers, show)
    else:
        run_in_order(left, workspace, None, workspace.progress)


def workers_for(cards: Sequence[Card]) -> int:
    """Return how many trainings the cores can run at once."""
    return max(1, hardware.cpu_count() // max((c.file.recipe.threads for c in cards if c.file.recipe), default=1))


def stored_weights(workspace: Workspace, card: Card) -> Path | None:
    """Return the file of the weights that a card's recipe makes, or None if the store has no intact one."""
    if card.file.recipe is None:
        raise TrainingError(f"{card.path}: the card names no [recipe], so there is nothing to train it by")
    key = recipe_hash(workspace, card)
    return factory_weights.stored_weights(workspace, card, workspace.store.path("weights", key), key)[0]
