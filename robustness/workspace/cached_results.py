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
from robustness.workspace.workspace import Document, Workspace

if TYPE_CHECKING:
    from torch import nn

    from robustness.cards import Card
    from robustness.data.images import Images

Make = Callable[["nn.Module", "Images"], Document]


def cached_document(
    workspace: Workspace,
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
        workspace: The workspace.
        card: The card of the model.
        what: The name of the result, as in "contracts".
        parameters: The values that the result depends on, apart from the model, the images and the code.
        make: Computes the result, plain values, from the classifier and the images.
        sweeps: The sweeps that `make` tries, whose attack sources the result depends on; None for all of the card.
    """
    fields = {"semantics": SEMANTICS, "what": what, "parameters": parameters, **workspace.model_key_fields(card)}
    fields |= {"images": workspace.images(card).fingerprint, "device": hardware.device_fingerprint(workspace.device)}
    fields["code"] = package_hash()
    key = sha256_json(fields)
    if key not in workspace.documents:
        swept = list(card.file.sweeps) if sweeps is None else sweeps
        document = workspace.get_or_make(
            "findings",
            key,
            lambda: _make_document(workspace, card, f"{card.name}:{what}", key, make, swept),
            read=lambda: workspace.store.findings(key, card.project),
            label=f"looking for {what} of {card.name}",
            again="looked for again",
        )
        workspace.documents[key] = document["result"]
    return workspace.documents[key]


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
    workspace: Workspace, card: Card, label: str, key: str, make: Make, sweeps: Collection[str]
) -> Document:
    """Call `make` and store what it returns. The caller must hold the store's lock."""
    from robustness.classifiers.time_limit import call_with_watchdog

    loaded = workspace.classifier(card)
    with loaded.reads.recording():
        result = call_with_watchdog(lambda: make(loaded.module, workspace.images(card)))
    files = loaded.dependencies
    versions = {**loaded.distributions, **source_files.distribution_versions(["hypothesis"])}
    for inputs in (attack_inputs.dependencies(workspace, workspace.resolve(card, sweep)) for sweep in sweeps):
        files |= inputs.sources
        versions |= inputs.distributions
    dependencies = {"sources": files, "distributions": versions}
    workspace.check_unchanged(files, card)
    document = {"key": key, "label": label, **dependencies, "result": result}
    try:
        workspace.store.write_findings(key, document)
    except StoreError as error:
        workspace.notice(f"{label} was not kept: {error}")
    return document
