"""Sweeps chunks on a Ray cluster: Ray Data schedules them on actors that hold the models, and retries if one dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from robustness.engines import cluster, worker
from robustness.engines.scheduler import ChunkScheduler, Contents
from robustness.engines.spec import EngineSpec, Job
from robustness.engines.worker import ChunkWorker, Task
from robustness.errors import EngineError, RobustnessError
from robustness.util import hardware
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

BEGUN = 3
"""How often a chunk is started: a crashing chunk would kill further workers, but a killed worker is replaced."""

Tell = Callable[..., None]


def drive(job: Job, tell: Tell) -> None:
    """Run a job on a cluster; the calling process is Ray's driver, and Ray may end it."""
    engine = job.engine
    with cluster.connected(engine):
        import ray

        device = cluster.device_of(job.device, ray.cluster_resources())
        workers = cluster.room_of(engine, device, ray.cluster_resources())
        kind = cluster.kind_of(engine, device)
        tell("kind", kind)
        own = "cpu" if device == "cpu" or not hardware.gpu_count() else device
        workspace = Workspace(
            Store(job.store, job.run, lambda text: tell("say", text)),
            job.data_root, own, job.seed, job.threads, kind=kind, dtype=job.dtype,
        )  # fmt: skip
        filling = ChunkScheduler(
            workspace,
            Cluster(engine, device, workers).execute,
            device=device,
            cores=engine.cores,
            progress=lambda done, total: tell("progress", (done, total)),
        )
        try:
            filling.run(job.wanted)
        finally:
            for notice in workspace.notices:
                tell("notice", notice)
            for failed in filling.failed.items():
                tell("failed", failed)


class Cluster:
    """Executes chunks of tasks on a cluster's actors; shipped objects stay there, by name."""

    def __init__(self, engine: EngineSpec, device: str, workers: int) -> None:
        self._engine, self._device, self._workers = engine, device, workers
        self._shipped: dict[str, Any] = {}

    def execute(
        self, tasks: Mapping[int, Task], units: Sequence[tuple[int, int]], contents: Contents
    ) -> Iterator[Mapping[str, Any]]:
        """Return the result of every chunk, each once and in order."""
        try:
            yield from self._swept(tasks, units, contents).iter_rows()
        except RobustnessError:
            raise
        except Exception as error:  # Ray's own errors; those of the user's code arrive as a row
            raise EngineError(
                f"Ray ended the sweeps ({cluster.in_a_line(error)}); finished chunks are stored; run the same command "
                "again to continue"
            ) from error

    def _swept(self, tasks: Mapping[int, Task], units: Sequence[tuple[int, int]], contents: Contents) -> Any:
        import ray
        from ray.data import ActorPoolStrategy, DataContext, from_items

        for name, make in contents.items():
            if name not in self._shipped:
                self._shipped[name] = ray.put(make())
        context = DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        rows = [{"task": number, "chunk": chunk} for number, chunk in units]
        return from_items(rows, override_num_blocks=len(rows)).map_batches(
            SweepActor,
            batch_size=1,
            compute=ActorPoolStrategy(size=min(self._workers, len(rows))),
            num_cpus=self._engine.cores,
            num_gpus=cluster.gpus_of(self._engine, self._device) or None,
            fn_constructor_args=(tasks, self._shipped, worker.versions(), _begun()),
        )


class SweepActor:
    """The actor in each worker: it holds models, and is called once per chunk."""

    def __init__(
        self, tasks: Mapping[int, Task], shipped: Mapping[str, Any], expected: Mapping[str, str], begun: Any
    ) -> None:
        import ray

        device = next(iter(tasks.values())).device
        if cluster.compared(versions := worker.versions(), device) != cluster.compared(expected, device):
            raise EngineError(f"a node with other versions joined: {versions} instead of {dict(expected)}")
        self._holder, self._begun = ChunkWorker(tasks, lambda name: ray.get(shipped[name])), begun

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Sweep the one chunk of a batch."""
        import ray

        number, chunk = int(batch["task"][0]), int(batch["chunk"][0])
        if (times := ray.get(self._begun.count.remote(number, chunk))) > BEGUN:
            error = f"its worker died {times - 1} times (out of memory? a crash in the model's native code?)"
            answer = {"task": number, "chunk": chunk, "content": b"", "error": error, "full": False}
        else:
            answer = worker.one(self._holder, number, chunk)
        return {name: [value] for name, value in answer.items()}


def _begun() -> Any:
    """Return an actor on the driver's node, which exists as long as the run."""
    import ray

    class Begun:
        """Counts how often each chunk was started."""

        def __init__(self) -> None:
            self._times: dict[tuple[int, int], int] = {}

        def count(self, number: int, chunk: int) -> int:
            self._times[number, chunk] = self._times.get((number, chunk), 0) + 1
            return self._times[number, chunk]

    return ray.remote(Begun).options(num_cpus=0, scheduling_strategy=cluster.here()).remote()
