"""
The verdict of a run as an in-toto statement, which can be signed: what was tested, on what, and how each test ended.

Source: in-toto Attestation Framework, Statement v1 (https://in-toto.io/Statement/v1) with the predicate Test Result
v0.1 (https://in-toto.io/attestation/test-result/v0.1).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from robustness.cards import Card
from robustness.reporting.report import ModelReport, RunReport
from robustness.reporting.report_file import ReportError
from robustness.util import atomic_write, source_files
from robustness.workspace.workspace import Workspace

SUFFIX = ".intoto.json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
RESULTS = {"passed": "PASSED", "failed": "FAILED"}
"""By verdict of a report; every other verdict is WARNED: not everything was tested."""
WARNED = ("skipped", "waived", "inconclusive")


def statement(report: RunReport, workspace: Workspace, cards: Sequence[Card]) -> dict[str, Any]:
    """
    Return the statement of a run.

    Args:
        report: The run's report.
        workspace: The workspace of the run, whose store has the evidence.
        cards: The cards of the run, with its overrides.

    Returns:
        A Statement v1. Its subjects are the files of the weights, by SHA-256 of their bytes. Its configuration names
        card, baseline, source files, test images and evidence, each with a SHA-256; `annotations.kind` says of what.

    Raises:
        ReportError: If a source file has changed since the evidence was computed, or evidence is not in the store.
    """
    by_name = {card.name: card for card in cards}
    subjects, used = [], list[dict[str, Any]]()
    for model in report.models:
        card = by_name[model.name]
        weights = workspace.weights(card)
        subjects.append(_file(card, weights, model.name, "weights", candidate=model.candidate))
        used += [_file(card, card.path, model.name, "card")]
        if card.file.gate is not None:
            files = card.baseline.parent.glob(f"{card.baseline.stem}*")
            used += [_file(card, path, model.name, "baseline") for path in sorted(files)]
        used += _evidence(workspace, card, model)
    ends = dict(_ends(report))
    tests = {
        "passedTests": [name for name, end in ends.items() if end == "passed"],
        "warnedTests": [name for name, end in ends.items() if end in WARNED],
        "failedTests": [name for name, end in ends.items() if end not in ("passed", *WARNED)],
    }
    result = RESULTS.get(report.verdict, "WARNED")
    predicate = {"result": result, "configuration": used, **tests}
    return {"_type": STATEMENT, "subject": subjects, "predicateType": PREDICATE, "predicate": predicate}


def _ends(report: RunReport) -> Iterator[tuple[str, str]]:
    """Return every claim and gate of a run with its outcome."""
    for model in report.models:
        yield from ((claim.id, claim.outcome) for claim in model.claims)
        if model.gate is not None:
            yield f"{model.name}:gate", model.gate.outcome


def _file(card: Card, path: Path, model: str, kind: str, **more: str | None) -> dict[str, Any]:
    """Describe a file of a card's project by the SHA-256 of its bytes."""
    about = {"kind": kind, "model": model} | {key: value for key, value in more.items() if value is not None}
    return {"name": _relative(card, path), "digest": {"sha256": source_files.sha256_file(path)}, "annotations": about}


def _relative(card: Card, path: Path) -> str:
    resolved, project = path.resolve(), card.project.resolve()
    return (resolved.relative_to(project) if resolved.is_relative_to(project) else resolved).as_posix()


def _evidence(workspace: Workspace, card: Card, model: ModelReport) -> Iterator[dict[str, Any]]:
    """Describe the images, the evidence of each sweep, and the source files on which it depends."""
    sources: dict[str, dict[str, Any]] = {}
    for sweep in model.sweeps:
        if sweep.evidence is None or sweep.evidence.key is None:
            continue
        evidence = workspace.cached_evidence(card, sweep.name, sweep.evidence.key)
        if evidence is None:
            raise ReportError(f"the evidence {sweep.evidence.key} of {card.name}:{sweep.name} is not in the store")
        hashes = evidence.provenance.get("sources", {})
        if changed := source_files.changed_files(hashes, card.project):
            raise ReportError(f"{', '.join(changed)} changed after {card.name}:{sweep.name} was swept; run it again")
        for name in (name for name in hashes if not name.endswith("/")):  # names in a folder are part of the evidence
            described = _file(card, card.project / name, card.name, "source")
            sources[described["name"]] = described
        about = {"kind": "evidence", "model": card.name, "sweep": sweep.name, "key": sweep.evidence.key}
        yield {"name": f"{card.name}:{sweep.name}", "digest": {"sha256": evidence.digest}, "annotations": about}
    if model.data.fingerprint is not None:
        about = {"kind": "images", "model": card.name, "of": "pixels, labels and class names", "n": str(model.data.n)}
        yield {"name": model.data.name, "digest": {"sha256": model.data.fingerprint}, "annotations": about}
    yield from sources.values()


def write(report: RunReport, workspace: Workspace, cards: Sequence[Card], path: Path) -> None:
    """Write the statement of a run; ReportError if it cannot be made."""
    text = json.dumps(statement(report, workspace, cards), indent=1, ensure_ascii=False) + "\n"
    atomic_write.replace(path, text.encode())
