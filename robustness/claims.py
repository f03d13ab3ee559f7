"""Compares claims with evidence: a verdict, and a message with the reason."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from robustness.cards import Claim
from robustness.metrics import registry
from robustness.metrics.chance_level import chance_level
from robustness.metrics.evidence import DECIDED, OK, Evidence
from robustness.metrics.intervals import Interval, missing_successes
from robustness.metrics.metric import Measurement, MetricError

Outcome = Literal["passed", "failed", "error", "vacuous"]


@dataclass(frozen=True)
class Verdict:
    """Whether evidence meets a claim, the measurement, and the message."""

    claim: Claim
    outcome: Outcome
    message: str
    measured: Measurement | None = None
    prerequisite: str = ""
    """The claim that this one fell with: that of the clean images, which it counts only together with."""

    @property
    def passed(self) -> bool:
        """True if the evidence meets the claim; False for an error and for a vacuous claim."""
        return self.outcome == "passed"


def measure(evidence: Evidence, strength: str, metric: str) -> Measurement:
    """Measure a metric at one strength, which is given by its name."""
    return registry.measure_cell(evidence, evidence.index(strength), metric)


def judge(claim: Claim, evidence: Evidence) -> Verdict:
    """
    Compare a claim with evidence.

    Args:
        claim: A metric, its threshold and the strength at which it is claimed.
        evidence: Evidence of the claim's sweep, with clean evidence beside it for metrics that need it.

    Evidence of a sweep that stopped early is judged twice, with all untried images wrong and with all of them right. If
    both agree, that is the verdict; its measurement has bounds and no value.

    Returns:
        A verdict: "passed" or "failed"; "error" if the strength has no numbers; "vacuous" if a classifier that
        knows nothing would pass, so that the claim cannot fail.

    Raises:
        KeyError: If the evidence does not have the claim's strength.
    """
    status = evidence.status[evidence.index(claim.strength)]
    if status.startswith(DECIDED):
        return _judge_bounds(claim, evidence)
    if status != OK:
        return Verdict(claim, "error", f"{_where(claim)}: the cell has no numbers: {status}")
    try:
        measured = measure(evidence, claim.strength, claim.metric)
    except MetricError as error:  # a class that these data do not have
        return Verdict(claim, "error", f"{_where(claim)}: {error}")
    return _compare(claim, evidence, measured, describe(measured))


def decide(claims: Iterable[Claim], evidence: Evidence) -> bool:
    """
    Return whether evidence of the first images decides claims, whatever the model does on the others.

    >>> import numpy as np
    >>> labels = np.arange(10) % 2
    >>> claim = Claim("m", "noise", "1", "accuracy", 0.8, "noise", (("accuracy", 0.8),))
    >>> unknown, clean = np.zeros((1, 10)), labels[None]
    >>> def tried(predictions):
    ...     rows = np.array([[*predictions, *[-1] * (10 - len(predictions))]])
    ...     return Evidence(labels, ("a", "b"), ("1",), rows, *4 * [unknown], (f"{DECIDED}{len(predictions)} of 10",))
    >>> decide([claim], tried([1, 0])), decide([claim], tried([1, 0, 1]))
    (False, True)
    """
    return all(
        evidence.status[evidence.index(claim.strength)].startswith(DECIDED)
        and len({verdict.outcome for verdict in _extremes(claim, evidence)}) == 1
        for claim in claims
    )


def _extremes(claim: Claim, evidence: Evidence) -> list[Verdict]:
    """Judge a claim with all untried images wrong, and with all of them right."""
    row, count = evidence.index(claim.strength), len(evidence.classes)
    untried = evidence.predictions[row] < 0
    status = list(evidence.status)
    status[row] = OK
    verdicts = []
    for guess in ((evidence.labels + 1) % count, evidence.labels):
        predictions = evidence.predictions.copy()
        predictions[row, untried] = guess[untried]
        verdicts.append(judge(claim, replace(evidence, predictions=predictions, status=tuple(status))))
    return verdicts


def _judge_bounds(claim: Claim, evidence: Evidence) -> Verdict:
    """Judge a claim by evidence of a part of the images: the verdict, if the others cannot change it."""
    status = evidence.status[evidence.index(claim.strength)]
    verdicts = _extremes(claim, evidence)
    ends = [verdict.measured for verdict in verdicts if verdict.measured is not None]
    if len({verdict.outcome for verdict in verdicts}) > 1 or not registry.get(claim.metric).monotone:
        message = f"{_where(claim)}: the sweep stopped before this claim was decided ({status}); run it on all images"
        return Verdict(claim, "error", message)
    if len(ends) < len(verdicts):
        return verdicts[0]
    low, high = sorted(end.value for end in ends)
    bounds = Measurement(math.nan, Interval(low, high), "bounds", ends[0].n, None, status, ends[0].metric)
    return _compare(claim, evidence, ends[0], f"{describe(bounds)}", bounds)


def _compare(
    claim: Claim, evidence: Evidence, measured: Measurement, described: str, bounds: Measurement | None = None
) -> Verdict:
    """Compare a measurement with its claim; with ``bounds``, these are reported in its place."""
    shown = measured if bounds is None else bounds
    metric = registry.get(claim.metric)
    higher = metric.better == "higher"
    bound = "at least" if higher else "at most"
    sentence = f"{_where(claim)}: {claim.metric} is {described}"
    promise = f"its card claims {bound} {claim.threshold:g}"
    if math.isnan(measured.value):
        return Verdict(claim, "failed", f"{sentence}, but {promise}", shown)
    if metric.requires_claims:
        broken, prerequisite = _prerequisite_failure(claim, metric.requires_claims, evidence)
        if broken:
            return Verdict(claim, "failed", f"{sentence}, but {broken}", shown, prerequisite)
    chance = chance_level(claim.metric, evidence.labels, evidence.classes).value
    if metric.complement_of:  # a filter that discards by chance has it, on clean images and on any others
        chance = max(chance, round(1 - dict(claim.clean).get(metric.complement_of, 1.0), 9))
    if metric.chance_level is None:
        return Verdict(
            claim,
            "vacuous",
            f"{_where(claim)}: {claim.metric} of {bound} {claim.threshold:g} cannot be checked: the chance level of "
            f"{claim.metric} is unknown; define it in the metric (Metric.chance_level)",
            shown,
        )
    if math.isnan(chance) or (claim.threshold <= chance if higher else claim.threshold >= chance):
        return Verdict(
            claim,
            "vacuous",
            f"{_where(claim)}: {claim.metric} of {bound} {claim.threshold:g} cannot fail: constant classifiers and "
            f"random guesses reach {chance:.4g} on these {len(evidence)} images; "
            f'{"raise" if higher else "lower"} the threshold, or write "no claim possible"',
            shown,
        )
    meets_threshold = measured.value >= claim.threshold if higher else measured.value <= claim.threshold
    # Other images of the same kind might well have been on the other side.
    inside = measured.interval.low <= claim.threshold <= measured.interval.high
    unsure = " (the threshold lies inside the interval)" if inside and bounds is None else ""
    if meets_threshold:
        return Verdict(claim, "passed", f"{sentence}, and {promise}{unsure}", shown)
    missing = _missing(claim, shown)
    return Verdict(claim, "failed", f"{sentence}, but {promise}{unsure}{missing}", shown)


def _prerequisite_failure(claim: Claim, beside: tuple[str, ...], evidence: Evidence) -> tuple[str, str]:
    """
    Explain why a claim does not count: a constant classifier, or one that discards everything, would meet it.

    If this claim depends on another claim that failed, also return that claim's id.
    """
    clean, claimed = evidence if claim.sweep == "clean" else evidence.clean, dict(claim.clean)
    if clean is None:
        return "that counts only together with clean evidence, which is missing", ""
    for metric in beside:
        what = f"clean {metric}"
        if metric not in claimed:
            return f"that counts only together with a claim of {what}, which its card lacks", ""
        chance = chance_level(metric, evidence.labels, evidence.classes).value
        if claimed[metric] <= chance:
            return (
                f"that counts only together with a {what} above the chance level, but the {claimed[metric]:g} that its "
                f"card claims does not exceed the {chance:.4g} of constant classifiers and random guesses"
            ), ""
        value = measure(clean, "0", metric).value
        if not value >= claimed[metric]:
            reason = f"that counts only with a {what} of at least {claimed[metric]:g}, and it is {value:.4f}"
            return reason, f"{claim.model}:clean:0:{metric}"
    return "", ""


def properties(verdict: Verdict, evidence: Evidence) -> dict[str, Any]:
    """Return a verdict's numbers as plain values: JUnit properties, and what workers tell the controller."""
    claim, provenance = verdict.claim, evidence.provenance
    about = {
        "model": claim.model,
        "sweep": claim.sweep,
        "strength": claim.strength,
        "metric": claim.metric,
        "threshold": claim.threshold,
        "outcome": verdict.outcome,
        "message": verdict.message,
        "data": provenance.get("images", {}).get("name", ""),
        "seed": provenance.get("seed"),
        "device": evidence.machine,
        "evidence": provenance.get("key", ""),
        **({"prerequisite": verdict.prerequisite} if verdict.prerequisite else {}),
    }
    if (measured := verdict.measured) is None:
        return about
    low, high = measured.interval
    counted = {} if measured.successes is None else {"successes": measured.successes}  # XML would say "None"
    return about | {
        "value": measured.value,
        "low": low,
        "high": high,
        "method": measured.method,
        "n": measured.n,
        **counted,
        "note": measured.note,
    }


