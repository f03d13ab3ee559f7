"""How often a gate errs that is run many times on one test set, or that stops before the last image."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr, ndtri
from tabulate import tabulate

from robustness.gate import paired_stats
from robustness.gate.sequential_stats import decide_in_parts, look_level

ALPHA = 0.05
MARGIN = 0.02
LOOKS = 200
KINDS = 25
"""Kinds of images."""
DAMAGED = 5
"""In streams of healthy and damaged models, one in so many is damaged."""
BEYOND = 0.02
"""Its drop beyond the margin."""


def counts(draws, pairs, n, discordance, drops, correlation):
    """
    Draw losses and gains of several outcomes of the same images, (pairs, outcomes) twice; `drops` is (outcomes,).

    The outcomes are candidates in one cell, or cells of one candidate. Images are of 25 kinds, from those that are lost
    easily to those that are gained easily: the quantiles of a normal variable, and with another one of each outcome it
    makes the normal variables that have the correlation. Within a kind, outcomes are independent.
    """
    lost = np.maximum((discordance + drops) / 2, drops + 1e-4)
    fine = ndtri((np.arange(40 * KINDS) + 0.5) / (40 * KINDS)) * correlation**0.5
    lose, gain = (
        ndtr((ndtri(p)[:, None] + side * fine) / (1 - correlation) ** 0.5).reshape(len(drops), KINDS, 40).mean(axis=2)
        for side, p in ((1, lost), (-1, lost - drops))
    )
    images = draws.multinomial(n, [1 / KINDS] * KINDS, size=pairs)[:, None]
    losses = draws.binomial(images, lose)
    gains = draws.binomial(images - losses, np.minimum(gain / np.maximum(1 - lose, 1e-12), 1))
    return losses.sum(axis=2), gains.sum(axis=2)


def rejected(p):
    """Return which looks reject, (pairs, looks), alone and by the gate's levels."""
    judged = np.zeros(p.shape, bool)
    for pair, values in enumerate(p):
        seen: list[bool] = []
        for value in values:
            seen.append(bool(value <= look_level(seen, ALPHA)))
        judged[pair] = seen
    return p <= ALPHA, judged


SETTINGS = [(40, 0.2, 0.8), (600, 0.03, 0.0), (600, 0.03, 0.8), (2000, 0.03, 0.8), (2000, 0.08, 0.0), (2000, 0.08, 0.8),
            (2000, 0.08, 0.97), (10_000, 0.08, 0.8), (10_000, 0.2, 0.8)]  # fmt: skip


def looks(pairs: int) -> str:
    """Simulate 200 candidates on one test set: each alone at α, and all at the levels of `looks`."""
    rows = []
    for number, (n, discordance, correlation) in enumerate(SETTINGS):
        draws = np.random.default_rng(number)
        worst = counts(draws, pairs, n, discordance, np.full(LOOKS, MARGIN), correlation)
        bad = np.arange(LOOKS) % DAMAGED == DAMAGED - 1
        mixed = counts(draws, pairs, n, discordance, np.where(bad, MARGIN + BEYOND, 1e-9), correlation)
        shown = []
        for p in (paired_stats.p_exceeds_margin, paired_stats.p_within_margin):
            shown.append([each.any(axis=1).mean() for each in rejected(p(*worst, n, MARGIN))])
        passes, fails = (
            rejected(p(*mixed, n, MARGIN)) for p in (paired_stats.p_within_margin, paired_stats.p_exceeds_margin)
        )
        equal = paired_stats.p_within_margin(
            *counts(draws, pairs, n, discordance, np.full(LOOKS, 1e-9), correlation), n, MARGIN
        )
        shown.append([each.mean() for each in rejected(equal)])
        shown.append([each[:, ~bad].mean() for each in passes])
        shown.append([each[:, bad].mean() for each in fails])
        rates = (" / ".join(f"{rate:.1%}" for rate in pair) for pair in shown)
        rows.append([f"{n:,}", f"{discordance:.0%}", correlation, *rates])
    header = ["images", "discordance", "correlation", f"any of {LOOKS} fails \\| drop at the margin",
              f"any of {LOOKS} passes \\| drop at the margin", "passes \\| all equal",
              "passes \\| equal, one in five damaged", "fails \\| damaged"]  # fmt: skip
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


PARTS = 10
CELLS = 11
DAMAGE = 0.05
"""The drop of a damaged model, in every cell."""


def in_parts(draws, pairs, n, discordance, drops, correlation=0.8):
    """Judge pairs after each tenth of the images, and once after all: verdicts, shares of the images, last verdicts."""
    ends = np.linspace(0, n, PARTS + 1).round().astype(int)
    parts = [counts(draws, pairs, size, discordance, drops, correlation) for size in np.diff(ends)]
    losses, gains = (np.cumsum([part[side] for part in parts], axis=0).swapaxes(0, 1) for side in (0, 1))
    verdicts, looked = decide_in_parts(losses, gains, ends[1:], MARGIN, ALPHA)
    return verdicts, ends[looked] / n, decide_in_parts(losses[:, -1:], gains[:, -1:], ends[-1:], MARGIN, ALPHA)[0]


def sequential(pairs: int) -> str:
    """Simulate gates that stop once they are decided, beside gates on all images: errors, power, images saved."""
    rows = []
    sizes = ((n, discordance) for n in (40, 300, 600, 2000, 10_000) for discordance in (0.03, 0.08))
    for number, (n, discordance) in enumerate(sizes):
        draws, shown = np.random.default_rng(number), []
        one = np.full(CELLS, 1e-9)
        one[0] = MARGIN
        settings = ((np.full(CELLS, MARGIN), -1), (one, 1), (np.full(CELLS, 1e-9), 1), (np.full(CELLS, DAMAGE), -1))
        for drops, verdict in settings:
            early, share, whole = in_parts(draws, pairs, n, discordance, drops)
            shown.append(f"{(whole == verdict).mean():.1%} / {(early == verdict).mean():.1%}")
            saved = 1 - share.mean()
            if drops[1] != MARGIN and drops[0] != MARGIN:
                shown.append(f"{saved:.0%}")
        rows.append([f"{n:,}", f"{discordance:.0%}", *shown])
    at = "drop at the margin"
    header = ["images", "discordance", f"P(fail \\| {at})", f"P(pass \\| {at})", "P(pass \\| equal)", "saved \\| equal",
              "P(fail \\| 5 points)", "saved \\| 5 points"]  # fmt: skip
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)
