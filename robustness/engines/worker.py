"""A worker of an engine: computes one chunk of one sweep at a time, at all strengths, with the models that it holds."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robustness.classifiers import precision
from robustness.data.images import Images
from robustness.decisions import Decision
from robustness.engines.packaging import ModelPackage, unpack_model
from robustness.perturbations import Perturbation
from robustness.perturbations.strength import Strength, Unit
from robustness.sweep.recorder import ChunkResult

if TYPE_CHECKING:
    from torch import nn

HELD = 4
"""Maximum models per worker: sweeps of one model are consecutive, some with a source model."""

Get = Callable[[str], Any]
"""Returns a shipped object by name."""


@dataclass(frozen=True)
class Task:
    """One sweep, or the computation of its directions; its images arrive in chunks."""

    directions: bool
    classifier: ModelPackage
    source: ModelPackage | None
    generator: tuple[str, str] | None
    """The name of a generator's file, and the hash of the model that it was fitted to."""
    perturbation: Perturbation
    strengths: tuple[Strength, ...]
    unit: Unit
    seed: int
    device: str
    batch_size: int
    dtype: str
    threads: int
    decision: Decision
    source_decision: Decision
    probabilities: bool
    images: str
    """Names of the shipped chunks of images; ``title`` is the images' name."""
    title: str
    classes: tuple[str, ...]
    directions_name: str | None
    """Names of the shipped chunks of precomputed directions."""


class ChunkWorker:
    """Sweeps chunks of tasks, and holds the models of the latest ones."""

    def __init__(self, tasks: Mapping[int, Task], get: Get) -> None:
        self._tasks, self._get = tasks, get
        self._models: dict[str, nn.Module] = {}

    def part(self, number: int, chunk: int) -> ChunkResult:
        """Sweep one chunk; the caller handles OutOfMemory and RobustnessError."""
        from robustness.sweep import chunks
        from robustness.sweep.batch import SweepBatches
        from robustness.sweep.runner import module_dict

        task = self._tasks[number]
        precision.check_dtype(task.dtype, task.device)
        pixels, labels = self._get(f"{task.images}:{chunk}")
        images = Images(task.title, pixels, labels, task.classes)
        directions = None if task.directions_name is None else self._get(f"{task.directions_name}:{chunk}")
        cells = SweepBatches(
            images, task.perturbation, task.strengths, task.unit, task.seed, task.device, task.batch_size,
            task.decision, task.source_decision, directions, first=chunk,
        )  # fmt: skip
        source = None if task.source is None else self._model(task.source)
        modules = module_dict(self._model(task.classifier), source, self._generator(task, images))
        modules = precision.in_precision(modules, task.dtype, task.device)
        results: list[ChunkResult] = []
        with precision.matmul_precision(task.dtype, task.device):
            if task.directions:
                chunks.direction_chunks(cells, modules, [0], task.threads, store=results.append)
            else:
                outcomes = chunks.new_recorder(cells, probabilities=task.probabilities)
                chunks.sweep_chunks(cells, modules, outcomes, [0], task.threads, store=results.append)
        (part,) = results
        return part

    def _model(self, shipped: ModelPackage) -> nn.Module:
        if shipped.name not in self._models:
            while len(self._models) >= HELD:
                del self._models[next(iter(self._models))]
            self._models[shipped.name] = unpack_model(shipped, lambda name: bytes(self._get(name)))
        self._models[shipped.name] = model = self._models.pop(shipped.name)  # the last one used comes last
        return model

    def _generator(self, task: Task, images: Images) -> nn.Module | None:
        if task.generator is None:
            return None
        from robustness.workspace import fitting

        name, target = task.generator
        if name not in self._models:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "generator.safetensors"
                path.write_bytes(bytes(self._get(name)))
                self._models[name] = fitting.fitting_module(task.perturbation).load(
                    path, task.perturbation, images, target
                )
        return self._models[name]


def versions() -> dict[str, str]:
    """Return the versions on which numbers depend: they must be equal on all workers of a sweep."""
    import robustness

    digest = hashlib.sha256()
    root = Path(robustness.__file__).parent
    for file in sorted(root.rglob("*.py")):
        if "suites" not in file.parts:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    installed = {"python": platform.python_version(), "pytest-robustness": f"{robustness.__version__}"}
    installed["its code"] = digest.hexdigest()[:12]
    return installed | {name: importlib.metadata.version(name) for name in ("torch", "numpy")}


def one(holder: ChunkWorker, number: int, chunk: int) -> dict[str, Any]:
    """Sweep one chunk and return its result: the part, an error, or that memory ran out."""
    from robustness.errors import RobustnessError
    from robustness.sweep.batching import out_of_memory

    answer: dict[str, Any] = {"task": number, "chunk": chunk, "content": b"", "error": "", "full": False}
    try:
        return answer | {"content": holder.part(number, chunk).to_bytes({})}
    except RobustnessError as error:
        return answer | {"error": str(error)}
    except Exception as error:  # the user's code, and what runs it
        if out_of_memory(error):
            return answer | {"full": True}
        return answer | {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"}


def blocks(images: Images, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one chunk of images for shipping: stored pixels, channels last, and labels."""
    from robustness.util.rng import CHUNK

    start, stop = chunk * CHUNK, min((chunk + 1) * CHUNK, len(images))
    stored = images.stored(start, stop).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(stored), np.ascontiguousarray(images.labels[start:stop])
