"""Weights that a card's recipe or seed makes: by content of code, arguments and data, once, in one process of all."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Mapping
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
    from robustness.data.images import Images
    from robustness.workspace.workspace import Workspace


def weights_file(harness: Workspace, card: Card) -> Path:
    """Return the file of a card's weights: its own, else those that its recipe made or makes now."""
    own = card.weights
    if own is not None and own.is_file():
        _notice_age(harness, card, own)
        return own
    if card.file.model.seed is not None or (own is None and card.file.recipe is None and not card.file.model.library):
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
    Return the weights that a card's factory makes, of its own or random ones: from the store, or made now.

    What is kept is believed while all files that the factory read are as they were. Of a factory that was seen to read
    none, and whose weights are not random, nobody can tell, so that it is called once in every run.
    """
    key = factory_hash(card)
    path, what = harness.store.path("weights", key), f"making weights of {card.name}"
    about = _as_made(harness, card, key, path)
    if about is None or _unseen(about):
        with harness.once(f"weights-{key}"), harness.store.alone(f"weights-{key}", what):
            about = _as_made(harness, card, key, path)
            if about is None or _unseen(about):
                content, made = _called(harness, card, key)
                if about is None or about["checksum"] != made["checksum"]:
                    path = harness.store.keep(path, content)
                about = made
    if about["random"]:
        harness.notice(f"{card.name}: its weights are random (seed {card.file.model.seed}), as the card says")
    return path


def _unseen(about: Mapping[str, str]) -> bool:
    return not about["random"] and about["reads"] == "{}"


def _as_made(harness: Workspace, card: Card, key: str, path: Path) -> dict[str, str] | None:
    """Return what kept weights of a factory say of themselves, where they are whole and nothing behind them changed."""
    return weights.metadata(path) if verify_or_notice(harness, card, path, key) else None


def _called(harness: Workspace, card: Card, key: str) -> tuple[bytes, dict[str, str]]:
    """Call a card's factory, and again from another seed: give its weights, and which of them the seed decides."""
    from robustness.classifiers import build
    from robustness.classifiers.file_reads import FileReads
    from robustness.util import rng_state

    model = card.file.model
    seed = model.seed or 0

    def state(of: int) -> dict[str, Any]:
        with rng_state.isolated_rng(of):
            module = build.build_module(card)
            build.initialize_lazy_layers(module, lambda: harness.images(card).shape)
        try:
            return {name: (value, weights.checksum({name: value})) for name, value in module.state_dict().items()}
        except Exception as error:  # whatever a module keeps beside tensors
            raise ModelError(
                f"{card.path}: {model.factory} gives a module whose state cannot be kept as tensors by name: {error}"
            ) from error

    heard = FileReads(card.project, harness.known_otherwise(card))
    with heard.recording():
        made = state(seed)
        again = made if model.library else state(seed + 1)
    differing = [name for name in {**made, **again} if made.get(name, ("", ""))[1] != again.get(name, ("", ""))[1]]
    if differing and model.seed is None:
        raise ModelError(
            f"`weights` must be given for {model.factory}, as --robustness-weights net.safetensors or weights = "
            f'"net.safetensors" in [model]: its factory gives random ones ({weights.abbreviate(differing)}); '
            "a card may ask for these by model.seed"
        )
    random = bool(differing or model.library)
    heard.add_imports(list(factory_closure(card).files.values()))
    tensors = {name: value for name, (value, _) in made.items()}
    about = {
        "recipe": key, "model": card.name, "seed": str(model.seed), "random": "yes" if random else "",
        "reads": json.dumps(heard.digests(), sort_keys=True), "checksum": weights.checksum(tensors),
    }  # fmt: skip
    return weights.to_bytes(tensors, about), about


def factory_hash(card: Card) -> str:
    """Return the hash of everything that weights which a factory makes depend on, but for the files that it reads."""
    closure = factory_closure(card)
    about = {
        **card.described,
        "seed": card.file.model.seed,
        "sources": source_files.hash_files(closure.files.values(), card.project),
        "distributions": source_files.distribution_versions(closure.packages),
        "form": 2,
    }
    return sha256_json(about)


def factory_closure(card: Card) -> source_files.ImportClosure:
    """Return the files and distributions that a card's factory imports."""
    factory = card.file.model.factory.partition(":")[0]
    return source_files.ImportClosure([libraries.PACKAGES.get(factory, factory)], [str(card.project), *sys.path])


def train_if_missing(harness: Workspace, card: Card, *, by_command: bool = False) -> Path:
    """Return the weights that a card's recipe makes: from the store, or trained now."""
    assert card.file.recipe is not None
    key = recipe_hash(harness, card)
    path = harness.store.path("weights", key)
    if verify_or_notice(harness, card, path, key):
        return path
    if card.file.recipe.starts == "by command" and not by_command:
        raise DataMissing(f"{card.name}: its weights are not trained", command=f"robustness train {card.name}")
    what = f"training {card.name} (seed {card.file.recipe.seed})"
    with harness.once(f"weights-{key}"), harness.store.alone(f"weights-{key}", what):
        if not verify_or_notice(harness, card, path, key):
            path = _train(harness, card, key, what)
    return path


