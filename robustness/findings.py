"""What was found of a model beside its evidence (contracts, searches, doubts): looked for once, kept by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustness import hardware, sources
from robustness.errors import StoreError
from robustness.evidence import SEMANTICS
from robustness.store import canonical

if TYPE_CHECKING:
    from torch import nn

    from robustness.cards import Card
    from robustness.datasets.images import Images
    from robustness.harness import Harness

Found = dict[str, Any]
Make = Callable[["nn.Module", "Images"], Found]


def findings(harness: Harness, card: Card, what: str, parameters: Mapping[str, Any], make: Make) -> Found:
    """
    Give what is found of a card's model on its test images: a document from the store, or made now.

    ``make(classifier, images)`` gives plain values that depend on the model, the images and ``parameters`` alone,
    and on the code of the module of `robustness.properties`, or of the package, that is called ``what``.
    """
    about = {"semantics": SEMANTICS, "what": what, "parameters": parameters, **harness.model(card)}
    about |= {"images": harness.images(card).fingerprint, "device": hardware.device_kind(harness.device)}
    here = Path(__file__).parent
    code = [
        file for file in (here / "properties" / f"{what}.py", *sorted((here / what).glob("*.py"))) if file.is_file()
    ]
    if code:
        about["code"] = {file.name: sources.file_hash(file) for file in code}
    key, store = hashlib.sha256(canonical(about)).hexdigest(), harness.store
    if key not in harness.found:
        with harness.once(f"findings-{key}"):
            kept, reason = store.findings(key, card.project)
            if kept is None:
                if reason:
                    harness.notice(f"{reason}; looked for again")
                with store.alone(f"findings-{key}", f"looking for {what} of {card.name}"):
                    kept, _ = store.findings(key, card.project)  # somebody else may have been first
                    kept = kept or _made(harness, card, f"{card.name}:{what}", key, make)
        harness.found[key] = kept["result"]
    return harness.found[key]


def _made(harness: Harness, card: Card, label: str, key: str, make: Make) -> Found:
    loaded = harness.classifier(card)
    found = {
        "key": key,
        "label": label,
        "sources": loaded.sources,
        "distributions": loaded.distributions,
        "result": make(loaded.module, harness.images(card)),
    }
    try:
        harness.store.write_findings(key, found)
    except StoreError as error:
        harness.notice(f"{label} was not kept: {error}")
    return found
