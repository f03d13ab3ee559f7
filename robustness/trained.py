"""Weights that a card's recipe makes: by content of code, arguments and data, once, in one process of all."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from robustness import sources, weights
from robustness.errors import DataMissing, ModelError
from robustness.store import canonical

if TYPE_CHECKING:
    from robustness.cards import Card
    from robustness.datasets.images import Images
    from robustness.harness import Harness


def of_card(harness: Harness, card: Card) -> Path:
    """Give the file of a card's weights: its own, else those that its recipe made or makes now."""
    own = card.weights
    if own is not None and own.is_file():
        _notice_age(harness, card, own)
        return own
    if card.file.recipe is None:
        raise ModelError(f"{card.path}: model.weights = {card.file.model.weights!r}: there is no such file")
    return by_recipe(harness, card)


def by_recipe(harness: Harness, card: Card, *, by_command: bool = False) -> Path:
    """Give the weights that a card's recipe makes: from the store, or trained now."""
    assert card.file.recipe is not None
    images = harness.images(card, "train")
    key = recipe_hash(card, images)
    path = harness.store.path("weights", key)
    if _intact(harness, path):
        return path
    if card.file.recipe.starts == "by command" and not by_command:
        raise DataMissing(f"{card.name}: its weights are not trained", command=f"robustness train {card.name}")
    what = f"training {card.name} (seed {card.file.recipe.seed})"
    with harness.once(f"weights-{key}"), harness.store.alone(f"weights-{key}", what):
        if not _intact(harness, path):
            _train(harness, card, images, key, what)
    return path


def is_older(harness: Harness, card: Card) -> bool:
    """Say whether a card's committed weights were made by another recipe, or other data, than it names now."""
    if card.file.recipe is None or card.weights is None or not card.weights.is_file():
        return False
    said = weights.metadata(card.weights).get("recipe")
    return said is not None and said != recipe_hash(card, harness.images(card, "train"))


def recipe_hash(card: Card, images: Images) -> str:
    """
    Give the hash of everything that trained weights depend on.

    Factory, recipe, their arguments and source files, the seed, the number of threads (results differ with it
    by far more than in the last bits), and the content of the training images. Found by reading files.
    """
    recipe = card.file.recipe
    assert recipe is not None
    modules = [name.partition(":")[0] for name in (card.file.model.factory, recipe.callable)]
    closure = sources.Closure(modules, [str(card.project), *sys.path])
    about = {
        "factory": card.file.model.factory,
        "factory_arguments": card.file.model.arguments,
        "recipe": recipe.model_dump(exclude={"starts"}),
        "images": images.fingerprint,
        "sources": sources.hashes(closure.files.values(), card.project),
    }
    return hashlib.sha256(canonical(about)).hexdigest()


def _train(harness: Harness, card: Card, images: Images, key: str, what: str) -> None:
    from robustness import recipes

    assert card.file.recipe is not None
    checkpoint = harness.store.root / "checkpoints" / f"{key}.pt"
    with harness.progress(what) as progress:
        job = recipes.Job(card.file.recipe.seed, checkpoint, progress, harness.notices, harness.store)
        about = {"recipe": key, "model": card.name, "seed": str(job.seed), "data": images.name}
        content = recipes.train(card, images, job, about)
    harness.store.write(harness.store.path("weights", key), content)
    checkpoint.unlink(missing_ok=True)


def _intact(harness: Harness, path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        weights.verify(path)
    except ModelError as error:
        harness.notice(f"{error}; trained again")
        return False
    return True


def _notice_age(harness: Harness, card: Card, own: Path) -> None:
    try:
        older = is_older(harness, card)
    except DataMissing:
        return
    if older:
        harness.notice(
            f"{own} is older than its recipe (code, arguments or data have changed since); "
            f"`robustness renew {card.name}` makes weights and thresholds anew"
        )
