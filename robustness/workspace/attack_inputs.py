"""Extra inputs of an attack: the source model of a transfer attack, precomputed directions, a fitted generator."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustness.errors import ModelError, StoreError, SweepError
from robustness.metrics.evidence import SEMANTICS
from robustness.perturbations import Perturbation, Step
from robustness.sweep.recorder import COUNT_MESSAGES, MAX_FRACTIONS
from robustness.util import source_files as sources
from robustness.util.hashing import sha256_json
from robustness.workspace.chunk_cache import StoredChunks

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from robustness.cards import Card
    from robustness.workspace.workspace import Workspace

    Directions = tuple[np.ndarray, dict[str, int]]
    """Signs, (N, C, H, W) int8, and the number of images without a usable gradient, by reason."""


@dataclass(frozen=True)
class AttackInputs:
    """Keyword arguments of a sweep, and the source files and distributions that they depend on."""

    arguments: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    distributions: dict[str, str] = field(default_factory=dict)


def dependencies(harness: Workspace, card: Card, sweep: str) -> AttackInputs:
    """Return the source files and distributions of a sweep's attack inputs, without making any input."""
    perturbation, source = card.perturbation(sweep), harness.source(card, sweep)
    code = sources.class_closure(type(perturbation))
    versions = sources.distribution_versions(perturbation.distributions() | code.packages)
    files = sources.hash_files(code.files.values(), card.project)
    if source is None:
        return AttackInputs(sources=files, distributions=versions)
    loaded = harness.classifier(source)
    # Evidence lists files relative to the project of the card that is swept.
    files |= {sources.absolute(name, source.project): digest for name, digest in loaded.dependencies.items()}
    return AttackInputs(sources=files, distributions={**loaded.distributions, **versions})


def attack_inputs(harness: Workspace, card: Card, sweep: str) -> AttackInputs:
    """Return the attack inputs of a card's sweep, from the store if they can be trusted, else made now."""
    perturbation, source = card.perturbation(sweep), harness.source(card, sweep)
    inputs = dependencies(harness, card, sweep)
    if source is not None:
        inputs.arguments.update(source=harness.classifier(source).module, source_decision=source.file.model.decision)
        if isinstance(perturbation, Step) and perturbation.signed:
            inputs.arguments["directions"] = directions(harness, source, sweep)
    if perturbation.family == "gan":
        inputs.arguments["generator"] = generator(harness, card if source is None else source, perturbation)
    return inputs


def generator_key(harness: Workspace, card: Card, perturbation: Perturbation) -> str:
    """Return the hash of everything that the weights of a card's generator depend on."""
    fields = {
        **harness.model_key_fields(card),
        "sources": harness.factory_sources(card),
        "perturbation": perturbation.model_dump(exclude={"source"}),
        "images": harness.images(card, "train").fingerprint,
        "seed": harness.seed,
        "code": sources.content_hash(Path(__file__).with_name("generators.py")),
        **({} if harness.device == "cpu" else {"device": harness.device_kind}),
    }
    return sha256_json(fields)


def generator_file(harness: Workspace, card: Card, perturbation: Perturbation) -> Path:
    """Return the path in the store of the generator for a card's model, whether or not it is there."""
    return harness.store.path("generators", generator_key(harness, card, perturbation))


def generator(harness: Workspace, card: Card, perturbation: Perturbation) -> nn.Module:
    """Return the generator for a card's model, from the store if it can be trusted, else by fitting it."""
    from robustness.classifiers.modules import state_hash
    from robustness.perturbations.advgan import AdvGAN
    from robustness.workspace import generators, recipes

    assert isinstance(perturbation, AdvGAN)
    path = generator_file(harness, card, perturbation)
    key = path.stem
    images, target = harness.images(card, "train"), harness.classifier(card).module
    label = f"fitting a generator to {card.name}"

    def load(file: Path) -> nn.Module:
        return generators.load(file, perturbation, images, state_hash(target))

    def verified(file: Path) -> nn.Module:
        check_made_for(card, file, key)
        return load(file)

    def fit() -> nn.Module:
        checkpoint = harness.store.checkpoint(key)
        with harness.progress(label) as progress, harness.listening(card):
            job = recipes.Job(harness.seed, checkpoint, progress, harness.notices, harness.store, device=harness.device)
            fitted = generators.fit(target, images, perturbation, job, card.file.model.decision)
        content = generators.save(fitted, state_hash(target), generator_metadata(harness, card, key))
        file = harness.store.keep(path, content)
        harness.store.remove(checkpoint)
        return load(file)

    read = partial(harness.store.try_read, path, verified)
    return harness.get_or_make("generator", key, fit, read=read, label=label, again="fitted again")


