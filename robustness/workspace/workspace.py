"""What a run works with: the cards, the store, the device; and from them images, classifiers and evidence."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import platformdirs

from robustness import cards, data
from robustness.cards import Card
from robustness.classifiers import file_reads, precision, weights
from robustness.data.images import Images
from robustness.errors import AGAIN, DataError, ModelError, StoreError, SweepError
from robustness.metrics.evidence import SEMANTICS, Evidence
from robustness.perturbations import strength as strengths
from robustness.perturbations.strength import Strength
from robustness.util import atomic_write, hardware, paths, source_files
from robustness.util.file_stat import file_stat, is_settled
from robustness.util.hashing import sha256_json
from robustness.workspace import attack_inputs, models
from robustness.workspace.chunk_cache import StoredChunks
from robustness.workspace.store import Store

if TYPE_CHECKING:
    from robustness.classifiers.build import LoadedModel

CACHE = "pytest-robustness"


class Progress(Protocol):
    """Shows how far a long thing is: a context that gives a function of (done, total)."""

    def __call__(self, what: str) -> AbstractContextManager[Callable[[int, int], None] | None]:
        """Begin to show."""


def no_progress(what: str) -> AbstractContextManager[None]:
    """Show nothing."""
    return nullcontext()


def store_root(given: str | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the store's folder: as given, else ``ROBUSTNESS_STORE``, else below the user's cache folder."""
    named = given or environment.get("ROBUSTNESS_STORE")
    return paths.expanded(named) if named else _cache() / "store"


