"""Quick inspection of a model: its outputs, whether its numbers can be trusted, its speed, and what to fix."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustness import claims
from robustness.cards.doubts import DOUBTS
from robustness.classifiers.modules import restored_afterwards, state_hash
from robustness.classifiers.time_limit import call_with_watchdog
from robustness.data import splits
from robustness.doubts import data, knowledge
from robustness.doubts.checks import run_checks
from robustness.doubts.probe import CheckResults, ModelProbe, NotChecked
from robustness.errors import ModelError
from robustness.metrics.chance_level import lucky_level
from robustness.metrics.evidence import OK
from robustness.metrics.intervals import sample_size_for
from robustness.metrics.metric import Measurement
from robustness.perturbations import Clean
from robustness.sweep.batch import check_logits_dtype, output_remedy
from robustness.sweep.runner import run_sweep

if TYPE_CHECKING:
    from robustness.cards import Card
    from robustness.data.images import Images
    from robustness.workspace.workspace import Workspace

FEW, LEAST, SOME, AT_ONCE = 32, 8, 500, 100
"""Numbers of images: for behaviour, for that of a slow model, for accuracy, and for other ranges."""

SECONDS, PASSES = 10.0, 40
"""Seconds for behaviour and for accuracy, each; passes per image for behaviour."""

NEEDED = ("outputs", "forward pass")
"""The checks on which all others depend."""

KNOWLEDGE = ("no better than chance", "wrong input range", "permuted classes")
"""Doubts that are checked on the images for accuracy, not only on a few."""
DIM, COPIES = "dim images", "tested on training images"
"""Doubts about the images."""


class CheckResult(NamedTuple):
    """One check: whether it is fine (None: not checked), what was observed, and a fix."""

    name: str
    fine: bool | None
    seen: str
    repair: str = ""


def check_model(
    workspace: Workspace, card: Card, margin: float = 0.02, count: int | None = None
) -> tuple[Iterator[str], bool]:
    """
    Inspect a card's model; return lines to show, and whether nothing needs fixing.

    ``margin`` is the margin of error of the accuracy for which a number of images is computed, ``count`` the images
    that accuracy is measured on. RobustnessError if model or data cannot be loaded.
    """
    images, loaded = workspace.images(card), workspace.classifier(card)
    rows, module = [CheckResult("loading", True, note) for note in loaded.notes], loaded.module
    pace = call_with_watchdog(lambda: _pace(workspace, module, _few(images, LEAST)))
    few = _few(images, max(LEAST, min(FEW, int(SECONDS / pace / PASSES))))
    for each in (_behaviour, _doubts):
        try:
            rows += each(workspace, card, module, few)
        except Exception as error:  # the model's own code
            rows.append(_raised(error, images))
        if any(row.name in NEEDED and not row.fine for row in rows):
            return _lines(card, images, rows), False
    some = _few(images, count or max(LEAST, min(SOME, int(SECONDS / pace))))
    rows += _copies(workspace, card, images)
    rows += _accuracy(workspace, card, module, some, len(images), margin, _are_dim(rows))
    return _lines(card, images, rows), all(row.fine is not False for row in rows)


def _raised(error: Exception, images: Images) -> CheckResult:
    """Describe what a forward pass raised; our own errors include a fix already."""
    shape = "(N, {}, {}, {})".format(*images.shape)
    repair = (
        f"the model gets float32 images of shape {shape} in [0, 1]; if it needs others, set channels, layout or "
        "preprocessing in a card's [model]"
    )
    if isinstance(error, ModelError):
        return CheckResult("forward pass", False, str(error))
    return CheckResult("forward pass", False, f"raised {type(error).__name__}: {error}", repair)


def _few(images: Images, count: int) -> Images:
    """Take some images, stratified by class; evenly spaced if there are more classes than images."""
    if count >= len(images):
        return images
    if len(set(images.labels.tolist())) <= count:
        return images.select(splits.some(images.labels, count), images.name)
    return images.select(np.linspace(0, len(images) - 1, count).round().astype(np.int64), images.name)


def _pace(workspace: Workspace, module: nn.Module, images: Images) -> float:
    """Return a model's seconds per image; 0.001 if it raises, which a later check reports."""
    with restored_afterwards(module, workspace.device) as lent, torch.no_grad():
        inputs = torch.from_numpy(images.batch(0, len(images))).to(workspace.device)
        try:
            lent(inputs.clone())  # the first pass is slower
            began = time.perf_counter()
            lent(inputs.clone()).cpu()
        except Exception:  # the model's own code
            return 0.001
    return max(1e-6, (time.perf_counter() - began) / len(images))


