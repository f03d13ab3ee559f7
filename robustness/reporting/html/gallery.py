"""The gallery's pictures: images of the sweeps, recomputed bit by bit and added to the report."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np

from robustness.cards import Card
from robustness.errors import StoreError
from robustness.metrics.evidence import Evidence
from robustness.reporting.report import RunReport
from robustness.reporting.report_types import encodable
from robustness.reporting.sweep_report import GalleryEntry, Pictures, SweepReport
from robustness.workspace.factory_weights import factory_hash
from robustness.workspace.models import recipe_hash
from robustness.workspace.workspace import Workspace

ROOM = 9 * 2**20
"""Maximum bytes of a report's pictures, which keeps the report below 15 MB."""
SIDE = 128
"""Maximum pixels per side; larger images are subsampled, which leaves noise unchanged."""
EXACT = 64
"""Maximum pixels per side of a lossless picture; larger ones are JPEG."""
MAGNIFIED = (100, 50, 20, 10, 5, 2)


def add_gallery(report: RunReport, workspace: Workspace, chosen: Sequence[Card]) -> None:
    """
    Add pictures to every entry of the report's galleries that has none, or a notice with the reason.

    Needs the cards' models and data, and valid evidence: nothing is swept or trained for a picture. A failure in one
    sweep, or Ctrl-C, does not affect the others or the report.
    """
    known, left = {card.name: card for card in chosen}, ROOM
    missing = [
        (model.name, sweep, entries)
        for model in report.models
        for sweep in model.sweeps
        if (entries := [entry for entry in sweep.gallery if not entry.pictures])
    ]
    with workspace.progress("computing the pictures of the report") as progress:
        for done, (name, sweep, entries) in enumerate(missing):
            at = f"no pictures of {name} under {sweep.name}"
            if left <= 0:
                report.notices.append(f"{at}, nor of the following: the pictures before fill {ROOM >> 20} MiB")
                return
            try:
                left -= _render_pictures(entries, workspace, known.get(name), sweep)
            except KeyboardInterrupt:
                report.notices.append(f"{at}, nor of the following: interrupted")
                return
            except Exception as error:  # a model's own code may raise anything
                report.notices.append(f"{at}: {encodable(str(error)) or type(error).__name__}")
            if progress is not None:
                progress(done + 1, len(missing))


def verified_evidence(workspace: Workspace, card: Card | None, sweep: SweepReport) -> Evidence:
    """Return a sweep's evidence as the report names it; StoreError if the store has it no longer."""
    if card is None:
        raise StoreError("its card is not among the given ones; add it with --card")
    reference, name = sweep.evidence, sweep.name
    if reference is None or reference.key is None:
        raise StoreError("its evidence was not stored")
    source = workspace.source(card, name) if name in card.file.sweeps else None
    if name != "clean" and name not in card.file.sweeps:
        raise StoreError(f"its card has no such sweep; its sweeps: {', '.join(card.file.sweeps)}")
    for each in (card, source):
        if each is not None and not _has_weights(workspace, each):
            raise StoreError(_without_weights(each))
    evidence = (
        workspace.cached_evidence(card, name, reference.key) if workspace.key(card, name) == reference.key else None
    )
    if evidence is None or evidence.digest != reference.digest:
        raise StoreError("card, weights, data or code have changed, or its evidence is not in this store")
    return evidence


def _has_weights(workspace: Workspace, card: Card) -> bool:
    if card.weights is not None and card.weights.is_file():
        return True
    if card.file.model.seed is not None or (card.weights is None and card.file.recipe is None):
        return workspace.store.holds(workspace.store.path("weights", factory_hash(card)))
    recipe = card.file.recipe
    return recipe is not None and workspace.store.holds(workspace.store.path("weights", recipe_hash(workspace, card)))


def _without_weights(card: Card) -> str:
    """Return a sentence: a card's weights are missing, and the command that creates them."""
    if card.file.model.seed is not None:
        return f"its random weights are not in this store; run the suites with {card.path} to create them"
    if card.file.recipe is None:
        return f"its weights file is missing: {card.weights or card.file.model.factory}"
    return f"its weights are missing; train them with: robustness train {card.name}"


def _render_pictures(entries: list[GalleryEntry], workspace: Workspace, card: Card | None, sweep: SweepReport) -> int:
    """Render the pictures of one sweep; return their size in bytes."""
    from robustness.workspace.examples import examples

    evidence = verified_evidence(workspace, card, sweep)
    assert card is not None
    at = sorted({evidence.index(entry.strength) for entry in entries})
    recomputed = examples(workspace, card, sweep.name, [entry.image for entry in entries], at)
    size = 0
    for i, entry in enumerate(entries):
        clean, perturbed = recomputed.clean[i], recomputed.perturbed[at.index(evidence.index(entry.strength)), i]
        times = magnification(perturbed - clean)
        grey = np.clip(0.5 + times * (perturbed - clean), 0, 1)
        pictures = [picture(image) for image in (clean, grey, perturbed)]
        entry.pictures = Pictures(clean=pictures[0], perturbation=pictures[1], perturbed=pictures[2], magnified=times)
        size += sum(map(len, pictures))
    return size


def magnification(change: np.ndarray) -> int:
    """
    Choose a perturbation's magnification: as large as possible while nearly all of it fits around grey.

    >>> magnification(np.full((1, 8, 8), 0.04)), magnification(np.full((1, 8, 8), -0.7))
    (10, 1)
    """
    size = float(np.quantile(np.abs(change), 0.99))
    return next((times for times in MAGNIFIED if 0 < size * times <= 0.5), 1)


def picture(image: np.ndarray) -> str:
    """Write an image, (C, H, W) in [0, 1], as a data URI; the mean over channels if there are not 1 or 3."""
    from PIL import Image

    step = -(-max(image.shape[1:]) // SIDE)
    small = image[:, ::step, ::step]
    if len(small) not in (1, 3):
        small = small.mean(0, keepdims=True)
    pixels = (small * 255).round().clip(0, 255).astype(np.uint8)
    rendered = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    stream = io.BytesIO()
    if max(pixels.shape[1:]) <= EXACT:
        rendered.save(stream, "PNG", optimize=True)
        kind = "png"
    else:
        rendered.save(stream, "JPEG", quality=85, subsampling=0)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
