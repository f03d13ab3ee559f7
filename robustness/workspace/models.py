"""The weights of a card: its own file, or those that its recipe or factory makes, under the hash of their inputs."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustness import cards
from robustness.classifiers import libraries, weights
from robustness.errors import CardError, DataMissing, ModelError, TrainingError
from robustness.mutations import training_data
from robustness.util import paths, source_files
from robustness.util.hashing import sha256_json

if TYPE_CHECKING:
    from robustness.cards import Card
    from robustness.workspace.workspace import Workspace


def weights_file(harness: Workspace, card: Card) -> Path:
    """Return the file of a card's weights: its own, else the one that its recipe or factory makes."""
    own = card.weights
    if own is not None and own.is_file():
        _notice_age(harness, card, own)
        return own
    if card.file.model.seed is not None or (
        own is None and card.file.recipe is None and not card.file.model.factory_library
    ):
        return factory_weights(harness, card)
    if card.file.recipe is None:
        if own is None:
            raise ModelError(
                f"{card.path}: model.factory = {card.file.model.factory!r}: the folder has no weights; it needs one of "
                f"{', '.join(libraries.WEIGHTS)}"
            )
        raise ModelError(
            f"{card.path}: model.weights = {card.file.model.weights!r}: there is no such file: it {paths.missing(own)}"
        )
    return train_if_missing(harness, card)


def factory_weights(harness: Workspace, card: Card) -> Path:
    """
    Return the file of the weights that a card's factory makes, pretrained or random, from the store if possible.

    Stored weights are trusted while all files that the factory read are unchanged. If its weights are not random and it
    was not seen to read a file, it is not known where they come from, so the factory is called once in every run.
    """
    key = factory_hash(card)
    path = harness.store.path("weights", key)

    def read() -> tuple[Path | None, str]:
        file, reason = stored_weights(harness, card, path, key)
        return None if file is None or _unseen(weights.metadata(file)) else file, reason

    def make() -> Path:
        content, metadata = _call_factory(harness, card, key)
        file, _ = stored_weights(harness, card, path, key)
        unchanged = file is not None and weights.metadata(file)["checksum"] == metadata["checksum"]
        return path if unchanged else harness.store.keep(path, content)

    file = harness.get_or_make("weights", key, make, read=read, label=f"making weights of {card.name}")
    if weights.metadata(file)["random"]:
        harness.notice(f"{card.name}: its weights are random (seed {card.file.model.seed}), as the card says")
    return file


def _unseen(metadata: Mapping[str, str]) -> bool:
    """Return whether it is unknown where a factory's weights come from."""
    return not metadata["random"] and metadata["reads"] == "{}"


def _call_factory(harness: Workspace, card: Card, key: str) -> tuple[bytes, dict[str, str]]:
    """Call a card's factory with two seeds; return its weights as a file, and metadata that say if they are random."""
    from robustness.classifiers import build
    from robustness.classifiers.file_reads import FileReads
    from robustness.util import rng_state

    model = card.file.model
    seed = model.seed or 0

    def state(seed: int) -> dict[str, Any]:
        with rng_state.isolated_rng(seed):
            module = build.build_module(card)
            build.initialize_lazy_layers(module, lambda: harness.images(card).shape)
        try:
            return {name: (value, weights.checksum({name: value})) for name, value in module.state_dict().items()}
        except Exception as error:  # a module can keep anything in its state
            raise ModelError(
                f"{card.path}: {model.factory} gives a module whose state cannot be kept as tensors by name: {error}"
            ) from error

    reads = FileReads(card.project, harness.known_otherwise(card))
    with reads.recording():
        first = state(seed)
        second = first if model.factory_library else state(seed + 1)
    differing = [name for name in {**first, **second} if first.get(name, ("", ""))[1] != second.get(name, ("", ""))[1]]
    if differing and model.seed is None:
        raise ModelError(
            f"`weights` must be given for {model.factory}, as --robustness-weights net.safetensors or weights = "
            f'"net.safetensors" in [model]: its factory gives random ones ({weights.abbreviate(differing)}); '
            "a card may ask for these by model.seed"
        )
    random = bool(differing or model.factory_library)
    reads.add_imports(list(factory_closure(card).files.values()))
    tensors = {name: value for name, (value, _) in first.items()}
    metadata = {
        "recipe": key, "model": card.name, "seed": str(model.seed), "random": "yes" if random else "",
        "reads": json.dumps(reads.digests(), sort_keys=True), "checksum": weights.checksum(tensors),
    }  # fmt: skip
    return weights.to_bytes(tensors, metadata), metadata


def factory_hash(card: Card) -> str:
    """Return the hash of everything that a factory's weights depend on, except the files that it reads."""
    closure = factory_closure(card)
    fields = {
        **card.described,
        "seed": card.file.model.seed,
        "sources": source_files.hash_files(closure.files.values(), card.project),
        "distributions": source_files.distribution_versions(closure.packages),
        "form": 2,
    }
    return sha256_json(fields)


def factory_closure(card: Card) -> source_files.ImportClosure:
    """Return the files and distributions that a card's factory imports."""
    factory = card.file.model.factory.partition(":")[0]
    return source_files.ImportClosure([libraries.PACKAGES.get(factory, factory)], [str(card.project), *sys.path])


