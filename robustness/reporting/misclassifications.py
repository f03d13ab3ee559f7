"""Where wrong decisions go, and which images show it: counted from evidence, for the heat maps and the gallery."""

from __future__ import annotations

import numpy as np

from robustness.metrics.confusion import Matrix, confusion_matrix
from robustness.metrics.evidence import OK, Evidence
from robustness.reporting.sweep_report import Attractor, Confusion, GalleryEntry, Prediction
from robustness.util.rng import CHUNK

CLASSES = 20
"""In a heat map; of more, those with the most mistakes, and the others together."""

OTHERS = "other classes"

PICTURED = 4
"""Images of a sweep in the gallery."""


def attractors(evidence: Evidence, row: int) -> list[Attractor]:
    """Return how many wrong predictions each class draws at one strength, the most first; none that draws nothing."""
    wrong = evidence.predictions[row][evidence.predictions[row] != evidence.labels]
    drawn = np.bincount(wrong, minlength=len(evidence.classes))
    order = np.argsort(-drawn, kind="stable")[:CLASSES]
    return [Attractor(label=evidence.classes[c], images=int(drawn[c])) for c in order if drawn[c]]


def confusion(evidence: Evidence) -> Confusion | None:
    """
    Return the confusion matrix at the weakest strength by which half of the whole fall of accuracy has happened.

    There it is most telling: before, little is wrong; after, everything may be. None where no strength has numbers.
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
    """Put the classes with the fewest mistakes together where there are too many to show."""
    if len(classes) <= CLASSES:
        return classes, matrix
    mistakes = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
    kept = np.sort(np.argsort(-mistakes, kind="stable")[: CLASSES - 1])
    group = np.full(len(classes), CLASSES - 1)
    group[kept] = np.arange(CLASSES - 1)
    small = np.zeros((CLASSES, CLASSES), np.int64)
    np.add.at(small, (group[:, None], group[None, :]), matrix)
    return [*(classes[c] for c in kept), OTHERS], small


def gallery(evidence: Evidence) -> list[GalleryEntry]:
    """
    Choose images that the perturbation misleads, each at the weakest strength that does, of several true classes.

    All are of one batch, so that making them again costs one. Where none is misled, it is the first image at the
    last strength. ``pictures`` is null until somebody makes them.
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
    """Return the evidence without a perturbation, where there is any with numbers."""
    return evidence.clean if evidence.clean is not None and evidence.clean.status[0] == OK else None