def is_stale(harness: Workspace, card: Card) -> bool:
    """Return whether a card's committed weights were made by another recipe, or other data, than it names now."""
    if card.file.recipe is None or card.weights is None or not card.weights.is_file():
        return False
    said = weights.metadata(card.weights).get("recipe")
    return said is not None and said != recipe_hash(harness, card)


def recipe_hash(harness: Workspace, card: Card, behind: tuple[Path, ...] = ()) -> str:
    """
    Return the hash of everything that trained weights depend on.

    Factory, recipe, their arguments and source files, the seed, the number of threads (results differ with it
    by far more than in the last bits), the content of the training images, and of the models that the recipe needs.
    Found by reading files. CardError where cards need each other in a circle; ``behind`` are those that led here.
    """
    recipe, here = card.file.recipe, card.path.resolve()
    assert recipe is not None
    if here in behind:
        circle = " needs ".join(str(path) for path in (*behind[behind.index(here) :], here))
        raise CardError(f"recipe.needs: a model cannot be needed for its own training: {circle}")
    modules = [name.partition(":")[0] for name in (card.file.model.factory, recipe.callable)]
    closure = source_files.ImportClosure(modules, [str(card.project), *sys.path])
    about = {
        "factory": card.file.model.factory,
        "factory_arguments": card.file.model.arguments,
        **({"adaptation": adaptation} if (adaptation := card.file.model.adaptation) else {}),
        "recipe": recipe.model_dump(exclude={"starts", "needs"}),
        "images": (
            images := training_data.mutate_training_data(harness.images(card, "train"), card.damage)
        ).fingerprint,
        "sources": source_files.hash_files(closure.files.values(), card.project),
    }
    if (groups := images.groups) is not None:  # by which images are held out together
        about["groups"] = hashlib.sha256(repr(groups.tolist()).encode()).hexdigest()
    if others := needed(card):
        about["needs"] = {name: _content(harness, other, (*behind, here)) for name, other in others.items()}
    return sha256_json(about)


def needed(card: Card) -> dict[str, Card]:
    """Return the cards of the models that a card's recipe needs, by its names for them; reseeded as the card is."""
    recipe = card.file.recipe
    others = {name: cards.load(card.path.parent / path) for name, path in (recipe.needs if recipe else {}).items()}
    if card.seeded is None:
        return others
    # What was trained once and is shipped is given, as the training images are; all else varies with the seed.
    anew = (name for name, other in others.items() if other.file.recipe and other.weights is None)
    return others | {name: others[name].reseeded(card.seeded) for name in anew}


def _content(harness: Workspace, card: Card, behind: tuple[Path, ...]) -> dict[str, object]:
    """Describe a needed model: by its own weights, or by the recipe that they will come from; nothing is trained."""
    own = card.weights
    made = own is None or not own.is_file()
    return {
        **card.described,
        "weights": recipe_hash(harness, card, behind) if made and card.file.recipe else harness.weights_hash(card),
    }


def _train(harness: Workspace, card: Card, key: str, what: str) -> Path:
    from robustness.classifiers.file_reads import FileReads
    from robustness.workspace import recipes

    assert card.file.recipe is not None
    images = training_data.mutate_training_data(harness.images(card, "train"), card.damage)
    needs = {name: copy.deepcopy(harness.classifier(other).module) for name, other in needed(card).items()}
    kept = harness.store.checkpoint(key)
    with harness.progress(what) as progress:
        job = recipes.Job(
            card.file.recipe.seed, kept, progress, harness.notices, harness.store, device=harness.device,
            needs=needs, log=harness.store.path("logs", key, "csv"), key=key,
            reads=FileReads(card.project, harness.known_otherwise(card)),
        )  # fmt: skip
        content = recipes.train(card, images, job, weights_metadata(card, key, images))
    if recipe_hash(harness, card) != key:
        raise TrainingError(f"{card.name}: its recipe's code changed while it was trained; run again")
    path = harness.store.keep(harness.store.path("weights", key), content)
    harness.store.remove(kept)
    return path


def training_label(card: Card) -> str:
    """Say which training it is, where one has failed."""
    return f"training {card.name} with seed {card.file.recipe.seed if card.file.recipe else None}"


def weights_metadata(card: Card, key: str, images: Images) -> dict[str, str]:
    """Return what a file of weights says of its making."""
    assert card.file.recipe is not None
    return {"recipe": key, "model": card.name, "seed": str(card.file.recipe.seed), "data": images.name}


def verify_or_notice(harness: Workspace, card: Card, path: Path, key: str) -> bool:
    """
    Return whether a file of weights is there, whole, the key's own, and no older than the files that its making read.

    Else a notice says that it is made again.
    """
    if not harness.store.holds(path):
        return False
    try:
        weights.verify_checksum(path)
        if (said := weights.metadata(path).get("recipe")) != key:
            raise ModelError(f"{path}: these are weights of another recipe ({(said or 'unnamed')[:12]})")
        if other := source_files.changed_files(json.loads(weights.metadata(path).get("reads", "{}")), card.project):
            raise ModelError(f"{card.name}: its weights are older than {', '.join(other)}")
    except ModelError as error:
        harness.notice(f"{error}; made again")
        return False
    return True


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
