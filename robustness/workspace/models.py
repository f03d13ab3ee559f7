"""The models of cards: weights, the card's own or those that its recipe or factory makes, and modules with them."""

from __future__ import annotations

import copy
import hashlib
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustness import cards
from robustness.cards import Card
from robustness.classifiers import libraries, weights
from robustness.errors import AGAIN, CardError, DataMissing, ModelError, TrainingError
from robustness.mutations import training_data
from robustness.util import paths, source_files
from robustness.util.file_stat import is_settled
from robustness.util.hashing import sha256_json
from robustness.workspace.factory_weights import factory_closure, factory_weights, stored_weights
from robustness.workspace.images import ImageSets

if TYPE_CHECKING:
    from robustness.classifiers.build import LoadedModel


@dataclass
class Models(ImageSets):
    """A context that returns the images, weights and classifiers of cards; each is read at most once per run."""

    _weights: dict[str, Path] = field(default_factory=dict)
    _hashes: dict[Path, str] = field(default_factory=dict)
    _factories: dict[tuple[str, Path], dict[str, str]] = field(default_factory=dict)
    _signatures: dict[Path, tuple[list[list[int]], int]] = field(default_factory=dict)
    _loaded: dict[tuple[Any, ...], LoadedModel] = field(default_factory=dict)

    def weights(self, card: Card) -> Path:
        """Return the file of a card's weights: its own, else the one that its recipe makes."""
        key = (
            f"{card.path}\n{card.overrides.mutation}\n"
            f"{card.file.model_dump_json(include={'model', 'recipe', 'data'})}"  # one card has many seeds
        )
        if key not in self._weights:
            self._weights[key] = weights_file(self, card)
            self._notice_outside(card)
        return self._weights[key]

    def _notice_outside(self, card: Card) -> None:
        """Add a notice if a card's own weights lie outside of its project, unless an option named them."""
        own, project = card.weights, card.project.resolve()
        if own is None or card.overrides.weights is not None or card.overrides.project is not None or not own.is_file():
            return
        if not own.resolve().is_relative_to(project):
            model = card.file.model
            entry = f"weights = {model.weights!r}" if model.weights else f"factory = {model.factory!r}: its weights"
            self.notice(
                f"{card.name}: model.{entry} lie outside of its project {project}, in "
                f"{own.resolve()}; nobody who checks out the project has them"
            )

    def classifier(self, card: Card) -> LoadedModel:
        """Return a card's module with its weights, loaded once."""
        file, classes, shape = self.weights(card), self.classes(card), self.shape(card)
        # Cards can share a file of weights and differ in factory, classes or mutation.
        key = (card.path, file, classes, shape, card.overrides.mutation)
        if key not in self._loaded:
            with self.fail_once(f"module-{key}"):
                self._loaded[key] = self._apply_mutation(card, self._read(card, file, classes, shape))
            for notice in self._loaded[key].notices:
                self.notice(f"{card.name}: {notice}")
        return self._loaded[key]

    def _read(
        self, card: Card, file: Path, classes: tuple[str, ...], shape: tuple[int, int, int] | None
    ) -> LoadedModel:
        """Load a module; ModelError if its weights are no longer those of its key, or change meanwhile."""
        from robustness.classifiers import build

        self.check_unchanged_weights(card)
        before = weights.signature(file)
        loaded = build.load_model(card, file, classes, shape, self.paths_in_keys(card))
        if weights.signature(file) != before:
            raise ModelError(f"{card.name}: {file} changed while it was read; {AGAIN}")
        build.initialize_lazy_layers(loaded.module, lambda: self.images(card).shape)
        return loaded

    def check_unchanged_weights(self, card: Card) -> None:
        """Raise ModelError if a card's weights are no longer those of its key."""
        file, expected = self.weights(card), self.weights_hash(card)
        signature, taken = self._signatures[file]
        same = weights.signature(file) == signature and all(is_settled(stat, taken) for stat in signature)
        if not same and weights.content_hash(file) != expected:
            raise ModelError(f"{card.name}: {file} has changed since this run read it; {AGAIN}")

    def check_unchanged(self, sources: Mapping[str, str], card: Card, *others: Card) -> None:
        """
        Raise ModelError or DataError if what a sweep depends on changed while it ran.

        Args:
            sources: The digests of source files, by path.
            card: The card that is swept: its images and weights are compared.
            others: The cards of other models of the sweep: their weights are compared.
        """
        from robustness.classifiers import build

        build.check_unchanged(sources, card.project)
        self.check_unchanged_images(card)
        for model in (card, *others):
            self.check_unchanged_weights(model)

    def _apply_mutation(self, card: Card, loaded: LoadedModel) -> LoadedModel:
        """Mutate a model if its card names a mutation."""
        if card.overrides.mutation is None:
            return loaded
        from robustness.mutations import operators

        classes = len(self.images(card).classes)
        outputs = card.file.model.decision.outputs(classes)
        return replace(loaded, module=operators.mutate(loaded.module, card.overrides.mutation, classes, outputs))

    def weights_hash(self, card: Card) -> str:
        """Hash a card's weights once per run, so that all results of a run are of the same weights."""
        file = self.weights(card)
        if file not in self._hashes:
            self._signatures[file] = weights.signature(file), time.time_ns()
            self._hashes[file] = weights.content_hash(file)
        return self._hashes[file]

    def factory_sources(self, card: Card) -> dict[str, str]:
        """Return the hashes of a factory's source files, read once per run as the weights are."""
        factory = card.file.model.factory, card.project
        if factory not in self._factories:
            files = factory_closure(card).files.values()
            self._factories[factory] = source_files.hash_files(files, card.project)
        return self._factories[factory]

    def model_key_fields(self, card: Card) -> dict[str, Any]:
        """Return everything that a card's model depends on, by content."""
        return {
            **card.described,
            "decision": card.file.model.decision.model_dump(),
            "weights": self.weights_hash(card),
        }


