"""Trainings on a cluster of Ray, a task each; checkpoints and logs come back while they run, to go on elsewhere."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from robustness.cards import Card
from robustness.data.images import Images
from robustness.engines import EngineSpec, Trainings, cluster
from robustness.engines.packaging import ModelPackage, laid_out, pack_model, unpack_model, untrained
from robustness.errors import EngineError, RobustnessError, StoreError
from robustness.mutations import training_data as damage
from robustness.workspace import models as trained
from robustness.workspace import recipes
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

GLANCE = 0.5
"""Seconds between two looks at how far trainings are, and between two words of one about it."""
AGAIN = 3
"""How often a training is begun again where its worker or its node died."""
KEPT = "what was finished, and the last checkpoint of the others, is kept, and the same command goes on from there"

Tell = Callable[..., None]


@dataclass(frozen=True)
class Training:
    """One training as a worker is told of it: its model, what that needs, and what its images are shipped as."""

    model: ModelPackage
    needs: Mapping[str, ModelPackage]
    images: str
    key: str
    device: str
    about: Mapping[str, str]


class TrainingResult(NamedTuple):
    """What came of a training."""

    content: bytes
    notices: list[str]
    error: str


def drive(job: Trainings, tell: Tell) -> None:
    """Train what a job wants on a cluster; the process that calls this is Ray's driver, and may be ended by Ray."""
    with cluster.connected(job.engine):
        import ray

        device = cluster.device_of(job.device, ray.cluster_resources())
        cluster.kind_of(job.engine, device)  # refuses nodes that are unlike
        harness = Workspace(Store(job.store, job.run, lambda text: tell("say", text)), job.data_root)
        try:
            _Cluster(harness, job.engine, device, tell).train(job.cards)
        finally:
            for notice in harness.notices:
                tell("notice", notice)


class _Cluster:
    """Trains cards side by side on workers of a cluster, and keeps what comes of each."""

    def __init__(self, harness: Workspace, engine: EngineSpec, device: str, tell: Tell) -> None:
        self._harness, self._engine, self._device, self._tell = harness, engine, device, tell
        self._shipped: dict[str, Any] = {}

    def train(self, cards: Any) -> None:
        """Train each, unless the store has it by now; the first that fails ends all."""
        import ray

        by_key = {trained.recipe_hash(self._harness, card): card for card in cards}
        with ExitStack() as locks:
            due = {}
            for key in sorted(by_key):  # in one order everywhere: of two drivers none waits for one that waits for it
                lock, card = locks.enter_context(ExitStack()), by_key[key]
                lock.enter_context(self._harness.store.exclusive(f"weights-{key}", f"training {card.name}"))
                if trained.verify_or_notice(self._harness, card, self._harness.store.path("weights", key), key):
                    lock.close()
                else:
                    due[key] = lock
            if not due:
                return
            desk = _desk(self._harness.store.root, list(due))
            pending = {self._begun(by_key[key], key, desk): key for key in due}
            try:
                while pending:
                    done, _ = ray.wait(list(pending), timeout=GLANCE)
                    self._tell("progress", (ray.get(desk.percent.remote()), 100))
                    for reference in done:
                        key = pending.pop(reference)
                        self._finish(by_key[key], key, reference)
                        due[key].close()
            finally:
                for reference in pending:
                    ray.cancel(reference, force=True)

    def _begun(self, card: Card, key: str, desk: Any) -> Any:
        import ray

        assert card.file.recipe is not None
        training = self._training(card, key)
        most = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        # What a task is given in a list is not fetched before it begins: it asks for what it has not got yet.
        models = (training.model, *training.needs.values())
        names = {training.images, *(name for each in models for _, name in each.files)}
        return (
            ray.remote(_taught)
            .options(
                num_cpus=min(card.file.recipe.threads, most),
                num_gpus=cluster.gpus_of(self._engine, self._device),
                max_retries=AGAIN,
                retry_exceptions=False,
            )
            .remote(training, {name: self._shipped[name] for name in names}, desk)
        )

    def _training(self, card: Card, key: str) -> Training:
        harness = self._harness
        images = damage.mutate_training_data(harness.images(card, "train"), card.damage)
        self._ship(images.fingerprint, lambda: plain(images))
        model, files = untrained(card, images.classes)
        needs = {}
        for name, other in trained.needed(card).items():
            needs[name], more = pack_model(
                other, harness.weights(other), harness.classifier(other), harness.classes(other)
            )
            files |= more
        for name, path in files.items():
            self._ship(name, path.read_bytes)
        return Training(
            model, needs, images.fingerprint, key, self._device, trained.weights_metadata(card, key, images)
        )

    def _ship(self, name: str, make: Callable[[], Any]) -> None:
        import ray

        if name not in self._shipped:
            self._shipped[name] = ray.put(make())

    def _finish(self, card: Card, key: str, reference: Any) -> None:
        """Put the weights that a training gave in the store; EngineError where it gave none."""
        import ray

        which = trained.training_label(card)
        try:
            told: TrainingResult = ray.get(reference)
        except Exception as error:  # Ray's own kinds; what the user's code raises is told
            raise EngineError(f"{which}: Ray ended it ({cluster.in_a_line(error)}); {KEPT}") from error
        for notice in told.notices:
            self._harness.notice(notice)
        if told.error:
            raise EngineError(f"{which}: {told.error}; {KEPT}")
        self._harness.store.write(self._harness.store.path("weights", key), told.content)
        self._harness.store.remove(self._harness.store.checkpoint(key))


