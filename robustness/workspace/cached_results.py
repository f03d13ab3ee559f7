"""Results about a model other than evidence (contracts, searches, doubts), cached in the store by content."""

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

Document = dict[str, Any]
Make = Callable[["nn.Module", "Images"], Document]


def cached_document(
    harness: Workspace,
    card: Card,
    what: str,
    parameters: Mapping[str, Any],
    make: Make,
    sweeps: Collection[str] | None = None,
) -> Document:
    """
    Return a result about a card's model on its test images, from the store if it can be trusted, else by `make`.

    Everything that the result depends on is in its key, or is checked before a stored result is trusted: the source
    files of this package, the project's files that the model uses, and the versions of the distributions.

    Args:
        harness: The workspace.
        card: The card of the model.
        what: The name of the result, as in "contracts".
        parameters: The values that the result depends on, apart from the model, the images and the code.
        make: Computes the result, plain values, from the classifier and the images.
        sweeps: The sweeps that `make` tries, whose attack sources the result depends on; None for all of the card.
    """
    fields = {"semantics": SEMANTICS, "what": what, "parameters": parameters, **harness.model_key_fields(card)}
    fields |= {"images": harness.images(card).fingerprint, "device": hardware.device_fingerprint(harness.device)}
    fields["code"] = package_hash()
    key = sha256_json(fields)
    if key not in harness.documents:
        swept = list(card.file.sweeps) if sweeps is None else sweeps
        document = harness.get_or_make(
            "findings",
            key,
            lambda: _make_document(harness, card, f"{card.name}:{what}", key, make, swept),
            read=lambda: harness.store.findings(key, card.project),
            label=f"looking for {what} of {card.name}",
            again="looked for again",
        )
        harness.documents[key] = document["result"]
    return harness.documents[key]


@cache
def package_hash(folder: Path = Path(__file__).parents[1]) -> str:
    """
    Return the hash of this package's source files, without importing any.

    Contracts, searches and doubts check the very code of perturbations, sweeps and gradients. A version number of its
    semantics, as evidence has one, would not be enough for them.
    """
    files = {
        file.relative_to(folder).as_posix(): source_files.sha256_file(file) for file in sorted(folder.rglob("*.py"))
    }
    return sha256_json(files)


def _make_document(
    harness: Workspace, card: Card, label: str, key: str, make: Make, sweeps: Collection[str]
) -> Document:
    """Call `make` and store what it returns. The caller must hold the store's lock."""
    from robustness.classifiers.time_limit import call_with_watchdog

    loaded = harness.classifier(card)
    with loaded.reads.recording():
        result = call_with_watchdog(lambda: make(loaded.module, harness.images(card)))
    files = loaded.dependencies
    versions = {**loaded.distributions, **source_files.distribution_versions(["hypothesis"])}
    for inputs in (attack_inputs.dependencies(harness, card, sweep) for sweep in sweeps):
        files |= inputs.sources
        versions |= inputs.distributions
    dependencies = {"sources": files, "distributions": versions}
    harness.refuse_changed(card, "clean", dependencies)
    document = {"key": key, "label": label, **dependencies, "result": result}
    try:
        harness.store.write_findings(key, document)
    except StoreError as error:
        harness.notice(f"{label} was not kept: {error}")
    return document
