"""A Ray cluster: connects to it, and checks its capacity and that its nodes are alike."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from robustness.engines import worker
from robustness.engines.spec import EngineSpec
from robustness.errors import EngineError
from robustness.util import hardware

PATIENCE = 5.0
"""Seconds in which an address must answer."""
ANSWERS = 120.0
"""Seconds in which every node must report its versions."""


@contextmanager
def connected(engine: EngineSpec) -> Iterator[None]:
    """
    Act as Ray's driver: on the cluster at the address, or on a new one of this machine.

    The new cluster listens to this machine only, shows no dashboard, and ends with this process.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics are sent
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    if not engine.address:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # the node's address is 127.0.0.1
    elif engine.address != "auto":
        _refuse_silent(engine.address)
    try:
        import ray
    except ImportError as error:
        raise EngineError(
            f'the engine needs ray, which cannot be imported ({error}); pip install "pytest-robustness[ray]"'
        ) from error
    settings: dict[str, Any] = {"address": engine.address or "local", "log_to_driver": False}
    if not engine.address:
        settings |= {"num_cpus": max(hardware.cpu_count(), engine.cores), "include_dashboard": False}
    try:
        ray.init(**settings)
    except Exception as error:  # many types, some of them built in
        raise EngineError(f"no Ray cluster at {engine.address or 'this machine'}: {in_a_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _refuse_silent(address: str) -> None:
    """Raise EngineError within seconds if nothing listens: Ray would retry for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE):
            pass
    except (OSError, ValueError) as error:
        raise EngineError(
            f"nothing answers at {address} ({error}); use the HOST:PORT that `ray start --head` printed, and check the "
            "cluster with `ray status` on that machine"
        ) from error


def device_of(device: str, has: Mapping[str, float]) -> str:
    """Return the workers' device: cpu, or cuda if the cluster has GPUs."""
    if device.startswith("cuda") and not has.get("GPU"):
        raise EngineError(
            f"`device` = {device!r}: the cluster has no GPU (only {has.get('CPU', 0):g} cores); use cpu or auto, or "
            "add nodes with GPUs (ray start --num-gpus)"
        )
    return "cuda" if device.startswith("cuda") or (device == "auto" and has.get("GPU")) else "cpu"


def gpus_of(engine: EngineSpec, device: str) -> float:
    """Return the fraction of a GPU per worker."""
    return 0.0 if device == "cpu" else 1.0 if engine.gpus is None else engine.gpus


def room_of(engine: EngineSpec, device: str, has: Mapping[str, float]) -> int:
    """Return the number of workers: as many as requested, limited by the cluster's capacity."""
    if device == "cpu" and engine.gpus:
        raise EngineError(f"`engine`: gpus={engine.gpus:g}, but the device is cpu; leave it out")
    room = has.get("CPU", 0) / engine.cores
    if share := gpus_of(engine, device):
        room = min(room, has.get("GPU", 0) / share)
    if room < 1:
        raise EngineError(
            f"no worker fits: each needs {engine.cores} core(s) and {share:g} GPU(s), the cluster has "
            f"{has.get('CPU', 0):g} and {has.get('GPU', 0):g}; request less (`engine`: cores, gpus)"
        )
    return min(engine.workers or math.floor(room), math.floor(room))


def kind_of(engine: EngineSpec, device: str) -> str:
    """Return the device type of all nodes; EngineError lists nodes that differ."""
    here = compared(worker.versions(), device)
    nodes = ((node, compared(versions, device)) for node, versions in _call_on_nodes(engine, device, _versions()))
    others = {
        node: ", ".join(f"{name} {versions.get(name, 'none')} (here {version})" for name, version in here.items()
                        if versions.get(name) != version)
        for node, versions in nodes
    }  # fmt: skip
    if others := {node: what for node, what in others.items() if what}:
        listed = "".join(f"\n  {node}: {what}" for node, what in others.items())
        raise EngineError(f"{len(others)} node(s) have other versions than this process; install the same:{listed}")
    kinds = dict(_call_on_nodes(engine, device, _kind_here, device))
    if len(set(kinds.values())) > 1:
        listed = "".join(f"\n  {node}: {kind}" for node, kind in kinds.items())
        raise EngineError(
            f"evidence must come from one device type, but the nodes have {len(set(kinds.values()))}; keep one type in "
            f"the cluster, or start the other nodes without {'cores' if device == 'cpu' else 'GPUs'}:{listed}"
        )
    return str(next(iter(kinds.values())))


def here() -> Any:
    """Return Ray's resource name for the driver's node, which exists as long as the run."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _kind_here(device: str) -> str:
    return hardware.device_fingerprint(device)


def compared(versions: Mapping[str, str], device: str) -> dict[str, str]:
    """Remove torch's build tag if it may differ: the driver's machine may have no GPU."""
    return {name: v if device == "cpu" else v.partition("+")[0] for name, v in versions.items()}


def _versions() -> Callable[[], dict[str, str]]:
    """Return `worker.versions` pickled by value: a node's own version may differ or be missing."""

    def versions() -> dict[str, str]:
        try:
            from robustness.engines import worker
        except ImportError as error:
            import importlib.metadata

            try:
                other = importlib.metadata.version("pytest-robustness")
            except importlib.metadata.PackageNotFoundError:
                other = f"none ({error})"
            return {"pytest-robustness": other}
        return worker.versions()

    return versions


def _call_on_nodes(engine: EngineSpec, device: str, what: Callable[..., Any], *arguments: Any) -> list[tuple[str, Any]]:
    """Call a function on each node that can have workers, and return the answers."""
    import ray
    from ray.exceptions import GetTimeoutError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    share = gpus_of(engine, device)
    nodes = [
        node for node in ray.nodes() if node["Alive"]
        and node["Resources"].get("CPU", 0) >= engine.cores and node["Resources"].get("GPU", 0) >= share
    ]  # fmt: skip
    remote = ray.remote(what)
    tasks = [
        remote.options(
            num_cpus=0, num_gpus=min(share, 0.01), max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(*arguments)
        for node in nodes
    ]  # fmt: skip
    names = [f"{node['NodeManagerAddress']} ({node['NodeID'][:8]})" for node in nodes]
    try:
        return list(zip(names, ray.get(tasks, timeout=ANSWERS), strict=True))
    except GetTimeoutError as error:
        raise EngineError(f"not every node answered within {ANSWERS:g} s; check with `ray status`") from error
    except Exception as error:
        raise EngineError(f"a node could not report its devices and versions: {in_a_line(error)}") from error


def in_a_line(error: BaseException) -> str:
    """Return an error's message in one line: Ray's contain complete traces."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines[-1] if lines else 'no message')[:300]}"
