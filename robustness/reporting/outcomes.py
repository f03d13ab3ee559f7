"""Outcomes of claims as sentences: failures, their dependent claims, and claims that pass only within noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from robustness.reporting.report import ClaimReport, ModelReport, RunReport
from robustness.reporting.report_types import RED, UNRUN
from robustness.util.text import one_line, pluralize


def red_claims(model: ModelReport) -> list[tuple[ClaimReport, list[ClaimReport]]]:
    """
    Return the failed claims of a model, each with the dependent claims that failed with it.

    If that claim was not part of the run, the first dependent claim represents it.
    """
    red = [claim for claim in model.claims if claim.outcome in RED]
    heads, under = [], dict[str, list[ClaimReport]]()
    for claim in red:
        if claim.prerequisite:
            under.setdefault(claim.prerequisite, []).append(claim)
        else:
            heads.append(claim)
    pairs = [(claim, under.pop(claim.id, [])) for claim in heads]
    return pairs + [(fallen[0], fallen[1:]) for fallen in under.values()]


def with_it(model: ModelReport, fallen: list[ClaimReport]) -> str:
    """Name the claims that failed with another one; "" if there are none."""
    if not fallen:
        return ""
    names = [claim.id.removeprefix(f"{model.name}:") for claim in fallen]
    return f"{pluralize(len(fallen), 'claim')} depend on it and fail with it: {', '.join(names)}"


def fallen(model: ModelReport) -> Iterator[str]:
    """Return a sentence for each claim with which others failed."""
    for claim, others in red_claims(model):
        if others:
            yield one_line(f"{claim.id}: {with_it(model, others)}.", 300)


def explained(claim: ClaimReport) -> bool:
    """
    Return whether a claim's number and its bound explain the failure; otherwise its message does.

    A claim that failed for another reason, or with another claim, is not explained by them.
    """
    value, threshold = claim.numbers.value, claim.threshold
    if claim.outcome != "failed" or value is None or claim.prerequisite:
        return False
    return value < threshold if claim.bound == "at least" else value > threshold


def inside(claim: ClaimReport) -> bool:
    """Return whether a claim's threshold lies inside the interval of what was measured."""
    low, high = claim.numbers.low, claim.numbers.high
    return claim.numbers.value is not None and low is not None and high is not None and low <= claim.threshold <= high


def within_noise(report: RunReport) -> Iterator[str]:
    """Return how many claims pass by less than the sampling error."""
    passed = [c for model in report.models for c in model.claims if c.outcome == "passed"]
    if near := sum(map(inside, passed)):
        verb = "has its" if near == 1 else "have their"
        claims = pluralize(len(passed), "passed claim")
        yield f"{near:,} of {claims} {verb} threshold inside the measured interval"


def closest_claim(claims: Sequence[ClaimReport]) -> ClaimReport | None:
    """
    Return the passed claim that is closest to its threshold, in half-widths of its interval; None without intervals.

    The distance alone is not informative: 0.01 is large on 10,000 images, and small on 100.
    """
    return weakest_claim([claim for claim in claims if claim.outcome == "passed"])


def weakest_claim(claims: Sequence[ClaimReport]) -> ClaimReport | None:
    """Return the measured claim with the least `half_widths`, passed or not; None without intervals."""
    margins = {claim.id: margin for claim in claims if (margin := half_widths(claim)) is not None}
    return min((claim for claim in claims if claim.id in margins), key=lambda c: margins[c.id], default=None)


def half_widths(claim: ClaimReport) -> float | None:
    """Return by how many half-widths of its interval a claim is met, negative if it is not; None without interval."""
    value, low, high = claim.numbers.value, claim.numbers.low, claim.numbers.high
    if claim.outcome in UNRUN or value is None or low is None or high is None or not high > low:
        return None
    distance = value - claim.threshold if claim.bound == "at least" else claim.threshold - value
    return distance / ((high - low) / 2)


def closest(report: RunReport) -> str:
    """Name the passed claim of a run that is closest to its threshold; "" if none has an interval."""
    claim = closest_claim([claim for model in report.models for claim in model.claims])
    if claim is None:
        return ""
    return one_line(
        f"closest to its threshold: {claim.id}: {claim.numbers.value:.4f}, claimed {claim.bound} {claim.threshold:g}, "
        f"{half_widths(claim):.2g} half-widths of its interval away"
    )