def train_if_missing(harness: Workspace, card: Card, *, by_command: bool = False) -> Path:
    """Return the file of the weights that a card's recipe makes, from the store if possible, else by training."""
    assert card.file.recipe is not None
    key = recipe_hash(harness, card)
    path = harness.store.path("weights", key)
    if card.file.recipe.start == "manual" and not by_command:
        if not verify_or_notice(harness, card, path, key):
            raise DataMissing(f"{card.name}: its weights are not trained", command=f"robustness train {card.name}")
        return path
    label = f"training {card.name} (seed {card.file.recipe.seed})"
    read, make = partial(stored_weights, harness, card, path, key), partial(_train, harness, card, key, label)
    return harness.get_or_make("weights", key, make, read=read, label=label)


def is_stale(harness: Workspace, card: Card) -> bool:
    """Return whether a card's committed weights were made by another recipe, or from other data, than it names now."""
    if card.file.recipe is None or card.weights is None or not card.weights.is_file():
        return False
    said = weights.metadata(card.weights).get("recipe")
    return said is not None and said != recipe_hash(harness, card)


def recipe_hash(harness: Workspace, card: Card, behind: tuple[Path, ...] = ()) -> str:
    """
    Return the hash of everything that trained weights depend on, without importing or training anything.

    It covers the factory, the recipe, their arguments and source files, the seed, the number of threads (which changes
    results by far more than rounding), the training images, and the models that the recipe needs.

    Args:
        harness: The workspace.
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
            images := training_data.mutate_training_data(harness.images(card, "train"), card.damage)
        ).fingerprint,
        "sources": source_files.hash_files(closure.files.values(), card.project),
    }
    if (groups := images.groups) is not None:  # images of a group are held out together
        fields["groups"] = hashlib.sha256(repr(groups.tolist()).encode()).hexdigest()
    if others := needed(card):
        fields["needs"] = {name: _content(harness, other, (*behind, here)) for name, other in others.items()}
    return sha256_json(fields)


def needed(card: Card) -> dict[str, Card]:
    """Return the cards of the models that a recipe needs, by its names for them, reseeded as the card is."""
    recipe = card.file.recipe
    others = {name: cards.load(card.path.parent / path) for name, path in (recipe.needs if recipe else {}).items()}
    if card.seeded is None:
        return others
    # Shipped weights are fixed, like the training images; models that are trained vary with the seed.
    trained = (name for name, other in others.items() if other.file.recipe and other.weights is None)
    return others | {name: others[name].reseeded(card.seeded) for name in trained}


def _content(harness: Workspace, card: Card, behind: tuple[Path, ...]) -> dict[str, object]:
    """Return the key fields of a needed model: its own weights, or the recipe that will make them."""
    own = card.weights
    trained = own is None or not own.is_file()
    return {
        **card.described,
        "weights": recipe_hash(harness, card, behind) if trained and card.file.recipe else harness.weights_hash(card),
    }


def _train(harness: Workspace, card: Card, key: str, label: str) -> Path:
    """Train a card's model by its recipe and store the weights. The caller must hold the store's lock."""
    from robustness.classifiers.file_reads import FileReads
    from robustness.workspace import recipes

    assert card.file.recipe is not None
    images = training_data.mutate_training_data(harness.images(card, "train"), card.damage)
    needs = {name: copy.deepcopy(harness.classifier(other).module) for name, other in needed(card).items()}
    checkpoint = harness.store.checkpoint(key)
    with harness.progress(label) as progress:
        job = recipes.Job(
            card.file.recipe.seed, checkpoint, progress, harness.notices, harness.store, device=harness.device,
            needs=needs, log=harness.store.path("logs", key, "csv"), key=key,
            reads=FileReads(card.project, harness.known_otherwise(card)),
        )  # fmt: skip
        about = {"recipe": key, "model": card.name, "seed": str(card.file.recipe.seed), "data": images.name}
        content = recipes.train(card, images, job, about)
    if recipe_hash(harness, card) != key:
        raise TrainingError(f"{card.name}: its recipe's code changed while it was trained; run again")
    path = harness.store.keep(harness.store.path("weights", key), content)
    harness.store.remove(checkpoint)
    return path


def stored_weights(harness: Workspace, card: Card, path: Path, key: str) -> tuple[Path | None, str]:
    """
    Return a file of weights in the store; None and the reason if it cannot be trusted; None and "" if there is none.

    The file must be intact and hold this key, and the files that its recipe or factory read must be unchanged.
    """

    def verified(path: Path) -> Path:
        weights.verify_checksum(path)
        metadata = weights.metadata(path)
        if (recipe := metadata.get("recipe")) != key:
            raise ModelError(f"{path}: these are weights of another recipe ({(recipe or 'unnamed')[:12]})")
        if other := source_files.changed_files(json.loads(metadata.get("reads", "{}")), card.project):
            raise ModelError(f"{card.name}: its weights are older than {', '.join(other)}")
        return path

    return harness.store.try_read(path, verified)


def verify_or_notice(harness: Workspace, card: Card, path: Path, key: str) -> bool:
    """Return whether weights in the store can be trusted; a notice says why not."""
    return harness.read_or_notice(lambda: stored_weights(harness, card, path, key), "made again") is not None


def _notice_age(harness: Workspace, card: Card, own: Path) -> None:
    try:
        older = is_stale(harness, card)
    except DataMissing:
        return
    if older:
        harness.notice(
            f"{own} is older than its recipe (code, arguments or data have changed since); "
            f"`robustness renew {card.name}` makes weights and thresholds anew"
        )
