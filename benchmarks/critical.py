"""
The gate on critical strengths: how often it errs, and the images that it needs, drawn from real outcomes.

Images are drawn from those of `benchmarks.critical_outcomes`, with replacement.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from scipy import stats
from tabulate import tabulate

from benchmarks.critical_outcomes import CARDS, RESULT, SWEEPS
from benchmarks.retrainings import FIRST
from robustness.gate import ladder_power, ladder_stats, paired_stats
from robustness.gate.power import POWER

ALPHA = 0.05
MARGIN = 0.02
HALF = MARGIN / 2
"""
A margin as strict as `MARGIN` of one strength: the largest drop at one strength is about twice the mean over strengths.
"""
GRID = [math.ceil(20 * 2 ** (step / 8)) for step in range(97)]
"""Numbers of images that are tried, each 9 % more than the one before, up to 81,920."""


@functools.cache
def _archive():
    with np.load(RESULT) as archive:
        return dict(archive)


def correct(card, sweep, name):
    """Return which images a model classified correctly at each strength, (strengths, N)."""
    packed = _archive()[f"{card}/{sweep}/{name}"]
    return np.unpackbits(packed, axis=1)[:, : int(_archive()["images"])].astype(np.int8)


def pairs():
    """Return the names of pairs of models, and whether the second is damaged, the same for each card."""
    names = [name.split("/")[2] for name in _archive() if name.startswith(f"{CARDS[0]}/{SWEEPS[0]}/")]
    healthy = [(f"seeds {i} and {i + 1}", str(i), str(i + 1)) for i in range(FIRST, FIRST + 6, 2)]
    return healthy, [(name, str(FIRST), name) for name in names if not name.isdigit()]


def changes(card, sweep, was, now):
    """Return each image's drop at each strength, (strengths, N), and its drop on the ladder in strengths, (N,)."""
    both = [correct(card, sweep, name) for name in (was, now)]
    ranks = [np.logical_and.accumulate(each, axis=0).sum(axis=0) for each in both]
    return both[0] - both[1], ranks[0] - ranks[1]


