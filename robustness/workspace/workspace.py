"""The workspace of a run: from cards, a store and a device it makes images, classifiers and evidence, each once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import platformdirs

from robustness import cards, data
from robustness.cards import Card
from robustness.classifiers import file_reads, precision, weights
from robustness.data.images import Images
from robustness.errors import AGAIN, DataError, ModelError, StoreError, SweepError
from robustness.metrics.evidence import SEMANTICS, Evidence
from robustness.perturbations import strength as strengths
from robustness.perturbations.strength import Strength
from robustness.util import atomic_write, hardware, locks, paths, source_files
from robustness.util.file_stat import file_stat, is_settled
from robustness.util.hashing import sha256_json
from robustness.workspace import attack_inputs, models
from robustness.workspace.chunk_cache import StoredChunks
from robustness.workspace.store import Store

if TYPE_CHECKING:
    from robustness.classifiers.build import LoadedModel

T = TypeVar("T")

CACHE = "pytest-robustness"


class Progress(Protocol):
    """Shows the progress of long work: a context manager that yields a function of (done, total)."""

    def __call__(self, what: str) -> AbstractContextManager[Callable[[int, int], None] | None]:
        """Start to show progress; `what` is the work, as in "sweeping tiny:fgsm"."""


def no_progress(what: str) -> AbstractContextManager[None]:
    """Show nothing."""
    return nullcontext()


def store_root(path: str | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the store's folder: the argument, else ``ROBUSTNESS_STORE``, else one in the user's cache folder."""
    path = path or environment.get("ROBUSTNESS_STORE")
    return paths.expanded(path) if path else _cache() / "store"


