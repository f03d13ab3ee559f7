"""Run the checks behind the doubts: cheap tests of a model and of the attacks on it."""

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
from robustness.doubts.probe import BATCH_BYTES, CheckResults, ModelProbe, NotChecked, error_message, float_bytes
from robustness.errors import GradientError
from robustness.perturbations import Perturbation
from robustness.sweep.batching import single_threaded
from robustness.sweep.runner import module_dict

# Images that pass through a model before its first outputs are compared again.
STATE_IMAGES = 5000
# Bounds on the number of images, which is chosen to fit ``BATCH_BYTES``: large images take minutes, not hours.
MAX_IMAGES, MIN_IMAGES = 100, 16

# The names of some doubts, and the function that checks all of them.
Check = tuple[tuple[str, ...], Callable[[], CheckResults]]


def run_checks(
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
) -> CheckResults:
    """
    Run every check on the first ``count`` images (100, fewer if they are large), at budgets up to ``epsilon`` (L∞).

    Args:
        classifier: Maps images (N, C, H, W) in [0, 1] to logits (N, classes); it is restored afterwards.
        images: Labelled images.
        epsilon: The largest L∞ budget of the attacks.
        attacks: The card's attacks by name; their strength is tested on planted examples and against FGSM.
        decision: How logits become a class; by default the largest logit.
        source: The source model of transfer attacks.
        source_decision: The decision of `source`.
        count: Number of images.
        seed: Seed of all draws.
        device: "cpu", "cuda" or "cuda:N".
        attacked: Whether to run attacks; if not, only the checks of the forward pass and of its gradients run.
        predictions: Classes that a clean sweep predicted for all images, (N,), -1 if none.
        training: Returns the images that the model was trained on.

    Returns:
        Per doubt: what was ``seen``, whether it is ``doubted`` (None if it could not be checked), and ``broken`` =
        true if an error is the reason. An error in one check does not affect the others.

    >>> import numpy as np
    >>> from robustness.data.images import from_arrays
    >>> spots = from_arrays(np.arange(8, dtype=np.uint8).reshape(4, 1, 2) * 30, [0, 1, 0, 1])
    >>> answers = run_checks(nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.Softmax(1)), spots)
    >>> answers["probabilities for logits"]["doubted"]
    True
    """
    sample_size, count = min(count or MAX_IMAGES, len(images)), min(count or _image_count(images), len(images))
    card_attacks = dict(attacks or {})
    with single_threaded(), restored_afterwards(module_dict(classifier, source, None), device) as lent:
        channels_last(lent, lambda: all(_accepts(module, images, device) for module in lent.values()))
        probe = ModelProbe(
            lent["classifier"],
            torch.from_numpy(images.batch(0, count)).to(device),
            torch.from_numpy(images.labels[:count].copy()).to(device),
            decision or Argmax(),
            epsilon,
            seed,
        )
        transfer_source = (lent["source"], source_decision or Argmax()) if source is not None else None

        @cache
        def labels_and_predictions() -> tuple[Indices, Indices]:
            """Return labels and predictions: the sweep's if it is complete, otherwise those of a sample of the set."""
            if predictions is not None and (predictions >= 0).all():
                return images.labels, predictions
            return permuted_classes.sample_predictions(probe.predict, images, sample_size)

        results: CheckResults = {}
        checks: list[Check] = [
            (("dim images",), lambda: data.check_range(probe.inputs.cpu().numpy())),
            (("non-deterministic forward",), lambda: forward.check_determinism(probe)),
            (("edits its input",), lambda: forward.check_input_unchanged(probe)),
            (("depends on the batch",), lambda: forward.check_batch_independence(probe, images)),
            (("probabilities for logits",), lambda: forward.check_outputs_are_logits(probe)),
            (
                ("no better than chance", "permuted classes"),
                lambda: knowledge.check_classes(*labels_and_predictions(), images.classes, seed),
            ),
            (("wrong input range",), lambda: knowledge.check_input_ranges(probe)),
            (("another output knows more",), lambda: knowledge.check_other_outputs(probe)),
            (("jumps within a grey level",), lambda: knowledge.check_grey_level(probe)),
            (
                ("zero gradients", "non-finite gradients", "saturated cross-entropy"),
                lambda: attacks_.check_gradients(probe),
            ),
        ]
        attack_checks: list[Check] = [
            (("cross-entropy weaker than margin",), lambda: attacks_.compare_losses(probe)),
            (("wrong gradients",), lambda: attacks_.compare_with_differences(probe)),
            (("tested on training images",), lambda: data.check_leakage(images, training)),
            (("noise beats FGSM",), lambda: attacks_.compare_fgsm_with_noise(probe)),
            (("PGD weaker than FGSM",), lambda: attacks_.compare_pgd_with_fgsm(probe)),
            (("transfer beats white-box",), lambda: attacks_.compare_pgd_with_transfer(probe, transfer_source)),
            (("loss does not rise",), lambda: attacks_.check_loss_rises(probe)),
            (("boundless budget survived",), lambda: attacks_.check_unbounded_attack(probe)),
            (("misses planted examples", "weak attack"), lambda: attacks_.check_planted_examples(probe, card_attacks)),
            (("attack weaker than FGSM",), lambda: attacks_.compare_card_attacks_with_fgsm(probe, card_attacks)),
        ]
        final_checks: list[Check] = [
            (("outputs that are no numbers",), lambda: forward.check_finite_outputs(probe)),
            (
                ("keeps state between calls",),
                lambda: forward.check_statelessness(probe, predictions, STATE_IMAGES if attacked else 0),
            ),
        ]
        for names, check in checks:
            results |= _run_check(names, check)
        for names, check in attack_checks if attacked else []:
            # Attacks on a model that knows nothing show nothing about either.
            results |= _run_check(names, _skip_uninformed if results["no better than chance"]["doubted"] else check)
        for names, check in final_checks:
            results |= _run_check(names, check)
    return {name: results[name] for name in DOUBTS if name in results}


def _accepts(module: nn.Module, images: Images, device: str) -> bool:
    """Return whether a module processes two images without raising; it is restored."""
    try:
        with restored_afterwards(module, device) as lent, torch.no_grad():
            lent(torch.from_numpy(images.batch(0, min(2, len(images))).copy()).to(device))
    except Exception:  # the check that runs into it reports it
        return False
    return True


def _skip_uninformed() -> CheckResults:
    raise NotChecked("the model is no better than chance; fix that first")


def _run_check(names: tuple[str, ...], check: Callable[[], CheckResults]) -> CheckResults:
    """Run a check and return its results by doubt; an exception becomes a result, too."""
    try:
        results = check()
        return {name: results[name] for name in names}
    except (GradientError, NotChecked, CannotPlant) as error:
        return {name: {"seen": f"not checked: {error}", "doubted": None} for name in names}
    except Exception as error:  # the model's own code may raise anything
        seen = f"could not be checked: {error_message(error)}"
        return {name: {"seen": seen, "doubted": None, "broken": True} for name in names}


def _image_count(images: Images) -> int:
    """Return the default number of images."""
    return min(MAX_IMAGES, max(MIN_IMAGES, BATCH_BYTES // float_bytes(images.shape)))