def levels(draws_per_row: int = 10_000) -> str:
    """Simulate both errors at a mean drop of exactly the margin, beside those of Student's t."""
    rows: list[list[object]] = []
    for name, share in (*_invented(), *_measured()):
        values = ladder_stats.ladder((len(share) - 1) // 2)
        for n in (40, 150, 600, 2400):
            draws = np.random.default_rng(len(rows))
            margin = 0.1 if n == 40 else 0.05 if n == 150 else MARGIN
            true = ladder_power._tilted(share, values, margin)
            counts = draws.multinomial(n, true, size=draws_per_row)
            mean = counts @ values / n
            error = np.sqrt(np.maximum(counts @ values**2 / n - mean**2, 0) / (n - 1))
            with np.errstate(divide="ignore", invalid="ignore"):
                t = np.where(error > 0, (margin - mean) / error, math.inf)
            limit = stats.t.isf(ALPHA, n - 1)
            errs = [
                ladder_stats.p_within_margin(counts, values, margin) <= ALPHA,
                ladder_stats.p_exceeds_margin(counts, values, margin) <= ALPHA,
                t > limit,
                t < -limit,
            ]
            rows.append([name, n, f"{margin:g}", *(f"{each.mean():.1%}" for each in errs)])
    header = ["drops of images", "images", "margin", "P(pass)", "P(fail)", "t: P(pass)", "t: P(fail)"]
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def _invented():
    whole = np.zeros(19)
    whole[[9, 18]] = 0.9, 0.1
    steps = np.full(19, 1e-9)
    steps[[8, 9, 10]] = 0.2, 0.5, 0.3
    mixed = np.full(19, 1e-9)
    mixed[[8, 9, 10, 18]] = 0.2, 0.57, 0.2, 0.03
    return ("of 9 strengths: all or nothing", whole), ("one strength up or down", steps), ("both", mixed)


def _measured():
    for card in CARDS:
        for name, was, now in (pairs()[0][0], pairs()[1][2]):
            ranks = changes(card, "fgsm", was, now)[1]
            share = ladder_stats.tally(ranks, 9) + 1e-3
            yield f"{card}, FGSM: {name}", share / share.sum()


def decisions(draws, n, drops, ranks, count, *, equal):
    """
    Return how often `n` images decide: all strengths as the gate does, one strength alone, critical strengths.

    The one strength is that which fails most often, and for passes that at which most images differ. Critical strengths
    are tested at the margin, and at half of it.

    If `equal`, each drawn image exchanges the models at random, and a decision is a pass; else it is a failure.
    """
    steps = len(drops)
    # Images with the same changes are drawn together.
    patterns, alike = np.unique(np.vstack([drops, ranks]), axis=1, return_counts=True)
    images = draws.multinomial(n, alike / alike.sum(), size=count).astype(np.float64)
    kept = draws.binomial(images.astype(np.int64), 0.5) if equal else images
    other = images - kept
    up, down = (patterns[:-1] > 0).T.astype(np.float64), (patterns[:-1] < 0).T.astype(np.float64)
    losses, gains = kept @ up + other @ down, kept @ down + other @ up
    here = (patterns[-1][:, None] == np.arange(-steps, steps + 1)).astype(np.float64)
    tally, values = kept @ here + (other @ here)[:, ::-1], ladder_stats.ladder(steps)
    if equal:
        single = paired_stats.p_within_margin(losses, gains, n, MARGIN) <= ALPHA
        whole = single.all(axis=1)
        test = ladder_stats.p_within_margin
    else:
        p = paired_stats.p_exceeds_margin(losses, gains, n, MARGIN)
        single, whole = p <= ALPHA, (p <= ALPHA / steps).any(axis=1)  # Holm's first step decides
        test = ladder_stats.p_exceeds_margin
    ladder = [(test(tally, values, margin) <= ALPHA).mean() for margin in (MARGIN, HALF)]
    most = np.abs(drops).sum(axis=1).argmax() if equal else single.mean(axis=0).argmax()
    return whole.mean(), single[:, most].mean(), *ladder


def needed(drops, ranks, seed, count, *, equal):
    """Return the images for 80 % power, inf if none, of each column of `decisions`."""
    tried = {}

    def rates(place):
        if place not in tried:
            draws = np.random.default_rng([seed, place])
            tried[place] = decisions(draws, GRID[place], drops, ranks, count, equal=equal)
        return tried[place]

    found = []
    for which in range(4):
        low, high = -1, len(GRID) - 1
        if rates(high)[which] < POWER:
            found.append(math.inf)
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if rates(middle)[which] >= POWER else (middle, high)
        found.append(GRID[high])
    return found


def images(count: int) -> str:
    """Measure the images that decide in 80 of 100 cases; each row draws `count` pairs at each number of images."""
    rows, ratios = [], {}
    healthy, damaged = pairs()
    for card in CARDS:
        for sweep in SWEEPS:
            for equal, (name, was, now) in [*((True, p) for p in (*healthy, *damaged)), *((False, p) for p in damaged)]:
                drops, ranks = changes(card, sweep, was, now)
                mean, most = ranks.mean() / len(drops), drops.mean(axis=1).max()
                if not ranks.any() or (not equal and most <= MARGIN):
                    continue  # the same decisions, or damage within the margin at every strength
                whole, one, *ladder = needed(drops, ranks, len(rows), count, equal=equal)
                decision = "passes" if equal else "fails"
                ratios.setdefault((card, sweep, decision), []).append(
                    [few / many for few in ladder for many in (whole, one)]
                )
                about = [card, sweep, f"as good: {name}" if equal else name, decision]
                drop = ["0", "0"] if equal else [f"{mean:.1%}", f"{most:.1%}"]
                rows.append([*about, *drop, *map(_number, (whole, one, *ladder))])
    header = ["model", "sweep", "pair", "decision", "mean drop", "largest drop", "all strengths", "one strength",
              "critical strength", "critical strength, half the margin"]  # fmt: skip
    return f"{tabulate(rows, header, tablefmt='github', disable_numparse=True)}\n\n{_summary(ratios)}"


def _summary(ratios) -> str:
    """Return the median ratio of images needed, and how many pairs need at most half."""
    rows = []
    for about, each in ratios.items():
        row = [*about, len(each)]
        for column in np.array(each).T:
            known = column[~np.isnan(column)]
            half = f", {(known <= 0.5).sum()} of {len(known)}"
            row.append(f"{_ratio(float(np.median(known)))}{half}" if len(known) else "—")
        rows.append(row)
    compared = ("all strengths", "one strength")
    header = [
        "model",
        "sweep",
        "decision",
        "pairs",
        *(f"to {what}{more}" for more in ("", ", half the margin") for what in compared),
    ]
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def _number(value: float) -> str:
    return "—" if math.isnan(value) else f"{value:,.0f}" if math.isfinite(value) else f"> {GRID[-1]:,}"


def _ratio(value: float) -> str:
    return "—" if math.isnan(value) else f"{value:.2f}" if math.isfinite(value) else "∞"


def critical(count: int) -> str:
    """Return both tables: errors, and images needed."""
    return f"{levels()}\n\n{images(count)}"
