"""`robustness verify`: recompute the verdict of an in-toto statement from files and stored evidence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from robustness import claims
from robustness.cards import load as load_card
from robustness.errors import RobustnessError
from robustness.gate.decide import decide
from robustness.metrics.evidence import Evidence
from robustness.reporting import attestation
from robustness.util import source_files
from robustness.util.text import pluralize
from robustness.workspace.workspace import Workspace


def verify(path: Path, workspace: Workspace, project: Path) -> tuple[list[str], int]:
    """
    Recompute a statement's verdict.

    Args:
        path: The statement, as `--robustness-report verdict.intoto.json` wrote it.
        workspace: A workspace whose store has the evidence.
        project: The folder that the statement's files are relative to.

    Returns:
        Lines to print and the exit code: 0 if every file has its hash, every test ends as the statement says, and the
        result is PASSED; else 1.

    Raises:
        RobustnessError: If the file is no such statement.
    """
    whole = _read(path)
    predicate = whole["predicate"]
    items = [*whole["subject"], *predicate["configuration"]]
    problems = [*_changed(items, project)]
    recomputed: dict[str, str] = {}
    for name in dict.fromkeys(item["annotations"]["model"] for item in items):
        mine = [item for item in items if item["annotations"]["model"] == name]
        recomputed |= _tests(mine, workspace, project, problems)
    recorded = {test: end for end in ("passed", "warned", "failed") for test in predicate[f"{end}Tests"]}
    for test, end in recorded.items():
        again = recomputed.get(test, "not recomputed")
        if end != "warned" and again != end:
            problems.append(f"{test}: recorded as {end}, {again} by its evidence")
    result = "FAILED" if "failed" in recorded.values() else "PASSED"
    if predicate["result"] == "PASSED" and (result == "FAILED" or "warned" in recorded.values()):
        problems.append(f"the result is {predicate['result']}, but not every test passed")
    if problems:
        return [f"not verified: {path}", *(f"  {problem}" for problem in problems)], 1
    return [
        f"verified: {predicate['result']}; {pluralize(len(recorded), 'test')} judged again from stored evidence"
    ], int(predicate["result"] != "PASSED")


def _read(path: Path) -> dict[str, Any]:
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        kinds = whole["_type"], whole["predicateType"]
        _ = whole["predicate"]["result"], [item["annotations"]["kind"] for item in whole["predicate"]["configuration"]]
    except (ValueError, KeyError, TypeError) as error:
        raise RobustnessError(
            f"{path} is no in-toto statement of a run ({type(error).__name__}: {error}); write one with "
            f"--robustness-report verdict{attestation.SUFFIX}"
        ) from error
    if kinds != (attestation.STATEMENT, attestation.PREDICATE):
        raise RobustnessError(f"{path} has the types {kinds}, not {attestation.STATEMENT} and {attestation.PREDICATE}")
    return dict(whole)


def _changed(items: list[dict[str, Any]], project: Path) -> Iterator[str]:
    """Return a sentence for each file that is missing or has another hash."""
    for item in items:
        if item["annotations"]["kind"] in ("evidence", "images"):
            continue
        file = project / item["name"]
        if not file.is_file():
            yield f"{item['name']} is missing"
        elif source_files.sha256_file(file) != item["digest"]["sha256"]:
            yield f"{item['name']} has another SHA-256 than the statement"


def _tests(items: list[dict[str, Any]], workspace: Workspace, project: Path, problems: list[str]) -> dict[str, str]:
    """Judge the claims and the gate of one model again; return whether each "passed" or "failed"."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        kinds.setdefault(item["annotations"]["kind"], []).append(item)
    card = load_card(project / kinds["card"][0]["name"])
    weights = kinds["weights"][0]
    if "candidate" in weights["annotations"]:
        card = card.override(weights=project / weights["name"])
    swept: dict[str, Evidence] = {}
    for item in kinds.get("evidence", []):
        about = item["annotations"]
        evidence = workspace.cached_evidence(card, about["sweep"], about["key"])
        if evidence is None:
            problems.append(f"the evidence {about['key']} of {item['name']} is not in the store")
        elif evidence.digest != item["digest"]["sha256"]:
            problems.append(f"the evidence {about['key']} of {item['name']} has other decisions than the statement")
        else:
            swept[about["sweep"]] = evidence
            problems += _other_images(evidence, kinds.get("images", []))
    judged: dict[str, str] = {
        claim.id: claims.judge(claim, swept[claim.sweep]).outcome for claim in card.claims() if claim.sweep in swept
    }
    if card.file.gate is not None and set(card.gated_sweeps) <= set(swept):
        judged[f"{card.name}:gate"] = decide(card, _lookup(swept)).outcome
    return {test: "passed" if outcome == "passed" else "failed" for test, outcome in judged.items()}


def _lookup(swept: Mapping[str, Evidence]) -> Any:
    clean = swept.get("clean")
    return lambda name: swept[name] if name == "clean" or clean is None else replace(swept[name], clean=clean)


def _other_images(evidence: Evidence, images: list[dict[str, Any]]) -> Iterator[str]:
    fingerprint = evidence.provenance.get("images", {}).get("fingerprint")
    if images and fingerprint != images[0]["digest"]["sha256"]:
        yield f"the evidence {evidence.provenance.get('key')} is of other images than the statement"
