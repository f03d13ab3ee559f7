"""Weights that a factory makes, pretrained or random, and when weights of the store can be trusted."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustness.cards import Card
from robustness.classifiers import libraries, weights
from robustness.errors import ModelError
from robustness.util import source_files
from robustness.util.hashing import sha256_json
from robustness.workspace.context import Context
from robustness.workspace.images import ImageSets


def factory_weights(context: ImageSets, card: Card) -> Path:
    """
    Return the file of the weights that a card's factory makes, pretrained or random, from the store if possible.

    Stored weights are trusted while all files that the factory read are unchanged. If its weights are not random and it
    was not seen to read a file, it is not known where they come from, so the factory is called once in every run.
    """
    key = factory_hash(card)
    path = context.store.path("weights", key)

    def read() -> tuple[Path | None, str]:
        file, reason = stored_weights(context, card, path, key)
        return None if file is None or _unseen(weights.metadata(file)) else file, reason

    def make() -> Path:
        content, metadata = _call_factory(context, card, key)
        file, _ = stored_weights(context, card, path, key)
        unchanged = file is not None and weights.metadata(file)["checksum"] == metadata["checksum"]
        return path if unchanged else context.store.keep(path, content)

    file = context.get_or_make("weights", key, make, read=read, label=f"making weights of {card.name}")
    if weights.metadata(file)["random"]:
        context.notice(f"{card.name}: its weights are random (seed {card.file.model.seed}), as the card says")
    return file


def _unseen(metadata: Mapping[str, str]) -> bool:
    """Return whether it is unknown where a factory's weights come from."""
    return not metadata["random"] and metadata["reads"] == "{}"


def _call_factory(context: ImageSets, card: Card, key: str) -> tuple[bytes, dict[str, str]]:
    """Call a card's factory with two seeds; return its weights as a file, and metadata that say if they are random."""
    from robustness.classifiers import build
    from robustness.classifiers.file_reads import FileReads
    from robustness.util import rng_state

    model = card.file.model
    seed = model.seed or 0

    def state(seed: int) -> dict[str, Any]:
        with rng_state.isolated_rng(seed):
            module = build.build_module(card)
            build.initialize_lazy_layers(module, lambda: context.images(card).shape)
        try:
            return {name: (value, weights.checksum({name: value})) for name, value in module.state_dict().items()}
        except Exception as error:  # a module can keep anything in its state
            raise ModelError(
                f"{card.path}: {model.factory} gives a module whose state cannot be kept as tensors by name: {error}"
            ) from error

    reads = FileReads(card.project, context.paths_in_keys(card))
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


def stored_weights(context: Context, card: Card, path: Path, key: str) -> tuple[Path | None, str]:
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

    return context.store.try_read(path, verified)