def _behaviour(workspace: Workspace, card: Card, module: nn.Module, images: Images) -> list[CheckResult]:
    """Pass images through once: outputs, modes and buffers afterwards."""
    expected = (len(images), card.file.model.decision.outputs(len(images.classes)))
    with restored_afterwards(module, workspace.device) as lent, torch.no_grad():
        inputs = torch.from_numpy(images.batch(0, len(images))).to(workspace.device)
        before = state_hash(lent)
        try:
            logits = lent(inputs.clone())
        except RuntimeError as error:
            check_logits_dtype(lent, inputs, error)
            raise
        modes, state = [type(m).__name__ for m in lent.modules() if m.training], state_hash(lent)
        if not isinstance(logits, Tensor):
            raise ModelError(f"the model must return a tensor of logits, got {type(logits).__name__}")
        finite = bool(logits.isfinite().all())
    dim = data.check_range(inputs.cpu().numpy())[DIM]
    return [
        CheckResult("images", not dim["doubted"], f"{images.shape}, {dim['seen']}", DOUBTS[DIM].repair),
        CheckResult(
            "outputs", tuple(logits.shape) == expected and finite,
            f"shape {tuple(logits.shape)}, {expected} for {len(images.classes)} classes "
            f"({card.file.model.decision.kind}); values from {float(logits.min()):.3g} to {float(logits.max()):.3g}",
            "return one finite logit per image and class"
            + ("" if tuple(logits.shape) == expected else f": {output_remedy(logits, expected[1], images)}"),
        ),
        CheckResult(
            "mode", not modes, f"in training mode after a forward pass: {', '.join(modes[:5]) or 'nothing'}",
            "its forward must not call train()",
        ),
        CheckResult(
            "buffers", before == state, f"{'unchanged' if before == state else 'changed'} by a forward pass",
            "its forward must not update counters or averages in evaluation mode",
        ),
    ]  # fmt: skip


def _doubts(workspace: Workspace, card: Card, module: nn.Module, images: Images) -> list[CheckResult]:
    """Check the doubts that a few passes of a few images show."""
    answers = run_checks(
        module, images, decision=card.file.model.decision, seed=workspace.seed, device=workspace.device, attacked=False
    )
    return [row for row in _rows(answers) if row.name not in (*KNOWLEDGE, DIM)]


def _rows(answers: CheckResults) -> list[CheckResult]:
    """Return a line per doubt, as in the suites."""
    return [
        CheckResult(
            name,
            False if answer.get("broken") else None if answer["doubted"] is None else not answer["doubted"],
            answer["seen"],
            DOUBTS[name].repair if answer["doubted"] else "",
        )
        for name, answer in answers.items()
    ]


def _copies(workspace: Workspace, card: Card, images: Images) -> Iterator[CheckResult]:
    """Return how many of the images are in the training part of the data, if there is one."""
    try:
        (answer,) = data.check_leakage(images, lambda: data.training_part(workspace, card)).values()
    except NotChecked:
        return
    yield CheckResult(COPIES, not answer["doubted"], answer["seen"], DOUBTS[COPIES].repair)


def _are_dim(rows: list[CheckResult]) -> bool:
    return any(row.name == "images" and not row.fine for row in rows)


def _accuracy(
    workspace: Workspace, card: Card, module: nn.Module, images: Images, there: int, margin: float, dim: bool
) -> Iterator[CheckResult]:
    """Measure accuracy and speed on the images; if it is no better than guessing, try other ranges."""
    decision = card.file.model.decision
    evidence = run_sweep(
        module, images, Clean(), [0.0], seed=workspace.seed, device=workspace.device, decision=decision
    )
    if evidence.status[0] != OK:
        yield CheckResult(
            "clean accuracy", False, evidence.status[0], "inspect what its forward returns for these images"
        )
        return
    measured = claims.measure(evidence, "0", "accuracy")
    chance = lucky_level("accuracy", images.labels, images.classes)
    yield CheckResult(
        "clean accuracy",
        measured.value > chance,
        claims.describe(measured) + f"; guessing reaches up to {chance:.3f}",
        "fix the images first" if dim else "see the doubts below, the weights and the normalisation",
    )
    if not dim:  # advice on the model would compensate the images
        yield from _knowledge(workspace, card, module, images, evidence.predictions[0].astype(np.int64))
    few = "; use --images N to measure the accuracy on more images" if len(images) < min(SOME, there) else ""
    yield CheckResult("speed", True, f"{evidence.provenance['images_per_second']:,.0f} images/s, forward{few}")
    wanted = sample_size_for(margin, measured.value)
    yield CheckResult(
        "how many images", True if wanted <= there else None,
        f"accuracy to ± {margin:g} (95 %) needs {wanted:,} images, and there are {there:,}",
        f"with these, the margin of error is ± {_known(measured):.3f}; test on more images, or claim with a wider "
        "margin",
    )  # fmt: skip


def _knowledge(
    workspace: Workspace, card: Card, module: nn.Module, images: Images, predictions: NDArray[np.int64]
) -> list[CheckResult]:
    """Check the doubts about a model's knowledge, on all images for accuracy."""
    answers = knowledge.check_classes(images.labels, predictions, images.classes, workspace.seed)
    some = _few(images, AT_ONCE)
    with restored_afterwards(module, workspace.device) as lent:
        inputs = torch.from_numpy(some.batch(0, len(some))).to(workspace.device)
        labels = torch.from_numpy(some.labels.copy()).to(workspace.device)
        answers |= knowledge.check_input_ranges(
            ModelProbe(lent, inputs, labels, card.file.model.decision, 0.0, workspace.seed)
        )
    return _rows(answers)


def _known(measured: Measurement) -> float:
    low, high = measured.interval
    return (high - low) / 2


def _lines(card: Card, images: Images, rows: list[CheckResult]) -> Iterator[str]:
    mark = {True: "ok  ", False: "FIX ", None: "—   "}
    yield f"{card.name} on {images.name}, {len(images):,} images, {len(images.classes)} classes"
    for row in rows:
        yield f"  {mark[row.fine]}  {row.name}: {row.seen}"
        if row.fine is not True and row.repair:
            yield f"        {row.repair}"
    wrong = sum(row.fine is False for row in rows)
    yield f"  {wrong or 'nothing'} to fix"
