"""The second threshold of the filter: the one that gives 1 % false alarms on clean validation images."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from reports.label_2n.protocol import FALSE_ALARMS
from robustness.cards import Card
from robustness.data.images import Images
from robustness.data.splits import held_out
from robustness.decisions import Filtering
from robustness.metrics.evidence import Evidence
from robustness.workspace.workspace import Workspace


def threshold(probabilities: npt.ArrayLike, share: float = FALSE_ALARMS) -> float:
    """
    Return the smallest attack probability above which at most a share of the images lies.

    >>> threshold([0.1, 0.4, 0.2, 0.3], share=0.25)
    0.3
    >>> threshold([0.1, 0.4, 0.2, 0.3], share=0.0)
    0.4
    """
    rising = np.sort(np.asarray(probabilities, float))
    return float(rising[len(rising) - 1 - math.floor(share * len(rising) + 1e-9)])


def validation(harness: Workspace, card: Card) -> Images:
    """Return the images of the card's training part on which no training of its run was fitted, all of them clean."""
    from models.loop import Plan

    images, recipe = harness.images(card, "train"), card.file.recipe
    assert recipe is not None
    # All recipes of a run hold out the same share with the same seed; a joined model has no training of its own.
    share = recipe.arguments.get("held_out", Plan.held_out)
    _, rows = held_out(images.labels, images.groups, share, recipe.seed)
    return images.select(rows, f"held-out of {images.name}")


def measured(harness: Workspace, card: Card, batch_size: int = 500) -> float:
    """Return the threshold of a card's model at which it discards 1 % of its clean validation images."""
    import torch

    images, decision, found = validation(harness, card), card.file.model.decision, []
    assert isinstance(decision, Filtering)
    module = harness.classifier(card).module
    device = next(module.parameters()).device
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            logits = module(torch.from_numpy(images.batch(start, start + batch_size)).to(device))
            found.append(-torch.expm1(decision.log_passed(logits)).cpu().numpy())
    return threshold(np.concatenate(found))


def at(evidence: Evidence, value: float) -> Evidence:
    """Return evidence as if the decision's threshold were another: nothing else of a sweep depends on it."""
    decision = {**evidence.provenance["decision"], "threshold": value}
    clean = None if evidence.clean is None else at(evidence.clean, value)
    return replace(evidence, provenance={**evidence.provenance, "decision": decision}, clean=clean)
