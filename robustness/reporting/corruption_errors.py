"""The corruption errors of a model relative to a reference model, and their mean (Hendrycks and Dietterich 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from robustness.cards import Card
from robustness.errors import CardError
from robustness.metrics import corruption_error as metric
from robustness.metrics.metric import MetricError
from robustness.perturbations import strength as strengths
from robustness.perturbations.common_corruptions.corruption import CommonCorruption
from robustness.perturbations.common_corruptions.severities import EXTRA
from robustness.workspace.workspace import Workspace


def table(workspace: Workspace, card: Card, reference: Card) -> Iterator[str]:
    """
    Return the lines of a table: both errors of each corruption that the card sweeps, CE, mCE and relative mCE.

    The reference is swept as the card is, on the card's images. The benchmark's 4 extra corruptions are shown, but
    they are not part of the means. CardError if the card sweeps none of its 15.
    """
    from tabulate import tabulate

    swept = {name: one for name, one in card.file.sweeps.items() if isinstance(one.perturbation, CommonCorruption)}
    counted = [name for name, one in swept.items() if getattr(one.perturbation, "name", "") not in EXTRA]
    if not counted:
        raise CardError(
            f"{card.name} must sweep common corruptions, got sweeps {', '.join(card.file.sweeps) or 'none'}; "
            'write profile = "corruptions" in its card'
        )
    file = reference.file.model_copy(update={"sweeps": swept, "claims": {}})
    alike = replace(reference, file=file).override(data=card.data("test"))
    clean = [metric.error_rates(workspace.evidence(each))[0] for each in (card, alike)]
    errors, theirs = ({name: _errors(workspace, each, name) for name in swept} for each in (card, alike))
    rows = [
        [name, *(f"{sum(each[name]) / len(each[name]):.1%}" for each in (errors, theirs)),
         f"{sum(errors[name]) / max(sum(theirs[name]), 1e-9):.1%}", "" if name in counted else "not in the means"]
        for name in swept
    ]  # fmt: skip
    ours, reference_errors = ({name: each[name] for name in counted} for each in (errors, theirs))
    mean = metric.mean_corruption_error(ours, reference_errors)
    try:
        relative = f"{metric.relative_mean_corruption_error(ours, reference_errors, *clean):.1%}"
    except MetricError as error:
        relative = f"undefined ({error})"
    images = workspace.images(card)
    yield f"{card.name} against {reference.name}, {len(images)} images of {images.name}, seed {workspace.seed}"
    yield from tabulate(rows, ["sweep", "error", "reference", "CE", ""], disable_numparse=True).splitlines()
    yield f"mCE {mean:.1%}, relative mCE {relative}, over {len(counted)} of the 15 corruptions of the benchmark"
    yield f"clean error {clean[0]:.1%}, reference {clean[1]:.1%}"


def _errors(workspace: Workspace, card: Card, sweep: str) -> list[float]:
    """Return the share of wrong images at each severity but 0, which is no corruption."""
    evidence = workspace.evidence(card, sweep)
    rates = zip(evidence.strengths, metric.error_rates(evidence), strict=True)
    return [rate for strength, rate in rates if strength != strengths.name(0.0)]
