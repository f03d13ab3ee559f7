"""Looking for the doubts: a few cheap trials of a model and of the attacks on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import nn

from robustness.cards.doubts import DOUBTS
from robustness.classifiers.modules import channels_last, restored_afterwards
from robustness.data.images import Images
from robustness.decisions import Argmax, Decision
from robustness.doubts import attacks as attacks_
from robustness.doubts import data, forward, knowledge, permuted_classes
from robustness.doubts.permuted_classes import Indices
from robustness.doubts.planted import CannotPlant
from robustness.doubts.trial import ROOM, Answers, NotLookedFor, Trial, sentence, size_of
from robustness.errors import GradientError
from robustness.perturbations import Perturbation
from robustness.sweep.batching import single_threaded
from robustness.sweep.runner import module_dict

MANY = 5000
"""Images that pass through a model before it is asked again what it said first."""
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
    predictions: Indices | None = None,
    training: Callable[[], Images] | None = None,
) -> Answers:
    """
    Look for every doubt on the first ``count`` images (100, of large ones fewer), at budgets up to ``epsilon`` (L∞).

    With ``attacked`` false, for those alone that a few passes show: of the forward pass and of its gradients.

    ``attacks`` are those of a card, whose strength is tested on planted examples and against FGSM; ``source`` is
    another model, for transfer, ``predictions`` are the classes that a clean sweep has said of all images, −1 if none;
    ``training`` returns the images that the model was trained on.
    Return plain values by doubt: what was ``seen``, whether it is ``doubted`` (None if
    it could not be looked for), and ``broken``, true, if an error is the reason: no doubt takes another with it.

    >>> import numpy as np
    >>> from robustness.data.images import from_arrays
    >>> spots = from_arrays(np.arange(8, dtype=np.uint8).reshape(4, 1, 2) * 30, [0, 1, 0, 1])
    >>> answers = look(nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.Softmax(1)), spots)
    >>> answers["probabilities for logits"]["doubted"]
    True
    """
    spread, count = min(count or COUNT, len(images)), min(count or _affordable(images), len(images))
    tested = dict(attacks or {})
    with single_threaded(), restored_afterwards(module_dict(classifier, source, None), device) as lent:
        channels_last(lent, lambda: all(_works(module, images, device) for module in lent.values()))
        trial = Trial(
            lent["classifier"],
            torch.from_numpy(images.batch(0, count)).to(device),
            torch.from_numpy(images.labels[:count].copy()).to(device),
            decision or Argmax(),
            epsilon,
            seed,
        )
        other = (lent["source"], source_decision or Argmax()) if source is not None else None

        @cache
        def said() -> tuple[Indices, Indices]:
            """Return labels and predictions: of the sweep if it has all, else of images spread over the set."""
            if predictions is not None and (predictions >= 0).all():
                return images.labels, predictions
            return permuted_classes.sampled(trial.predicted, images, spread)

        answers: Answers = {}
        looks: list[Look] = [
            (("dim images",), lambda: data.of_range(trial.inputs.cpu().numpy())),
            (("non-deterministic forward",), lambda: forward.of_repetition(trial)),
            (("edits its input",), lambda: forward.of_its_input(trial)),
            (("depends on the batch",), lambda: forward.of_the_batch(trial, images)),
            (("probabilities for logits",), lambda: forward.of_outputs(trial)),
            (
                ("no better than chance", "permuted classes"),
                lambda: knowledge.of_classes(*said(), images.classes, seed),
            ),
            (("wrong input range",), lambda: knowledge.of_ranges(trial)),
            (("another output knows more",), lambda: knowledge.of_several(trial)),
            (("jumps within a grey level",), lambda: knowledge.of_a_level(trial)),
            (
                ("zero gradients", "non-finite gradients", "saturated cross-entropy"),
                lambda: attacks_.of_gradients(trial),
            ),
        ]
        trials: list[Look] = [
            (("cross-entropy weaker than margin",), lambda: attacks_.of_losses(trial)),
            (("wrong gradients",), lambda: attacks_.of_differences(trial)),
            (("tested on training images",), lambda: data.of_copies(images, training)),
            (("noise beats FGSM",), lambda: attacks_.of_one_step(trial)),
            (("PGD weaker than FGSM",), lambda: attacks_.of_many_steps(trial)),
            (("transfer beats white-box",), lambda: attacks_.of_transfer(trial, other)),
            (("loss does not rise",), lambda: attacks_.of_the_loss(trial)),
            (("boundless budget survived",), lambda: attacks_.of_no_bound(trial)),
            (("misses planted examples", "weak attack"), lambda: attacks_.of_planted(trial, tested)),
            (("attack weaker than FGSM",), lambda: attacks_.of_own_attacks(trial, tested)),
        ]
        last: list[Look] = [
            (("outputs that are no numbers",), lambda: forward.of_numbers(trial)),
            (("keeps state between calls",), lambda: forward.of_state(trial, predictions, MANY if attacked else 0)),
        ]
        for names, make in looks:
            answers |= _alone(names, make)
        for names, make in trials if attacked else []:
            # What an attack finds of a model that knows nothing says nothing of either.
            answers |= _alone(names, _refuse if answers["no better than chance"]["doubted"] else make)
        for names, make in last:
            answers |= _alone(names, make)
    return {name: answers[name] for name in DOUBTS if name in answers}


def _works(module: nn.Module, images: Images, device: str) -> bool:
    """Return whether a module takes some images without raising; it stays as it was."""
    try:
        with restored_afterwards(module, device) as lent, torch.no_grad():
            lent(torch.from_numpy(images.batch(0, min(2, len(images))).copy()).to(device))
    except Exception:  # the look that runs into it says so
        return False
    return True


def _refuse() -> Answers:
    raise NotLookedFor("the model is no better than chance, which is to be mended first")


def _alone(names: tuple[str, ...], make: Callable[[], Answers]) -> Answers:
    """Return the answers for some doubts; what is raised on the way is an answer, too."""
    try:
        answers = make()
        return {name: answers[name] for name in names}
    except (GradientError, NotLookedFor, CannotPlant) as error:
        return {name: {"seen": f"not looked for: {error}", "doubted": None} for name in names}
    except Exception as error:  # the model's own code may raise anything
        seen = f"could not be looked for: {sentence(error)}"
        return {name: {"seen": seen, "doubted": None, "broken": True} for name in names}


def _affordable(images: Images) -> int:
    """Return how many images are looked at if nobody says."""
    return min(COUNT, max(LEAST, ROOM // size_of(images.shape)))