def generator_metadata(harness: Workspace, card: Card, key: str) -> dict[str, str]:
    """Return a file's metadata: its key, and the files that the model has read since it was loaded."""
    loaded = harness.classifier(card)
    later = {name: digest for name, digest in loaded.dependencies.items() if name not in loaded.sources}
    return {"key": key, "reads": json.dumps(later)}


def check_made_for(card: Card, path: Path, key: str) -> dict[str, str]:
    """Return a file's metadata; ModelError if its key differs, or if a file that its model read has changed."""
    from robustness.classifiers import weights

    metadata = weights.metadata(path)
    if metadata.get("key") != key:
        raise ModelError(f"{path}: it does not say that it was made for this key")
    if other := sources.changed_files(json.loads(metadata["reads"]), card.project):
        raise ModelError(f"{path}: it is older than {', '.join(other)}")
    return metadata


def directions_file(harness: Workspace, source: Card, sweep: str) -> Path:
    """Return the path in the store of the directions of an attack on a source, whether or not they are there."""
    loaded = harness.classifier(source)
    fields = {
        "semantics": SEMANTICS,
        **harness.model_key_fields(source),
        "sources": loaded.sources,
        "distributions": loaded.distributions,
        "perturbation": source.perturbation(sweep).model_dump(),
        "images": harness.images(source).fingerprint,
        "seed": harness.seed,
        "device": harness.device_kind,
        **({} if harness.dtype == "float32" else {"dtype": harness.dtype}),
    }
    return harness.store.path("directions", sha256_json(fields))


def directions(harness: Workspace, source: Card, sweep: str) -> np.ndarray:
    """Return the signs, (N, C, H, W) int8, of an attack on a source, from the store if they can be trusted."""
    from robustness.workspace import mapped_array

    path = directions_file(harness, source, sweep)

    def verified(file: Path) -> Directions:
        counted = check_made_for(source, file, path.stem)["counted"]
        return mapped_array.read(file, "directions"), json.loads(counted)

    read, make = partial(harness.store.try_read, path, verified), partial(make_directions, harness, source, sweep)
    label = f"making directions on {source.name}"
    signs, counted = harness.get_or_make("directions", path.stem, make, read=read, label=label)
    return check_degenerate(signs, counted, source)


def make_directions(harness: Workspace, source: Card, sweep: str) -> Directions:
    """Compute the signs of an attack and stream them to the store. The caller must hold the store's lock."""
    from robustness.sweep.runner import attack_directions
    from robustness.sweep.runner import directions as in_memory
    from robustness.workspace import mapped_array

    images, perturbation = harness.images(source), source.perturbation(sweep)
    assert isinstance(perturbation, Step)
    loaded, path = harness.classifier(source), directions_file(harness, source, sweep)
    chunks = StoredChunks(harness.store, path.stem, source.project, notice=harness.notice)
    with harness.progress(f"making directions on {source.name}") as progress:
        settings: dict[str, Any] = {
            "seed": harness.seed, "device": harness.sweep_device, "threads": harness.threads,
            "decision": source.file.model.decision, "progress": progress, "dtype": harness.dtype,
            "chunk_cache": chunks, "device_kind": harness.kind,
        }  # fmt: skip
        try:
            with harness.store.writing(path) as stream:
                written = mapped_array.Written(stream, "directions", (len(images), *images.shape))
                with loaded.reads.recording():
                    counted = attack_directions(loaded.module, images, perturbation, written.put, **settings)
                written.finish({"counted": json.dumps(counted), **generator_metadata(harness, source, path.stem)})
        except StoreError as error:
            harness.notice(f"directions made on {source.name} are not kept: {error}")
            return in_memory(loaded.module, images, perturbation, **settings)
    chunks.remove()
    return mapped_array.read(path, "directions"), counted


def check_degenerate(signs: np.ndarray, counted: dict[str, int], source: Card) -> np.ndarray:
    """Return the signs; SweepError if too many images have no gradient, which would look like no transfer."""
    for problem, fraction in MAX_FRACTIONS.items():
        if counted.get(problem, 0) > fraction * len(signs):
            raise SweepError(
                f"nothing can be made on {source.name}: {COUNT_MESSAGES[problem]} {counted[problem]} of {len(signs)} "
                "images"
            )
    return signs
