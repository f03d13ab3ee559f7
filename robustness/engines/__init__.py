"""Computes missing evidence: in the calling process (local), or on a cluster (ray)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from robustness.engines.spec import EngineSpec, FillResult, Job, parse

if TYPE_CHECKING:
    from robustness.cards import Card
    from robustness.workspace.workspace import Workspace

__all__ = ["EngineSpec", "FillResult", "Job", "fill", "parse"]


def fill(workspace: Workspace, engine: EngineSpec, wanted: Sequence[tuple[Card, str]], device: str) -> None:
    """
    Let an engine compute missing sweeps, by cards and names, into a workspace's store.

    ``device`` is the requested device; "auto" leaves it to the engine's workers. Afterwards the workspace uses evidence
    of their device type. EngineError if the engine fails; finished chunks are stored.
    """
    if engine.name == "local" or not wanted:
        return
    from robustness.engines.subprocess_job import run

    store = workspace.store
    job = Job(
        engine,
        store.root,
        store.run,
        workspace.data_root,
        device,
        wanted,
        workspace.seed,
        workspace.threads,
        workspace.dtype,
    )
    with workspace.progress(f"sweeping by {engine.name}, images") as show:
        filled = run("robustness.engines.ray_sweeps:drive", job, store.say, show)
    workspace.kind = filled.kind
    for notice in filled.notices:
        workspace.notice(notice)
    for key, reason in filled.failed.items():
        workspace.mark_failed(key, reason)