def describe(measured: Measurement) -> str:
    """
    Write a measurement with its interval and what it was measured on.

    >>> from robustness.metrics.intervals import Interval
    >>> describe(Measurement(0.94, Interval(0.918, 0.956), "wilson", 600, 564))
    '0.9400 [0.918, 0.956] (564 of 600 images, 95 % Wilson)'
    """
    if measured.method == "bounds":
        return f"between {measured.interval.low:.4f} and {measured.interval.high:.4f} ({measured.note})"
    if math.isnan(measured.value):
        return f"— ({measured.note or 'nothing to measure'})"
    counted = f"{measured.successes} of {measured.n}" if measured.successes is not None else f"n = {measured.n}"
    method = {"wilson": "Wilson", "delta": "delta method", "normal": "normal", "delong": "DeLong"}.get(
        measured.method, measured.method
    )
    note = f"; {measured.note}" if measured.note else ""
    low, high = measured.interval
    return f"{measured.value:.4f} [{low:.3f}, {high:.3f}] ({counted} images, 95 % {method}{note})"


def _where(claim: Claim) -> str:
    return f"{claim.model} under {claim.sweep} at {claim.strength}"


def _missing(claim: Claim, measured: Measurement) -> str:
    if measured.successes is None or math.isnan(measured.value):
        return ""
    lacking = missing_successes(measured.successes, measured.n, claim.threshold)
    return f": {lacking} image{'s' if lacking != 1 else ''} short"
