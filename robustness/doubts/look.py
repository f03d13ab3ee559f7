"""Looking for the doubts: a few cheap trials of a model and of the attacks on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from robustness.datasets.images import Images
from robustness.decisions import Argmax, Decision
from robustness.doubts import attacked as attacks_
from robustness.doubts import forward, permuted
from robustness.doubts.planted import CannotPlant
from robustness.doubts.trial import ROOM, Answers, NotLookedFor, Trial, size_of
from robustness.errors import GradientError, RobustnessError
from robustness.modules import undisturbed
from robustness.perturbations import PGD, Perturbation
from robustness.sweep import together
from robustness.sweep.batches import one_thread, out_of_memory

COUNT, LEAST = 100, 16
"""Images that are looked at: as many as take ``ROOM`` as floats, so that large ones take minutes, not hours."""

Look = tuple[tuple[str, ...], Callable[[], Answers]]
"""The names of some doubts, and what looks for all of them."""


def look(
    classifier: nn.Module,
    images: Images,
    *,
    epsilon: float = 0.1,
    attacks: Mapping[str, Perturbation] | None = None,
    decision: Decision | None = None,
    source: nn.Module | None = None,
    source_decision: Decision | None = None,
    count: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    attacked: bool = True,
) -> Answers:
    """
    Look for every doubt on the first ``count`` images (100, of large ones fewer), at budgets up to ``epsilon`` (L∞).

    With ``attacked`` false, for those alone that a few passes show: of the forward pass and of its gradients.

    ``attacks`` are those whose strength is tested on planted examples (default: PGD with 20 steps), ``source`` is
    another model, for transfer. Return plain values by doubt: what was ``seen``, whether it is ``doubted`` (None if
    it could not be looked for), and ``broken``, true, if an error is the reason: no doubt takes another with it.

    >>> import numpy as np
    >>> from robustness.datasets.images import from_arrays
    >>> spots = from_arrays(np.arange(8, dtype=np.uint8).reshape(4, 1, 2) * 30, [0, 1, 0, 1])
    >>> answers = look(nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.Softmax(1)), spots)
    >>> answers["probabilities for logits"]["doubted"]
    True
    """
    spread, count = min(count or COUNT, len(images)), min(count or _affordable(images), len(images))
    tested = dict(attacks or {f"pgd-{2 * attacks_.STEPS}": PGD(steps=2 * attacks_.STEPS, random_start=False)})
    answers: Answers = {}
    with one_thread(), undisturbed(together(classifier, source, None), device) as lent:
        trial = Trial(
            lent["classifier"],
            torch.from_numpy(images.batch(0, count)).to(device),
            torch.from_numpy(images.labels[:count].copy()).to(device),
            decision or Argmax(),
            epsilon,
            seed,
        )
        other = (lent["source"], source_decision or Argmax()) if source is not None else None
        passes: list[Look] = [
            (("non-deterministic forward",), lambda: forward.of_repetition(trial)),
            (("depends on the batch",), lambda: forward.of_the_batch(trial)),
            (("probabilities for logits",), lambda: forward.of_outputs(trial)),
            (
                ("zero gradients", "non-finite gradients", "saturated cross-entropy"),
                lambda: attacks_.of_gradients(trial),
            ),
        ]
        trials: list[Look] = [
            (("noise beats FGSM",), lambda: attacks_.of_one_step(trial)),
            (("PGD weaker than FGSM",), lambda: attacks_.of_many_steps(trial)),
            (("transfer beats white-box",), lambda: attacks_.of_transfer(trial, other)),
            (("loss does not rise",), lambda: attacks_.of_the_loss(trial)),
            (("boundless budget survived",), lambda: attacks_.of_no_bound(trial)),
            (("misses planted examples",), lambda: attacks_.of_planted(trial, tested)),
            (("permuted classes",), lambda: {"permuted classes": permuted.look(trial.predicted, images, spread, seed)}),
        ]
        for names, make in [*passes, *(trials if attacked else [])]:
            answers |= _alone(names, make)
    return answers


def _alone(names: tuple[str, ...], make: Callable[[], Answers]) -> Answers:
    """Return the answers for some doubts; what is raised on the way is an answer, too."""
    try:
        answers = make()
        return {name: answers[name] for name in names}
    except (GradientError, NotLookedFor, CannotPlant) as error:
        return {name: {"seen": f"not looked for: {error}", "doubted": None} for name in names}
    except Exception as error:  # the model's own code may raise anything
        seen = f"could not be looked for: {_sentence(error)}"
        return {name: {"seen": seen, "doubted": None, "broken": True} for name in names}


def _sentence(error: Exception) -> str:
    """Return in one line what was raised."""
    if isinstance(error, RobustnessError):
        return str(error)
    if out_of_memory(error):
        return "memory ran out; take fewer or smaller images"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


def _affordable(images: Images) -> int:
    """Return how many images are looked at if nobody says."""
    return min(COUNT, max(LEAST, ROOM // size_of(images.shape)))
