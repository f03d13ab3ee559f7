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
from robustness.workspace import fitting
from robustness.workspace.chunk_cache import StoredChunks
from robustness.workspace.jobs import SweepJob
from robustness.workspace.models import Models

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from robustness.cards import Card

    Directions = tuple[np.ndarray, dict[str, int]]
    """Signs, (N, C, H, W) int8, and the number of images without a usable gradient, by reason."""


@dataclass(frozen=True)
class AttackInputs:
    """Keyword arguments of a sweep, and the source files and distributions that they depend on."""

    arguments: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    distributions: dict[str, str] = field(default_factory=dict)


def dependencies(models: Models, job: SweepJob) -> AttackInputs:
    """Return the source files and distributions of a sweep's attack inputs, without making any input."""
    code = sources.class_closure(type(job.perturbation))
    versions = sources.distribution_versions(job.perturbation.distributions() | code.packages)
    files = sources.hash_files(code.files.values(), job.card.project)
    if job.source is None:
        return AttackInputs(sources=files, distributions=versions)
    loaded = models.classifier(job.source)
    # Evidence lists files relative to the project of the card that is swept.
    files |= {sources.absolute(name, job.source.project): digest for name, digest in loaded.dependencies.items()}
    return AttackInputs(sources=files, distributions={**loaded.distributions, **versions})


def attack_inputs(models: Models, job: SweepJob) -> AttackInputs:
    """Return the attack inputs of a sweep, from the store if they can be trusted, else made now."""
    inputs = dependencies(models, job)
    if job.source is not None:
        inputs.arguments["source"] = models.classifier(job.source).module
        inputs.arguments["source_decision"] = job.source.file.model.decision
    if job.direction_job is not None:
        inputs.arguments["directions"] = directions(models, job.direction_job)
    if job.perturbation.needs_fitting:
        inputs.arguments["generator"] = generator(models, job.attacked, job.perturbation)
    return inputs


def generator_key(models: Models, card: Card, perturbation: Perturbation) -> str:
    """Return the hash of everything that the weights of a card's generator depend on."""
    fields = {
        **models.model_key_fields(card),
        "sources": models.factory_sources(card),
        "perturbation": perturbation.model_dump(exclude={"source"}),
        "images": models.images(card, "train").fingerprint,
        "seed": models.seed,
        "code": fitting.code_hash(perturbation),
        **({} if models.device == "cpu" else {"device": models.device_kind}),
    }
    return sha256_json(fields)


def generator_file(models: Models, card: Card, perturbation: Perturbation) -> Path:
    """Return the path in the store of the generator for a card's model, whether or not it is there."""
    return models.store.path("generators", generator_key(models, card, perturbation))


def generator(models: Models, card: Card, perturbation: Perturbation) -> nn.Module:
    """Return the generator for a card's model, from the store if it can be trusted, else by fitting it."""
    from robustness.classifiers.modules import state_hash
    from robustness.workspace import recipes

    functions = fitting.fitting_module(perturbation)
    path = generator_file(models, card, perturbation)
    key = path.stem
    images, target = models.images(card, "train"), models.classifier(card).module
    label = f"fitting a {fitting.product(perturbation)} to {card.name}"

    def load(file: Path) -> nn.Module:
        network: nn.Module = functions.load(file, perturbation, images, state_hash(target))
        return network

    def verified(file: Path) -> nn.Module:
        check_made_for(card, file, key)
        return load(file)

    def fit() -> nn.Module:
        checkpoint = models.store.checkpoint(key)
        with models.progress(label) as progress, models.classifier(card).reads.recording():
            job = recipes.Job(models.seed, checkpoint, progress, models.notices, models.store, device=models.device)
            fitted = functions.fit(target, images, perturbation, job, card.file.model.decision)
        content = functions.save(fitted, state_hash(target), generator_metadata(models, card, key))
        file = models.store.keep(path, content)
        models.store.remove(checkpoint)
        return load(file)

    read = partial(models.store.try_read, path, verified)
    return models.get_or_make("generator", key, fit, read=read, label=label, again="fitted again")


def generator_metadata(models: Models, card: Card, key: str) -> dict[str, str]:
    """Return a file's metadata: its key, and the files that the model has read since it was loaded."""
    loaded = models.classifier(card)
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


def directions_file(models: Models, job: SweepJob) -> Path:
    """Return the path in the store of the directions of an attack, whether or not they are there."""
    loaded = models.classifier(job.card)
    fields = {
        "semantics": SEMANTICS,
        **models.model_key_fields(job.card),
        "sources": loaded.sources,
        "distributions": loaded.distributions,
        "perturbation": job.perturbation.model_dump(),
        "images": job.images.fingerprint,
        "seed": models.seed,
        "device": models.device_kind,
        **({} if models.dtype == "float32" else {"dtype": models.dtype}),
    }
    return models.store.path("directions", sha256_json(fields))


def directions(models: Models, job: SweepJob) -> np.ndarray:
    """Return the signs, (N, C, H, W) int8, of an attack on a source, from the store if they can be trusted."""
    from robustness.workspace import mapped_array

    path = directions_file(models, job)

    def verified(file: Path) -> Directions:
        counted = check_made_for(job.card, file, path.stem)["counted"]
        return mapped_array.read(file, "directions"), json.loads(counted)

    read, make = partial(models.store.try_read, path, verified), partial(make_directions, models, job)
    label = f"making directions on {job.card.name}"
    signs, counted = models.get_or_make("directions", path.stem, make, read=read, label=label)
    return check_degenerate(signs, counted, job.card)


def make_directions(models: Models, job: SweepJob) -> Directions:
    """Compute the signs of an attack and stream them to the store. The caller must hold the store's lock."""
    from robustness.sweep.runner import attack_directions
    from robustness.sweep.runner import directions as in_memory
    from robustness.workspace import mapped_array

    images, perturbation, source = job.images, job.perturbation, job.card
    assert isinstance(perturbation, Step)
    loaded, path = models.classifier(source), directions_file(models, job)
    chunks = StoredChunks(models.store, path.stem, source.project, notice=models.notice)
    with models.progress(f"making directions on {source.name}") as progress:
        settings: dict[str, Any] = {
            "seed": models.seed, "device": models.sweep_device, "threads": models.threads,
            "decision": source.file.model.decision, "progress": progress, "dtype": models.dtype,
            "chunk_cache": chunks, "device_kind": models.kind,
        }  # fmt: skip
        try:
            with models.store.writing(path) as stream:
                written = mapped_array.Written(stream, "directions", (len(images), *images.shape))
                with loaded.reads.recording():
                    counted = attack_directions(loaded.module, images, perturbation, written.put, **settings)
                written.finish({"counted": json.dumps(counted), **generator_metadata(models, source, path.stem)})
        except StoreError as error:
            models.notice(f"directions made on {source.name} are not kept: {error}")
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
