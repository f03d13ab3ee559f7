"""What was found of a model beside its evidence (contracts, searches, doubts): looked for once, kept by content."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustness.errors import StoreError
from robustness.metrics.evidence import SEMANTICS
from robustness.util import hardware, source_files
from robustness.util.hashing import sha256_json
from robustness.workspace import attack_inputs

if TYPE_CHECKING:
    from torch import nn

    from robustness.cards import Card
    from robustness.data.images import Images
    from robustness.workspace.workspace import Workspace

Found = dict[str, Any]
Make = Callable[["nn.Module", "Images"], Found]


def cached_document(
    harness: Workspace,
    card: Card,
    what: str,
    parameters: Mapping[str, Any],
    make: Make,
    sweeps: Collection[str] | None = None,
) -> Found:
    """
    Return what was found of a card's model on its test images: a document from the store, or made now.

    ``make(classifier, images)`` returns plain values that depend on the model, the images, ``parameters`` and code
    alone. All of that is in the key or checked before a document is believed: the source files of this package, the
    project's files behind the model and behind the sources of ``sweeps`` (all of the card's if not given), and the
    versions of the distributions that these and Hypothesis' strategies use.
    """
    about = {"semantics": SEMANTICS, "what": what, "parameters": parameters, **harness.model(card)}
    about |= {"images": harness.images(card).fingerprint, "device": hardware.device_fingerprint(harness.device)}
    about["code"] = package_hash()
    key, store = sha256_json(about), harness.store
    if key not in harness.found:
        with harness.once(f"findings-{key}"):
            kept, reason = store.findings(key, card.project)
            if kept is None:
                if reason:
                    harness.notice(f"{reason}; looked for again")
                with store.alone(f"findings-{key}", f"looking for {what} of {card.name}"):
                    kept, _ = store.findings(key, card.project)  # somebody else may have been first
                    names = list(card.file.sweeps) if sweeps is None else sweeps
                    kept = kept or _made(harness, card, f"{card.name}:{what}", key, make, names)
        harness.found[key] = kept["result"]
    return harness.found[key]


@cache
def package_hash(folder: Path = Path(__file__).parents[1]) -> str:
    """
    Return the hash of this package's source files, read without importing any.

    What a contract, a search or a doubt finds depends on the perturbation, the sweep and the gradients that it tries:
    evidence has a version of its semantics for them, and these are what holds that version to its word.
    """
    files = {
        file.relative_to(folder).as_posix(): source_files.sha256_file(file) for file in sorted(folder.rglob("*.py"))
    }
    return sha256_json(files)


def _made(harness: Workspace, card: Card, label: str, key: str, make: Make, sweeps: Collection[str]) -> Found:

    from robustness.classifiers.time_limit import call_with_watchdog

    loaded = harness.classifier(card)
    with loaded.reads.recording():
        result = call_with_watchdog(lambda: make(loaded.module, harness.images(card)))
    files, versions = (
        loaded.dependencies,
        {**loaded.distributions, **source_files.distribution_versions(["hypothesis"])},
    )
    for each in (attack_inputs.dependencies(harness, card, sweep) for sweep in sweeps):
        files |= each.sources
        versions |= each.distributions
    behind = {"sources": files, "distributions": versions}
    harness.refuse_changed(card, "clean", behind)
    found = {"key": key, "label": label, **behind, "result": result}
    try:
        harness.store.write_findings(key, found)
    except StoreError as error:
        harness.notice(f"{label} was not kept: {error}")
    return found
