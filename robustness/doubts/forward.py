"""Doubts about the forward pass: what a few clean passes show."""

from __future__ import annotations

import torch

from robustness.doubts.trial import Answers, Trial, answer

ALONE = 16


def of_repetition(trial: Trial) -> Answers:
    """Pass the images twice."""
    logits = trial.logits
    with torch.no_grad():
        other = int((logits != trial.model(trial.inputs).float()).any(1).sum())
    return {"non-deterministic forward": answer(other > 0, f"other logits the second time for {trial.of(other)}")}


def of_the_batch(trial: Trial) -> Answers:
    """Pass images one by one, and beside others."""
    logits = trial.logits
    with torch.no_grad():
        each = [trial.model(one).float() for one in trial.inputs[:ALONE, None]]
    if odd := [tuple(one.shape) for one in each if one.shape != logits[:1].shape]:
        seen = (
            f"the classifier must give logits of shape {tuple(logits[:1].shape)} for one image alone, as for many, "
            f"got {odd[0]}; let its forward keep the first dimension: squeeze(0) and squeeze() drop it"
        )
        return {"depends on the batch": answer(True, seen)}
    scale = max(1.0, float(logits.abs().max()))
    apart = float((logits[:ALONE] - torch.cat(each)).abs().max())
    seen = f"logits of an image alone differ by up to {apart:.2g} (of {scale:.3g})"
    return {"depends on the batch": answer(not apart <= 1e-3 * scale, seen)}


def of_outputs(trial: Trial) -> Answers:
    """Look at the values that come out."""
    logits = trial.logits
    sums = logits.sum(1)
    probabilities = bool((logits >= 0).all() and (logits <= 1).all() and ((sums - 1).abs() < 1e-3).all())
    seen = f"outputs from {logits.min():.3g} to {logits.max():.3g} with sums from {sums.min():.3g} to {sums.max():.3g}"
    return {"probabilities for logits": answer(probabilities, seen)}