def plain(images: Images) -> Images:
    """Return images that hold their own pixels and nothing else's: no file of this machine, no rows of a larger set."""
    pixels = images.stored(0, len(images)).transpose(0, 2, 3, 1)
    return Images(images.name, pixels.copy(), images.labels, images.classes, groups=images.groups)


def _desk(root: Path, keys: list[str]) -> Any:
    """Give an actor on the driver's own machine that keeps checkpoints and logs, and knows how far each training is."""
    import ray

    class Desk:
        """Writes to the store for trainings that are elsewhere."""

        def __init__(self) -> None:
            self._store, self._parts = Store(root), dict.fromkeys(keys, 0.0)

        def percent(self) -> int:
            return int(100 * sum(self._parts.values()) / len(self._parts))

        def report(self, key: str, part: float) -> None:
            self._parts[key] = part

        def read(self, key: str) -> bytes | None:
            path = self._store.checkpoint(key)
            return path.read_bytes() if path.is_file() else None

        def write(self, key: str, kind: str, content: bytes) -> str:
            path = self._store.checkpoint(key) if kind == "pt" else self._store.path("logs", key, kind)
            try:
                self._store.write(path, content)
            except StoreError as error:
                return str(error)
            return ""

    return ray.remote(Desk).options(num_cpus=0, scheduling_strategy=cluster.here()).remote()


# What a worker does


class _Away(Store):
    """A worker's folder: what is written there is written to the driver's store."""

    def __init__(self, folder: Path, key: str, desk: Any) -> None:
        super().__init__(folder)
        self._key, self._desk = key, desk

    def write(self, path: Path, content: bytes) -> None:
        """Send a checkpoint or a log; StoreError where the store does not take it."""
        import ray

        if error := ray.get(self._desk.write.remote(self._key, path.suffix[1:], content)):
            raise StoreError(error)


def _taught(training: Training, shipped: Mapping[str, Any], desk: Any) -> TrainingResult:
    """Train by a recipe, from the last checkpoint on where there is one."""
    import ray

    def get(name: str) -> Any:
        return ray.get(shipped[name])

    with tempfile.TemporaryDirectory(prefix="robustness-") as name:
        folder = Path(name)
        recipe = training.model.card.file.recipe
        assert recipe is not None
        job = recipes.Job(
            recipe.seed,
            folder / "checkpoint.pt", _reporting(training.key, desk), store=_Away(folder, training.key, desk),
            device=training.device, log=folder / "log.csv", key=training.key,
        )  # fmt: skip
        if (kept := ray.get(desk.read.remote(training.key))) is not None:
            (folder / "checkpoint.pt").write_bytes(kept)
        try:
            job.needs = {name: unpack_model(model, get) for name, model in training.needs.items()}
            content = recipes.train(laid_out(training.model, get), get(training.images), job, training.about)
        except RobustnessError as error:
            return TrainingResult(b"", job.notices, str(error))
    return TrainingResult(content, job.notices, "")


def _reporting(key: str, desk: Any) -> Callable[[int, int], None]:
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > GLANCE:
            last = time.monotonic()
            desk.report.remote(key, done / max(total, 1))

    return report