def weights_file(models: Models, card: Card) -> Path:
    """Return the file of a card's weights: its own, else the one that its recipe or factory makes."""
    own = card.weights
    if own is not None and own.is_file():
        _notice_age(models, card, own)
        return own
    if card.file.model.seed is not None or (
        own is None and card.file.recipe is None and not card.file.model.factory_library
    ):
        return factory_weights(models, card)
    if card.file.recipe is None:
        if own is None:
            raise ModelError(
                f"{card.path}: model.factory = {card.file.model.factory!r}: the folder has no weights; it needs one of "
                f"{', '.join(libraries.WEIGHTS)}"
            )
        raise ModelError(
            f"{card.path}: model.weights = {card.file.model.weights!r}: there is no such file: it {paths.missing(own)}"
        )
    return train_if_missing(models, card)


def train_if_missing(models: Models, card: Card, *, by_command: bool = False) -> Path:
    """Return the file of the weights that a card's recipe makes, from the store if possible, else by training."""
    assert card.file.recipe is not None
    key = recipe_hash(models, card)
    path = models.store.path("weights", key)
    if card.file.recipe.start == "manual" and not by_command:
        if not verify_or_notice(models, card, path, key):
            raise DataMissing(f"{card.name}: its weights are not trained", command=f"robustness train {card.name}")
        return path
    label = f"training {card.name} (seed {card.file.recipe.seed})"
    read, make = partial(stored_weights, models, card, path, key), partial(_train, models, card, key, label)
    return models.get_or_make("weights", key, make, read=read, label=label)


def is_stale(models: Models, card: Card) -> bool:
    """Return whether a card's committed weights were made by another recipe, or from other data, than it names now."""
    if card.file.recipe is None or card.weights is None or not card.weights.is_file():
        return False
    recorded = weights.metadata(card.weights).get("recipe")
    return recorded is not None and recorded != recipe_hash(models, card)


