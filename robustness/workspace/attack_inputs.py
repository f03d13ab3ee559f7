"""What a sweep needs beside the model and its images: the source of a transfer, directions made on it, a generator."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class AttackInputs:
    """Arguments of a sweep, and the sources and distributions behind them."""

    given: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    distributions: dict[str, str] = field(default_factory=dict)


def dependencies(harness: Workspace, card: Card, sweep: str) -> AttackInputs:
    """Return the sources and distributions behind what one of a card's sweeps needs, and make nothing."""
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
    """Return what one of a card's sweeps needs, from the store or made now."""
    perturbation, source, found = (
        card.perturbation(sweep),
        harness.source(card, sweep),
        dependencies(harness, card, sweep),
    )
    if source is not None:
        found.given.update(source=harness.classifier(source).module, source_decision=source.file.model.decision)
        if isinstance(perturbation, Step) and perturbation.signed:
            found.given["directions"] = directions(harness, source, sweep)
    if perturbation.family == "gan":
        found.given["generator"] = generator(harness, card if source is None else source, perturbation)
    return found


def generator_key(harness: Workspace, card: Card, perturbation: Perturbation) -> str:
    """Return the key of the generator that is fitted to a card's model: all that its weights depend on."""
    about = {
        **harness.model(card),
        "sources": harness.factory_sources(card),
        "perturbation": perturbation.model_dump(exclude={"source"}),
        "images": harness.images(card, "train").fingerprint,
        "seed": harness.seed,
        "code": sources.content_hash(Path(__file__).with_name("generators.py")),
        **({} if harness.device == "cpu" else {"device": harness.device_kind}),
    }
    return sha256_json(about)


def generator_file(harness: Workspace, card: Card, perturbation: Perturbation) -> Path:
    """Return the store's file of the generator that is fitted to a card's model, made or not."""
    return harness.store.path("generators", generator_key(harness, card, perturbation))


def generator(harness: Workspace, card: Card, perturbation: Perturbation) -> nn.Module:
    """Return the generator that is fitted to a card's model: from the store, or fitted now, in one process of all."""
    from robustness.classifiers.modules import state_hash
    from robustness.perturbations.advgan import AdvGAN
    from robustness.workspace import generators, recipes

    assert isinstance(perturbation, AdvGAN)
    path = generator_file(harness, card, perturbation)
    key = path.stem
    images, target = harness.images(card, "train"), harness.classifier(card).module
    what = f"fitting a generator to {card.name}"

    def fitted_before() -> nn.Module | None:
        if not harness.store.holds(path):
            return None
        try:
            check_generator(harness, card, path)
            return generators.load(path, perturbation, images, state_hash(target))
        except ModelError as error:
            harness.notice(f"{error}; fitted again")
            return None

    made = fitted_before()
    if made is None:
        with harness.store.alone(f"generator-{key}", what), harness.progress(what) as progress:
            if (made := fitted_before()) is None:
                checkpoint = harness.store.checkpoint(key)
                job = recipes.Job(
                    harness.seed, checkpoint, progress, harness.notices, harness.store, device=harness.device
                )  # fmt: skip
                with harness.listening(card):
                    fitted = generators.fit(target, images, perturbation, job, card.file.model.decision)
                content = generators.save(fitted, state_hash(target), generator_metadata(harness, card, key))
                path = harness.store.keep(path, content)
                harness.store.remove(checkpoint)
                made = generators.load(path, perturbation, images, state_hash(target))
    return made


def generator_metadata(harness: Workspace, card: Card, key: str) -> dict[str, str]:
    """Return what a file made for a model says of itself: its key, and what the model has read since it was loaded."""
    loaded = harness.classifier(card)
    later = {name: digest for name, digest in loaded.dependencies.items() if name not in loaded.sources}
    return {"key": key, "reads": json.dumps(later)}


def check_generator(harness: Workspace, card: Card, path: Path) -> None:
    """Raise ModelError where a file in the store is another key's, or what its model read has changed since."""
    from robustness.classifiers import weights

    about = weights.metadata(path)
    if about.get("key") != path.stem:
        raise ModelError(f"{path}: it does not say that it was made for this key")
    if other := sources.changed_files(json.loads(about["reads"]), card.project):
        raise ModelError(f"{path}: it is older than {', '.join(other)}")


def directions_file(harness: Workspace, source: Card, sweep: str) -> Path:
    """Return the store's file of the signs of an attack on a source, made or not."""
    loaded = harness.classifier(source)
    about = {
        "semantics": SEMANTICS,
        **harness.model(source),
        "sources": loaded.sources,
        "distributions": loaded.distributions,
        "perturbation": source.perturbation(sweep).model_dump(),
        "images": harness.images(source).fingerprint,
        "seed": harness.seed,
        "device": harness.device_kind,
        **({} if harness.dtype == "float32" else {"dtype": harness.dtype}),
    }
    return harness.store.path("directions", sha256_json(about))


def directions(harness: Workspace, source: Card, sweep: str) -> np.ndarray:
    """Return the signs, (N, C, H, W) int8, of an attack on a source: from the store, mapped to memory, or made now."""
    from robustness.classifiers import weights
    from robustness.sweep.runner import attack_directions
    from robustness.sweep.runner import directions as in_memory
    from robustness.workspace import mapped_array

    images, perturbation = harness.images(source), source.perturbation(sweep)
    assert isinstance(perturbation, Step)
    loaded, path = harness.classifier(source), directions_file(harness, source, sweep)
    if harness.store.holds(path):
        try:
            check_generator(harness, source, path)
            return _usable(mapped_array.read(path, "directions"), json.loads(weights.metadata(path)["counted"]), source)
        except (ModelError, KeyError, ValueError) as error:
            harness.notice(f"{error}; made again")
    kept = StoredChunks(harness.store, path.stem, source.project, notice=harness.notice)
    with harness.progress(f"making directions on {source.name}") as progress:
        about: dict[str, Any] = {
            "seed": harness.seed, "device": harness.sweeps_on, "threads": harness.threads,
            "decision": source.file.model.decision, "progress": progress, "dtype": harness.dtype,
            "chunk_cache": kept, "device_kind": harness.kind,
        }  # fmt: skip
        try:
            with harness.store.writing(path) as stream:
                written = mapped_array.Written(stream, "directions", (len(images), *images.shape))
                with loaded.reads.recording():
                    counted = attack_directions(loaded.module, images, perturbation, written.put, **about)
                written.finish({"counted": json.dumps(counted), **generator_metadata(harness, source, path.stem)})
        except StoreError as error:
            harness.notice(f"directions made on {source.name} are not kept: {error}")
            return _usable(*in_memory(loaded.module, images, perturbation, **about), source)
    kept.remove()
    return _usable(mapped_array.read(path, "directions"), counted, source)


def _usable(found: np.ndarray, counted: dict[str, int], source: Card) -> np.ndarray:
    """Return directions; SweepError where too many images have none, for these would look like no transfer."""
    for what, share in MAX_FRACTIONS.items():
        if counted.get(what, 0) > share * len(found):
            raise SweepError(
                f"nothing can be made on {source.name}: {COUNT_MESSAGES[what]} {counted[what]} of {len(found)} images"
            )
    return found