def data_root(given: str | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the data root: as given, else ``ROBUSTNESS_DATA``, else below the user's cache folder."""
    named = given or environment.get("ROBUSTNESS_DATA")
    return paths.expanded(named) if named else _cache() / "data"


def homeless(root: Path) -> str:
    """Return what is to be said of a store that goes with this run; nothing of any other."""
    if not atomic_write.is_aside(root):
        return ""
    return (
        f"there is no home folder (HOME is not set): {root} goes with this run, and the next one sweeps again; name a "
        "store with --robustness-store or ROBUSTNESS_STORE"
    )


def _cache() -> Path:
    """Return the user's cache folder; of a user who has no home folder, one that goes with this run."""
    try:
        return Path(platformdirs.user_cache_path(CACHE))
    except (RuntimeError, KeyError):  # no HOME, and no entry among the users
        return atomic_write.aside()


@dataclass
class Workspace:
    """
    Returns images, weights, classifiers and evidence by card; each is computed at most once and kept in the store.

    Attributes:
        store: The folder that keeps evidence and trained weights.
        data_root: The folder that holds the data sets.
        device: "cpu", "cuda" or "cuda:N".
        seed: Seed of all draws.
        threads: Batches computed side by side on a CPU; None for the number of cores.
        progress: Reports progress of what takes longer than a few seconds.
        dtype: Precision of the models.
        notices: What a reader of the run must know and no test reports: stale evidence, weights older than their
            recipe, a store that could not be written.
    """

    store: Store
    data_root: Path
    device: str = "cpu"
    seed: int = 0
    threads: int | None = None
    kind: str | None = None
    """The kind of device that an engine makes evidence on; None: this process makes it, on its own."""
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
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Findings of this run, by their keys (`robustness.workspace.cached_results`)."""
    _failures: dict[str, Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        file_reads.install_audit_hook()

    @property
    def device_kind(self) -> str:
        """The kind of device that evidence is of."""
        return self.kind or hardware.device_fingerprint(self.device)

    @property
    def sweeps_on(self) -> str:
        """The device that sweeps run on."""
        of = "" if self.kind is None else self.kind.partition("-")[0]
        return self.device if self.device.startswith(of) else of

    def images(self, card: Card, part: Literal["train", "test"] = "test") -> Images:
        """Return the images that a card is tested (or trained) on; DataMissing where they are not on this machine."""
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
        found = self._images[key]
        if card.file.shape is not None and found.shape != card.file.shape:
            raise DataError(
                f"{card.path}: shape = {list(card.file.shape)}: must be that of {found.name}, {list(found.shape)} "
                "(channels, height, width); a profile's strengths depend on it"
            )
        return found

    def weights(self, card: Card) -> Path:
        """Return the file of a card's weights: its own, else those that its recipe made or makes now."""
        key = (
            f"{card.path}\n{card.damage}\n"
            f"{card.file.model_dump_json(include={'model', 'recipe', 'data'})}"  # one card has many seeds
        )
        if key not in self._weights:
            self._weights[key] = models.weights_file(self, card)
            self._notice_outside(card)
        return self._weights[key]

    def _notice_outside(self, card: Card) -> None:
        """Say where a card's own weights lie outside of its project; what was named by option was meant so."""
        own, project = card.weights, card.project.resolve()
        if own is None or card.candidate is not None or card.root is not None or not own.is_file():
            return
        if not own.resolve().is_relative_to(project):
            model = card.file.model
            of = f"weights = {model.weights!r}" if model.weights else f"factory = {model.factory!r}: its weights"
            self.notice(
                f"{card.name}: model.{of} lie outside of its project {project}, in "
                f"{own.resolve()}; nobody who checks out the project has them"
            )

    def classifier(self, card: Card) -> LoadedModel:
        """Return a card's module with its weights, loaded once."""
        file, classes, shape = self.weights(card), self.classes(card), self.shape(card)
        # Cards may share a file of weights and differ in what they make of it.
        key = (card.path, file, classes, shape, card.damage)
        if key not in self._loaded:
            with self.once(f"module-{key}"):
                self._loaded[key] = self._spoilt(card, self._read(card, file, classes, shape))
            for notice in self._loaded[key].notices:
                self.notice(f"{card.name}: {notice}")
        return self._loaded[key]

    def _read(
        self, card: Card, file: Path, classes: tuple[str, ...], shape: tuple[int, int, int] | None
    ) -> LoadedModel:
        """Load a module with the weights that its key is of, and no others."""
        from robustness.classifiers import build

        self._refuse_other_weights(card)
        before = weights.signature(file)
        loaded = build.load_model(card, file, classes, shape, self.known_otherwise(card))
        if weights.signature(file) != before:
            raise ModelError(f"{card.name}: {file} changed while it was read; {AGAIN}")
        build.initialize_lazy_layers(loaded.module, lambda: self.images(card).shape)
        return loaded

    def _refuse_other_weights(self, card: Card) -> None:
        """Raise ModelError where a card's weights are no longer those of its key."""
        file, due = self.weights(card), self.weights_hash(card)
        signature, taken = self._signatures[file]
        same = weights.signature(file) == signature and all(is_settled(each, taken) for each in signature)
        if not same and weights.content_hash(file) != due:
            raise ModelError(f"{card.name}: {file} has changed since this run read it; {AGAIN}")

    def known_otherwise(self, card: Card) -> list[Path]:
        """Return what is in keys by itself, wherever a factory reads it too: the data, and what the store holds."""
        found = [self.store.root]
        for spec, folder in ((card.file.data, card.path.parent), (card.tested_on, card.tested_beside)):
            if spec is not None:
                place = spec.file or spec.folder
                found.append((folder if spec.beside_card else self.data_root) / place if place else self.data_root)
        project = card.project.resolve()
        return [path for path in found if not project.is_relative_to(path.resolve())]

    def _spoilt(self, card: Card, loaded: LoadedModel) -> LoadedModel:
        """Damage a model where its card was damaged."""
        if card.damage is None:
            return loaded
        from robustness.mutations import operators

        classes = len(self.images(card).classes)
        outputs = card.file.model.decision.outputs(classes)
        return replace(loaded, module=operators.mutate(loaded.module, card.damage, classes, outputs))

    def classes(self, card: Card) -> tuple[str, ...]:
        """Return the data's classes, where the card's model may have its own; else none, and no image is read."""
        model = card.file.model
        return self.images(card).classes if model.classes is not None or model.library is not None else ()

    def shape(self, card: Card) -> tuple[int, int, int] | None:
        """Return the shape of the data's images, where the card's model may have a size of its own."""
        return self.images(card).shape if card.file.model.library is not None else None

    def subject(self, card: Card, sweep: str) -> dict[str, Any]:
        """Describe by content everything that evidence depends on; its hash is the key. Needs no torch."""
        images = self.images(card)
        table = card.file.sweeps.get(sweep)
        perturbation = card.perturbation(sweep)
        source = self.source(card, sweep)
        attacked = card if source is None else source
        return {
            "semantics": SEMANTICS,
            **self.model(card),
            **({} if source is None else {"source": self.model(source)}),
            **(
                {"generator": attack_inputs.generator_key(self, attacked, perturbation)}
                if perturbation.family == "gan"
                else {}
            ),
            "images": images.fingerprint,
            "perturbation": perturbation.model_dump(exclude={"source"}),
            "strengths": [s if isinstance(s, int | float) else s.model_dump() for s in swept_strengths(card, sweep)],
            "unit": table.unit if table else "native",
            "seed": self.seed,
            "device": self.device_kind,
            "dtype": self.dtype,
            # Before, float32 on a GPU had TF32's products in convolutions, which is torch's default.
            **({} if self.device_kind.startswith("cpu") else {"products": precision.MATMUL_MODES[self.dtype]}),
            # What cards without it always had as a key stays their key.
            **({"probabilities": True} if card.file.probabilities else {}),
        }

    def model(self, card: Card) -> dict[str, Any]:
        """Describe a card's model by content."""
        return {
            **card.described,
            "decision": card.file.model.decision.model_dump(),
            "weights": self.weights_hash(card),
        }

    def source(self, card: Card, sweep: str) -> Card | None:
        """Return the card that a sweep's examples are made on, attacked itself at the same strengths on its images."""
        path = card.source(sweep)
        if path is None:
            return None
        if path not in self._sources:
            self._sources[path] = cards.load(path)
        return self._sources[path].attacked_for(card, sweep)

    def weights_hash(self, card: Card) -> str:
        """Hash a card's weights, once a run: what one run says is about one state of them."""
        file = self.weights(card)
        if file not in self._hashes:
            self._signatures[file] = weights.signature(file), time.time_ns()
            self._hashes[file] = weights.content_hash(file)
        return self._hashes[file]

    def factory_sources(self, card: Card) -> dict[str, str]:
        """Return the hashes of the files behind a card's factory, read once a run as its weights are."""
        factory = card.file.model.factory, card.project
        if factory not in self._factories:
            files = models.factory_closure(card).files.values()
            self._factories[factory] = source_files.hash_files(files, card.project)
        return self._factories[factory]

    def key(self, card: Card, sweep: str) -> str:
        """Return the key under which the store keeps a sweep's evidence."""
        return sha256_json(self.subject(card, sweep))

    def evidence(self, card: Card, sweep: str = "clean") -> Evidence:
        """Return the evidence of one of a card's sweeps: from the store if it is believed, else swept now."""
        if sweep != "clean" and sweep not in card.file.sweeps:
            known = ", ".join(["clean", *card.file.sweeps])
            raise SweepError(f"{card.name} has no sweep {sweep!r}; its card has {known}")
        subject = self.subject(card, sweep)
        key = sha256_json(subject)
        if key not in self._evidence:
            with self.once(f"evidence-{key}"):
                self._evidence[key] = self.stored(card, key) or self._made(card, sweep, subject, key)
            for note in self._evidence[key].provenance.get("model", []):
                self.notice(f"{card.name}: {note}")
        wanted = tuple(strengths.name(s) for s in card.file.strengths_of(sweep))
        if (key, wanted) not in self._compared:
            beside = self._beside(card, sweep, self._evidence[key], wanted, self.evidence)
            assert beside is not None
            self._compared[key, wanted] = beside
        return self._compared[key, wanted]

    def kept(self, card: Card, sweep: str, key: str) -> Evidence | None:
        """Return evidence that this run has made or believed, by its key; never make any."""
        evidence = self._evidence.get(key) or self.store.evidence(key, card.project)[0]
        wanted = tuple(strengths.name(s) for s in card.file.strengths_of(sweep))

        def get(of: Card, name: str) -> Evidence | None:
            return self.kept(of, name, self.key(of, name))

        return None if evidence is None else self._beside(card, sweep, evidence, wanted, get)

    def _beside(
        self,
        card: Card,
        sweep: str,
        evidence: Evidence,
        wanted: tuple[str, ...],
        get: Callable[[Card, str], Evidence | None],
    ) -> Evidence | None:
        """Return evidence of the wanted strengths, with what it is compared with beside it."""
        if sweep == "clean":
            return evidence
        clean, source = get(card, "clean"), self.source(card, sweep)
        attacked = None if source is None else get(source, sweep)
        if clean is None or (source is not None and attacked is None):
            return None
        complete = evidence if evidence.strengths == wanted else evidence.with_clean(clean, wanted)
        return replace(complete, clean=clean, source=attacked)

    def stored(self, card: Card, key: str) -> Evidence | None:
        """Return evidence that the store has and that is believed; a notice says why what is there is not."""
        evidence, reason = self.store.evidence(key, card.project)
        if reason:
            self.notice(f"{reason}; swept again")
        return evidence

    def _made(self, card: Card, sweep: str, subject: dict[str, Any], key: str) -> Evidence:
        label = f"{card.name}:{sweep}"
        if sweep != "clean":
            self.evidence(card)  # what every sweep is compared with, and where doubts are looked for
        if (source := self.source(card, sweep)) is not None:
            self.evidence(source, sweep)
        with self.store.alone(f"evidence-{key}", f"sweeping {label}"):
            before = len(self.notices)
            if (evidence := self.stored(card, key)) is not None:
                return evidence  # somebody else made it while we waited
            del self.notices[before:]  # the reason was said before the lock
            return self.swept(card, sweep, subject, key)

    def behind(self, card: Card, sweep: str) -> dict[str, dict[str, str]]:
        """Return the source files and distributions that evidence is only believed with."""
        loaded, more = self.classifier(card), attack_inputs.dependencies(self, card, sweep)
        return {
            "sources": {**loaded.dependencies, **more.sources},
            "distributions": {**loaded.distributions, **more.distributions, **self.images(card).distributions},
        }

    @contextmanager
    def listening(self, card: Card, sweep: str = "clean") -> Iterator[None]:
        """Hear what the code of a model, and of the one that examples are made on, reads while it runs."""
        source = self.source(card, sweep)
        other = nullcontext() if source is None else self.classifier(source).reads.recording()
        with self.classifier(card).reads.recording(), other:
            yield

    def refuse_changed(self, card: Card, sweep: str, behind: Mapping[str, Mapping[str, str]]) -> None:
        """Raise ModelError where weights, or files behind the models of a sweep, changed while it ran."""
        from robustness.classifiers import build

        build.check_unchanged(behind["sources"], card.project)
        self._refuse_other_pixels(card)
        for each in (card, self.source(card, sweep)):
            if each is not None:
                self._refuse_other_weights(each)

    def _refuse_other_pixels(self, card: Card) -> None:
        """Raise DataError where the file that images are mapped from has been written since they were looked at."""
        images = self.images(card)
        file = images.mapped_from
        if file not in self._mapped:  # in memory, or pictures that are each held to their own sum when read
            return
        signature, taken = self._mapped[file]
        same = file_stat(file) == signature and is_settled(signature, taken)
        if not same and replace(images).fingerprint != images.fingerprint:
            raise DataError(f"{images.name}: {file} changed while this run read it; {AGAIN}")

    def swept(self, card: Card, sweep: str, subject: dict[str, Any], key: str) -> Evidence:
        """Sweep, going on from what is finished, and keep the evidence. For the one who makes it `alone`."""
        from robustness.sweep.runner import run_sweep as run

        loaded, label = self.classifier(card), f"{card.name}:{sweep}"
        table = card.file.sweeps.get(sweep)
        made = attack_inputs.attack_inputs(self, card, sweep)
        kept = StoredChunks(self.store, key, card.project, behind=lambda: self.behind(card, sweep), notice=self.notice)
        with self.progress(f"sweeping {label}") as progress, self.listening(card, sweep):
            evidence = run(
                loaded.module,
                self.images(card),
                card.perturbation(sweep),
                swept_strengths(card, sweep),
                unit=table.unit if table else "native",
                seed=self.seed,
                device=self.sweeps_on,
                threads=self.threads,
                decision=card.file.model.decision,
                probabilities=card.file.probabilities,
                progress=progress,
                chunk_cache=kept,
                device_kind=self.kind,
                dtype=self.dtype,
                **made.given,
            )
        if kept_state := evidence.provenance.get("keeps_state"):
            self.notice(f"{card.name} keeps state between calls: {kept_state}; it is swept in one thread, in order")
        if (asked := evidence.provenance.get("out_of_memory_at")) is not None:
            size = evidence.provenance["batch_size"]
            self.notice(
                f"memory ran out sweeping {label} in batches of {asked} images; it was swept in batches of {size}"
            )
        behind = self.behind(card, sweep)
        self.refuse_changed(card, sweep, behind)
        found = {
            "key": key, "label": label, "subject": subject, "run": self.store.run, "model": loaded.notes, **behind,
        }  # fmt: skip
        evidence = replace(evidence, provenance={**evidence.provenance, **found})
        try:
            self.store.write(self.store.path("evidence", key), evidence.to_bytes())
            kept.remove()
        except StoreError as error:
            self.notice(f"evidence of {label} was not kept: {error}")
        return evidence

    @contextmanager
    def once(self, key: str) -> Iterator[None]:
        """Do something that is not tried again in this run: where it failed, it fails at once with the same error."""
        if key in self._failures:
            raise self._failures[key].with_traceback(None)
        try:
            yield
        except Exception as error:
            self._failures[key] = error
            raise

    def give_up(self, key: str, reason: str) -> None:
        """Take note that evidence could not be made by others: in this run nobody tries again."""
        self._failures[f"evidence-{key}"] = SweepError(reason)

    def notice(self, message: str) -> None:
        """Note what a reader of the run must know, once."""
        if message not in self.notices:
            self.notices.append(message)


def swept_strengths(card: Card, sweep: str) -> list[Strength]:
    """Return a sweep's strengths without 0, which is the clean entry's that all sweeps share; 0 dB is another thing."""
    table = card.file.sweeps.get(sweep)
    if table is None or table.unit in strengths.RATIOS:
        return list(card.file.strengths_of(sweep))
    return [strength for strength in table.strengths if strength != 0] or [0.0]


def fresh_harness(harness: Workspace) -> Workspace:
    """Return a harness with the same settings that holds nothing: forty models need not lie in memory at once."""
    return Workspace(
        harness.store, harness.data_root, harness.device, harness.seed, harness.threads, dtype=harness.dtype
    )