def recipe_hash(models: Models, card: Card, behind: tuple[Path, ...] = ()) -> str:
    """
    Return the hash of everything that trained weights depend on, without importing or training anything.

    It covers the factory, the recipe, their arguments and source files, the seed, the number of threads (which changes
    results by far more than rounding), the training images, and the models that the recipe needs.

    Args:
        models: The models.
        card: The card; it has a recipe.
        behind: The cards that need this one, from the first to the last.

    Raises:
        CardError: If cards need each other in a circle.
    """
    recipe, here = card.file.recipe, card.path.resolve()
    assert recipe is not None
    if here in behind:
        circle = " needs ".join(str(path) for path in (*behind[behind.index(here) :], here))
        raise CardError(f"recipe.needs: a model cannot be needed for its own training: {circle}")
    modules = [name.partition(":")[0] for name in (card.file.model.factory, recipe.callable)]
    closure = source_files.ImportClosure(modules, [str(card.project), *sys.path])
    fields = {
        "factory": card.file.model.factory,
        "factory_arguments": card.file.model.arguments,
        **({"adaptation": adaptation} if (adaptation := card.file.model.adaptation) else {}),
        "recipe": recipe.model_dump(exclude={"start", "needs"}),
        "images": (
            images := training_data.mutate_training_data(models.images(card, "train"), card.overrides.mutation)
        ).fingerprint,
        "sources": source_files.hash_files(closure.files.values(), card.project),
    }
    if (groups := images.groups) is not None:  # images of a group are held out together
        fields["groups"] = hashlib.sha256(repr(groups.tolist()).encode()).hexdigest()
    if others := needed(card):
        fields["needs"] = {name: _content(models, other, (*behind, here)) for name, other in others.items()}
    return sha256_json(fields)


def needed(card: Card) -> dict[str, Card]:
    """Return the cards of the models that a recipe needs, by its names for them, reseeded as the card is."""
    recipe = card.file.recipe
    others = {name: cards.load(card.path.parent / path) for name, path in (recipe.needs if recipe else {}).items()}
    if card.overrides.seed is None:
        return others
    # Shipped weights are fixed, like the training images; models that are trained vary with the seed.
    trained = (name for name, other in others.items() if other.file.recipe and other.weights is None)
    return others | {name: others[name].reseeded(card.overrides.seed) for name in trained}


def _content(models: Models, card: Card, behind: tuple[Path, ...]) -> dict[str, object]:
    """Return the key fields of a needed model: its own weights, or the recipe that will make them."""
    own = card.weights
    trained = own is None or not own.is_file()
    return {
        **card.described,
        "weights": recipe_hash(models, card, behind) if trained and card.file.recipe else models.weights_hash(card),
    }


def _train(models: Models, card: Card, key: str, label: str) -> Path:
    """Train a card's model by its recipe and store the weights. The caller must hold the store's lock."""
    from robustness.classifiers.file_reads import FileReads
    from robustness.workspace import recipes

    assert card.file.recipe is not None
    images = training_data.mutate_training_data(models.images(card, "train"), card.overrides.mutation)
    needs = {name: copy.deepcopy(models.classifier(other).module) for name, other in needed(card).items()}
    checkpoint = models.store.checkpoint(key)
    with models.progress(label) as progress:
        job = recipes.Job(
            card.file.recipe.seed, checkpoint, progress, models.notices, models.store, device=models.device,
            needs=needs, log=models.store.path("logs", key, "csv"), key=key,
            reads=FileReads(card.project, models.paths_in_keys(card)),
        )  # fmt: skip
        about = {"recipe": key, "model": card.name, "seed": str(card.file.recipe.seed), "data": images.name}
        content = recipes.train(card, images, job, about)
    if recipe_hash(models, card) != key:
        raise TrainingError(f"{card.name}: its recipe's code changed while it was trained; run again")
    path = models.store.keep(models.store.path("weights", key), content)
    models.store.remove(checkpoint)
    return path


def verify_or_notice(models: Models, card: Card, path: Path, key: str) -> bool:
    """Return whether weights in the store can be trusted; a notice says why not."""
    return models.read_or_notice(lambda: stored_weights(models, card, path, key), "made again") is not None


def _notice_age(models: Models, card: Card, own: Path) -> None:
    try:
        older = is_stale(models, card)
    except DataMissing:
        return
    if older:
        models.notice(
            f"{own} is older than its recipe (code, arguments or data have changed since); "
            f"`robustness update-thresholds {card.name}` makes weights and thresholds anew"
        )
