"""Counts misclassifications in evidence, for heat maps, and selects images for the gallery."""

from __future__ import annotations

import numpy as np

from robustness.metrics.confusion import Matrix, confusion_matrix
from robustness.metrics.evidence import OK, Evidence
from robustness.reporting.sweep_report import Attractor, Confusion, GalleryEntry, Prediction
from robustness.util.rng import CHUNK

CLASSES = 20
"""Maximum classes in a heat map; if there are more, the rest are shown together."""

OTHERS = "other classes"

PICTURED = 4
"""Maximum images per sweep in the gallery."""


def attractors(evidence: Evidence, row: int) -> list[Attractor]:
    """Return the number of wrong predictions per class at one strength, the most first, without zeros."""
    wrong = evidence.predictions[row][evidence.predictions[row] != evidence.labels]
    drawn = np.bincount(wrong, minlength=len(evidence.classes))
    order = np.argsort(-drawn, kind="stable")[:CLASSES]
    return [Attractor(label=evidence.classes[c], images=int(drawn[c])) for c in order if drawn[c]]


def confusion(evidence: Evidence) -> Confusion | None:
    """
    Return the confusion matrix at the weakest strength with at least half of the total drop in accuracy.

    It is most informative there: below, little is wrong; above, nearly everything may be. None without numbers.
    """
    measured = [i for i, status in enumerate(evidence.status) if status == OK]
    if not measured:
        return None
    right = {i: float((evidence.predictions[i] == evidence.labels).mean()) for i in measured}
    clean = _clean(evidence)
    start = right[measured[0]] if clean is None else float((clean.predictions[0] == clean.labels).mean())
    half = (start + min(right.values())) / 2
    row = next((i for i in measured if right[i] <= half), min(right, key=right.__getitem__))
    matrix = confusion_matrix(evidence.labels, evidence.predictions[row], len(evidence.classes))
    classes, matrix = _gathered(list(evidence.classes), matrix)
    return Confusion(strength=evidence.strengths[row], classes=classes, matrix=matrix.tolist())


def _gathered(classes: list[str], matrix: Matrix) -> tuple[list[str], Matrix]:
    """Combine the classes with the fewest mistakes if there are too many to show."""
    if len(classes) <= CLASSES:
        return classes, matrix
    mistakes = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
    shown = np.sort(np.argsort(-mistakes, kind="stable")[: CLASSES - 1])
    group = np.full(len(classes), CLASSES - 1)
    group[shown] = np.arange(CLASSES - 1)
    small = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(small, (group[:, None], group[None, :]), matrix)
    return [*(classes[c] for c in shown), OTHERS], small


def gallery(evidence: Evidence) -> list[GalleryEntry]:
    """
    Choose images that the perturbation misleads, each at the weakest strength that does, of several true classes.

    All are from one batch, so recomputing them costs one batch. If none is misled, return the first image at the last
    strength. ``pictures`` is null until they are rendered.
    """
    clean, measured = _clean(evidence), [i for i, status in enumerate(evidence.status) if status == OK]
    if clean is None or not measured or not len(evidence):
        return []
    wrong = evidence.predictions[measured] != evidence.labels
    wrong &= clean.predictions[0] == evidence.labels
    misled = np.flatnonzero(wrong.any(0))
    if not misled.size:
        return [_entry(evidence, clean, 0, measured[-1])]
    size = int(evidence.provenance.get("batch_size") or CHUNK)
    batch = misled // CHUNK * CHUNK + misled % CHUNK // size
    candidates = misled[batch == batch[0]]
    first = wrong[:, candidates].argmax(0)
    labels = evidence.labels[candidates]
    again = np.array([int((labels[:i] == label).sum()) for i, label in enumerate(labels)])
    chosen = np.lexsort((candidates, first, again))[:PICTURED]
    return [_entry(evidence, clean, int(candidates[i]), measured[first[i]]) for i in chosen]


def _entry(evidence: Evidence, clean: Evidence, image: int, row: int) -> GalleryEntry:
    return GalleryEntry(
        image=image,
        strength=evidence.strengths[row],
        true=evidence.classes[evidence.labels[image]],
        clean=_prediction(clean, image, 0),
        perturbed=_prediction(evidence, image, row),
        pictures=None,
    )


def _prediction(evidence: Evidence, image: int, row: int) -> Prediction:
    label = evidence.classes[evidence.predictions[row, image]]
    return Prediction(label=label, probability=float(evidence.confidence[row, image]))


def _clean(evidence: Evidence) -> Evidence | None:
    """Return the evidence on clean images, if it has numbers."""
    return evidence.clean if evidence.clean is not None and evidence.clean.status[0] == OK else None