def data_root(path: str | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the data root: the argument, else ``ROBUSTNESS_DATA``, else one in the user's cache folder."""
    path = path or environment.get("ROBUSTNESS_DATA")
    return paths.expanded(path) if path else _cache() / "data"


def homeless(root: Path) -> str:
    """Return a notice if the store is temporary, because the user has no home folder; else an empty text."""
    if not atomic_write.is_aside(root):
        return ""
    return (
        f"there is no home folder (HOME is not set): {root} goes with this run, and the next one sweeps again; name a "
        "store with --robustness-store or ROBUSTNESS_STORE"
    )


def _cache() -> Path:
    """Return the user's cache folder, or a temporary one if the user has no home folder."""
    try:
        return Path(platformdirs.user_cache_path(CACHE))
    except (RuntimeError, KeyError):  # no HOME, and no entry among the users
        return atomic_write.aside()


@dataclass
class Workspace:
    """
    Returns images, weights, classifiers and evidence by card; each is made at most once and kept in the store.

    Attributes:
        store: The folder of everything that is made.
        data_root: The folder of the data sets.
        device: The device that this process computes on, as torch names it.
        seed: The seed of random perturbations.
        threads: CPU threads of a sweep; None for all cores.
        kind: The kind of device on which an engine makes evidence; None if this process makes it.
        progress: Shows the progress of sweeps and trainings.
        dtype: The precision of sweeps, as torch names it.
        notices: Sentences for the end of the report that no test says: evidence that could not be trusted, weights
            older than their recipe, a store that could not be written.
        documents: The results that `cached_results` returned in this run, by key.
    """

    store: Store
    data_root: Path
    device: str = "cpu"
    seed: int = 0
    threads: int | None = None
    kind: str | None = None
    progress: Progress = no_progress
    dtype: str = "float32"
    notices: list[str] = field(default_factory=list)
    _images: dict[tuple[str, str, Path | None], Images] = field(default_factory=dict)
    _weights: dict[str, Path] = field(default_factory=dict)
    _hashes: dict[Path, str] = field(default_factory=dict)
    _factories: dict[tuple[str, Path], dict[str, str]] = field(default_factory=dict)
    _mapped: dict[str, tuple[list[int], int]] = field(default_factory=dict)
    _signatures: dict[Path, tuple[list[list[int]], int]] = field(default_factory=dict)
    _loaded: dict[tuple[Any, ...], LoadedModel] = field(default_factory=dict)
    _evidence: dict[str, Evidence] = field(default_factory=dict)
    _compared: dict[tuple[str, tuple[str, ...]], Evidence] = field(default_factory=dict)
    _sources: dict[Path, Card] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    _failures: dict[str, Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        file_reads.install_audit_hook()

    @property
    def device_kind(self) -> str:
        """The kind of device that evidence is made on."""
        return self.kind or hardware.device_fingerprint(self.device)

    @property
    def sweep_device(self) -> str:
        """The device that sweeps run on."""
        family = "" if self.kind is None else self.kind.partition("-")[0]
        return self.device if self.device.startswith(family) else family

    def images(self, card: Card, part: Literal["train", "test"] = "test") -> Images:
        """Return the images that a card is tested or trained on; DataMissing if they are not on this machine."""
        spec = card.file.data if part == "train" or card.tested_on is None else card.tested_on
        beside = card.beside if spec is card.file.data else card.tested_beside
        key = (spec.model_dump_json(), part, beside if spec.beside_card else None)
        if key not in self._images:
            self._images[key] = data.load(
                spec, part, root=self.data_root, cache=self.store.root, beside=beside, progress=self.store.say
            )
            if file := self._images[key].mapped_from:
                self._mapped.setdefault(file, (file_stat(file), time.time_ns()))
            for note in self._images[key].notes:
                self.notice(note)
        images = self._images[key]
        if card.file.shape is not None and images.shape != card.file.shape:
            raise DataError(
                f"{card.path}: shape = {list(card.file.shape)}: must be that of {images.name}, {list(images.shape)} "
                "(channels, height, width); a profile's strengths depend on it"
            )
        return images

    def weights(self, card: Card) -> Path:
        """Return the file of a card's weights: its own, else the one that its recipe makes."""
        key = (
            f"{card.path}\n{card.damage}\n"
            f"{card.file.model_dump_json(include={'model', 'recipe', 'data'})}"  # one card has many seeds
        )
        if key not in self._weights:
            self._weights[key] = models.weights_file(self, card)
            self._notice_outside(card)
        return self._weights[key]

    def _notice_outside(self, card: Card) -> None:
        """Add a notice if a card's own weights lie outside of its project, unless an option named them."""
        own, project = card.weights, card.project.resolve()
        if own is None or card.candidate is not None or card.root is not None or not own.is_file():
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
        key = (card.path, file, classes, shape, card.damage)
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

        self._refuse_other_weights(card)
        before = weights.signature(file)
        loaded = build.load_model(card, file, classes, shape, self.known_otherwise(card))
        if weights.signature(file) != before:
            raise ModelError(f"{card.name}: {file} changed while it was read; {AGAIN}")
        build.initialize_lazy_layers(loaded.module, lambda: self.images(card).shape)
        return loaded

    def _refuse_other_weights(self, card: Card) -> None:
        """Raise ModelError if a card's weights are no longer those of its key."""
        file, expected = self.weights(card), self.weights_hash(card)
        signature, taken = self._signatures[file]
        same = weights.signature(file) == signature and all(is_settled(stat, taken) for stat in signature)
        if not same and weights.content_hash(file) != expected:
            raise ModelError(f"{card.name}: {file} has changed since this run read it; {AGAIN}")

    def known_otherwise(self, card: Card) -> list[Path]:
        """Return the paths whose content is in keys anyway, so that a factory may read them: the data and the store."""
        known = [self.store.root]
        for spec, folder in ((card.file.data, card.path.parent), (card.tested_on, card.tested_beside)):
            if spec is not None:
                path = spec.file or spec.folder
                known.append((folder if spec.beside_card else self.data_root) / path if path else self.data_root)
        project = card.project.resolve()
        return [path for path in known if not project.is_relative_to(path.resolve())]

    def _apply_mutation(self, card: Card, loaded: LoadedModel) -> LoadedModel:
        """Mutate a model if its card names a mutation."""
        if card.damage is None:
            return loaded
        from robustness.mutations import operators

        classes = len(self.images(card).classes)
        outputs = card.file.model.decision.outputs(classes)
        return replace(loaded, module=operators.mutate(loaded.module, card.damage, classes, outputs))

    def classes(self, card: Card) -> tuple[str, ...]:
        """Return the data's classes if the card's model can have its own; else none, without reading an image."""
        model = card.file.model
        return self.images(card).classes if model.classes is not None or model.factory_library is not None else ()

    def shape(self, card: Card) -> tuple[int, int, int] | None:
        """Return the shape of the data's images if the card's model can have a size of its own; else None."""
        return self.images(card).shape if card.file.model.factory_library is not None else None

    def evidence_key_fields(self, card: Card, sweep: str) -> dict[str, Any]:
        """Return everything that evidence depends on, by content; its hash is the key. Needs no torch."""
        images = self.images(card)
        table = card.file.sweeps.get(sweep)
        perturbation = card.perturbation(sweep)
        source = self.source(card, sweep)
        attacked = card if source is None else source
        return {
            "semantics": SEMANTICS,
            **self.model_key_fields(card),
            **({} if source is None else {"source": self.model_key_fields(source)}),
            **(
                {"generator": attack_inputs.generator_key(self, attacked, perturbation)}
                if perturbation.family == "gan"
                else {}
            ),
            "images": images.fingerprint,
            "perturbation": perturbation.model_dump(exclude={"source"}),
            "strengths": [
                s if isinstance(s, int | float) else s.model_dump() for s in strengths_without_zero(card, sweep)
            ],
            "unit": table.unit if table else "default",
            "seed": self.seed,
            "device": self.device_kind,
            "dtype": self.dtype,
            # Before, float32 on a GPU had TF32's products in convolutions, which is torch's default.
            **({} if self.device_kind.startswith("cpu") else {"products": precision.MATMUL_MODES[self.dtype]}),
            # What cards without it always had as a key stays their key.
            **({"probabilities": True} if card.file.store_probabilities else {}),
        }

    def model_key_fields(self, card: Card) -> dict[str, Any]:
        """Return everything that a card's model depends on, by content."""
        return {
            **card.described,
            "decision": card.file.model.decision.model_dump(),
            "weights": self.weights_hash(card),
        }

    def source(self, card: Card, sweep: str) -> Card | None:
        """Return the card of a transfer attack's source, with the same sweep and images; None for other attacks."""
        path = card.source(sweep)
        if path is None:
            return None
        if path not in self._sources:
            self._sources[path] = cards.load(path)
        return self._sources[path].attacked_for(card, sweep)

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
            files = models.factory_closure(card).files.values()
            self._factories[factory] = source_files.hash_files(files, card.project)
        return self._factories[factory]

    def key(self, card: Card, sweep: str) -> str:
        """Return the key of a sweep's evidence in the store."""
        return sha256_json(self.evidence_key_fields(card, sweep))

    def evidence(self, card: Card, sweep: str = "clean") -> Evidence:
        """Return the evidence of a card's sweep, from the store if it can be trusted, else by running the sweep."""
        if sweep != "clean" and sweep not in card.file.sweeps:
            known = ", ".join(["clean", *card.file.sweeps])
            raise SweepError(f"{card.name} has no sweep {sweep!r}; its card has {known}")
        fields = self.evidence_key_fields(card, sweep)
        key = sha256_json(fields)
        if key not in self._evidence:
            self._evidence[key] = self.get_or_make(
                "evidence",
                key,
                lambda: self.make_evidence(card, sweep, fields, key),
                read=lambda: self.store.evidence(key, card.project),
                label=f"sweeping {card.name}:{sweep}",
                again="swept again",
                prepare=lambda: self._make_prerequisites(card, sweep),
            )
            for note in self._evidence[key].provenance.get("model", []):
                self.notice(f"{card.name}: {note}")
        requested = tuple(strengths.name(s) for s in card.file.strengths_of(sweep))
        if (key, requested) not in self._compared:
            complete = self._attach_clean_and_source(card, sweep, self._evidence[key], requested, self.evidence)
            assert complete is not None
            self._compared[key, requested] = complete
        return self._compared[key, requested]

    def cached_evidence(self, card: Card, sweep: str, key: str) -> Evidence | None:
        """Return evidence of this run or of the store, by its key; None if there is none. Never runs a sweep."""
        evidence = self._evidence.get(key) or self.store.evidence(key, card.project)[0]
        requested = tuple(strengths.name(s) for s in card.file.strengths_of(sweep))

        def get(card: Card, sweep: str) -> Evidence | None:
            return self.cached_evidence(card, sweep, self.key(card, sweep))

        return None if evidence is None else self._attach_clean_and_source(card, sweep, evidence, requested, get)

    def _attach_clean_and_source(
        self,
        card: Card,
        sweep: str,
        evidence: Evidence,
        requested: tuple[str, ...],
        get: Callable[[Card, str], Evidence | None],
    ) -> Evidence | None:
        """Return evidence at the requested strengths, with the clean and the source's evidence attached."""
        if sweep == "clean":
            return evidence
        clean, source = get(card, "clean"), self.source(card, sweep)
        attacked = None if source is None else get(source, sweep)
        if clean is None or (source is not None and attacked is None):
            return None
        complete = evidence if evidence.strengths == requested else evidence.with_clean(clean, requested)
        return replace(complete, clean=clean, source=attacked)

    def stored_evidence(self, card: Card, key: str) -> Evidence | None:
        """Return evidence of the store if it can be trusted; else None, and a notice says why."""
        return self.read_or_notice(lambda: self.store.evidence(key, card.project), "swept again")

    def _make_prerequisites(self, card: Card, sweep: str) -> None:
        """Make the evidence that a sweep is compared with: of the clean images, and of a transfer attack's source."""
        if sweep != "clean":
            self.evidence(card)
        if (source := self.source(card, sweep)) is not None:
            self.evidence(source, sweep)

    def dependencies(self, card: Card, sweep: str) -> dict[str, dict[str, str]]:
        """Return the source files and distributions that must be unchanged for evidence to be trusted."""
        loaded, more = self.classifier(card), attack_inputs.dependencies(self, card, sweep)
        return {
            "sources": {**loaded.dependencies, **more.sources},
            "distributions": {**loaded.distributions, **more.distributions, **self.images(card).distributions},
        }

    @contextmanager
    def listening(self, card: Card, sweep: str = "clean") -> Iterator[None]:
        """Record which files the code of a model, and of a transfer attack's source, reads."""
        source = self.source(card, sweep)
        other = nullcontext() if source is None else self.classifier(source).reads.recording()
        with self.classifier(card).reads.recording(), other:
            yield

    def refuse_changed(self, card: Card, sweep: str, dependencies: Mapping[str, Mapping[str, str]]) -> None:
        """Raise ModelError or DataError if weights, source files or images of a sweep changed while it ran."""
        from robustness.classifiers import build

        build.check_unchanged(dependencies["sources"], card.project)
        self._refuse_other_pixels(card)
        for model in (card, self.source(card, sweep)):
            if model is not None:
                self._refuse_other_weights(model)

    def _refuse_other_pixels(self, card: Card) -> None:
        """Raise DataError if the file that images are mapped from has changed since it was opened."""
        images = self.images(card)
        file = images.mapped_from
        if file not in self._mapped:  # in memory, or encoded pictures, whose checksums are verified when they are read
            return
        signature, taken = self._mapped[file]
        same = file_stat(file) == signature and is_settled(signature, taken)
        if not same and replace(images).fingerprint != images.fingerprint:
            raise DataError(f"{images.name}: {file} changed while this run read it; {AGAIN}")

    def make_evidence(self, card: Card, sweep: str, fields: dict[str, Any], key: str) -> Evidence:
        """Sweep the chunks that are not finished, and store the evidence. The caller must hold the store's lock."""
        from robustness.sweep.runner import run_sweep as run

        loaded, label = self.classifier(card), f"{card.name}:{sweep}"
        table = card.file.sweeps.get(sweep)
        inputs = attack_inputs.attack_inputs(self, card, sweep)
        chunks = StoredChunks(
            self.store, key, card.project, dependencies=lambda: self.dependencies(card, sweep), notice=self.notice
        )
        with self.progress(f"sweeping {label}") as progress, self.listening(card, sweep):
            evidence = run(
                loaded.module,
                self.images(card),
                card.perturbation(sweep),
                strengths_without_zero(card, sweep),
                unit=table.unit if table else "default",
                seed=self.seed,
                device=self.sweep_device,
                threads=self.threads,
                decision=card.file.model.decision,
                probabilities=card.file.store_probabilities,
                progress=progress,
                chunk_cache=chunks,
                device_kind=self.kind,
                dtype=self.dtype,
                **inputs.arguments,
            )
        if state := evidence.provenance.get("keeps_state"):
            self.notice(f"{card.name} keeps state between calls: {state}; it is swept in one thread, in order")
        if (requested := evidence.provenance.get("out_of_memory_at")) is not None:
            size = evidence.provenance["batch_size"]
            self.notice(
                f"memory ran out sweeping {label} in batches of {requested} images; it was swept in batches of {size}"
            )
        dependencies = self.dependencies(card, sweep)
        self.refuse_changed(card, sweep, dependencies)
        metadata = {
            "key": key, "label": label, "subject": fields, "run": self.store.run, "model": loaded.notes, **dependencies,
        }  # fmt: skip
        evidence = replace(evidence, provenance={**evidence.provenance, **metadata})
        try:
            self.store.write(self.store.path("evidence", key), evidence.to_bytes())
            chunks.remove()
        except StoreError as error:
            self.notice(f"evidence of {label} was not kept: {error}")
        return evidence

    def get_or_make(
        self,
        kind: str,
        key: str,
        make: Callable[[], T],
        *,
        read: Callable[[], tuple[T | None, str]],
        label: str,
        again: str = "made again",
        prepare: Callable[[], object] | None = None,
    ) -> T:
        """
        Return an entry of the store if it can be trusted; else make it, in one process of all that use the store.

        The others wait, show "waiting for another process: LABEL", and then read what the first one wrote. If `make`
        raises, or its process is killed, nothing is stored and no process of this run tries again: this one raises the
        same error, the others get SweepError with the reason. The next run tries again.

        Args:
            kind: What is made, as in "evidence"; `kind` and `key` name the lock.
            key: The hash of everything that the entry depends on.
            make: Makes the entry, writes it by the store's atomic writes, and returns it.
            read: Returns the entry; or None, and why what is stored cannot be trusted ("" if nothing is stored).
            label: What `make` does, as in "sweeping tiny:fgsm".
            again: What the notice promises about an entry that cannot be trusted.
            prepare: Makes what has to be there first, before the lock is taken; see `locks.get_or_make`.
        """
        name = f"{kind}-{key}"
        exclusive = self.store.exclusive(name, label)
        with self.fail_once(name):
            return locks.get_or_make(
                make, read=lambda: self.read_or_notice(read, again), exclusive=exclusive, prepare=prepare
            )

    def read_or_notice(self, read: Callable[[], tuple[T | None, str]], again: str) -> T | None:
        """Return what `read` returns; if it cannot be trusted, add a notice of the reason and what is done `again`."""
        value, reason = read()
        if reason:
            self.notice(f"{reason}; {again}")
        return value

    @contextmanager
    def fail_once(self, name: str) -> Iterator[None]:
        """Do something that is not tried again in this run: if it failed, raise the same error at once."""
        if name in self._failures:
            raise self._failures[name].with_traceback(None)
        try:
            yield
        except Exception as error:
            self._failures[name] = error
            raise

    def mark_failed(self, key: str, reason: str) -> None:
        """Record that an engine could not make evidence, so that nobody tries again in this run."""
        self._failures[f"evidence-{key}"] = SweepError(reason)

    def notice(self, message: str) -> None:
        """Add a sentence to the notices of the run, once."""
        if message not in self.notices:
            self.notices.append(message)


def strengths_without_zero(card: Card, sweep: str) -> list[Strength]:
    """Return a sweep's strengths without 0, which is the clean evidence that all sweeps share; 0 dB is a strength."""
    table = card.file.sweeps.get(sweep)
    if table is None or table.unit in strengths.RATIOS:
        return list(card.file.strengths_of(sweep))
    return [strength for strength in table.strengths if strength != 0] or [0.0]


def fresh_harness(harness: Workspace) -> Workspace:
    """Return an empty workspace with the same settings, so that many models need not be in memory at once."""
    return Workspace(
        harness.store, harness.data_root, harness.device, harness.seed, harness.threads, dtype=harness.dtype
    )
