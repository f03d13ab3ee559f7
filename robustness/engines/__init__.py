"""Where missing evidence is computed: in the process that asks (local), or on a cluster (ray)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from robustness.engines.spec import EngineSpec, FillResult, Job, parse

if TYPE_CHECKING:
    from robustness.cards import Card
    from robustness.workspace.workspace import Workspace

__all__ = ["EngineSpec", "FillResult", "Job", "fill", "parse"]


def fill(harness: Workspace, engine: EngineSpec, wanted: Sequence[tuple[Card, str]], device: str) -> None:
    """
    Have an engine make what is missing of some sweeps, by cards and names, in a harness's store.

    ``device`` is what was asked for: where it is left open, the engine's workers decide. Afterwards the harness's
    evidence is of the kind of device that they have. EngineError where the engine fails; what was finished is kept.
    """
    if engine.name == "local" or not wanted:
        return
    from robustness.engines.subprocess_job import run

    store = harness.store
    job = Job(
        engine, store.root, store.run, harness.data_root, device, wanted, harness.seed, harness.threads, harness.dtype
    )
    with harness.progress(f"sweeping by {engine.name}, images") as show:
        filled = run("robustness.engines.ray_sweeps:drive", job, store.say, show)
    harness.kind = filled.kind
    for notice in filled.notices:
        harness.notice(notice)
    for key, reason in filled.failed.items():
        harness.mark_failed(key, reason)
