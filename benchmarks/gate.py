"""
How often the release gate errs: counted out exactly, and simulated with outcomes that are correlated over cells.

    python -m benchmarks.gate [TABLE ...] [--pairs 2000] [--check]

The tables of docs/gate-errors.md and docs/gate-statistics.md. Rows "as on MNIST" have the outcomes of real
retrainings, as `benchmarks.retrainings` left them. `--check` fails where the statistics of 1,000 cells of 10,000 images
take more than a second of the processor.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
from scipy.special import gammaln, ndtri
from tabulate import tabulate

from benchmarks import critical, gate_sequential
from robustness.gate import paired_gate, paired_stats, retraining_stats
from robustness.gate.differences import GateCell, PairedDifference
from robustness.util import output

ALPHA = 0.05
MARGIN = 0.02
CELLS = 11
BEYOND = 0.02
"""The drop beyond the margin that should be caught."""
SECONDS = 1.0
"""What the statistics of 1,000 cells of 10,000 images may take."""
REAL = Path(__file__).with_name("results") / "retrainings.json"


def plain(losses, gains, n, drop):
    """Score as Tango published it, without corrections."""
    linear = (2 * n - losses + gains) * drop - losses - gains
    gained = (np.sqrt(linear**2 + 8 * n * gains * drop * (1 - drop)) - linear) / (4 * n)
    return (losses - gains - n * drop) / np.sqrt(np.maximum(n * (2 * gained + drop - drop**2), 1e-300))


def outcomes(n, lost, gained):
    """Return all counts of losses and gains that may be met, and their probabilities, of n images."""
    most = [int(n * p + 9 * math.sqrt(n * p + 1) + 9) for p in (lost, gained)]
    b, c = np.arange(min(most[0], n) + 1)[:, None], np.arange(min(most[1], n) + 1)[None]
    rest = np.maximum(n - b - c, 0)
    logs = gammaln(n + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(rest + 1)
    logs = logs + b * math.log(lost) + c * math.log(gained) + rest * math.log(1 - lost - gained)
    return b, c, np.where(b + c <= n, np.exp(logs), 0.0)


def levels(n, drop, gained, alpha):
    """Return how often one cell fails and passes at a true drop that is the margin: ours, and plain Tango's."""
    b, c, probability = outcomes(n, drop + gained, gained)
    z = paired_stats.normal_quantile(alpha)
    ours = [side * paired_stats.tango_score(b, c, n, drop, side) > z for side in (1.0, -1.0)]
    published = [side * plain(b, c, n, drop) > z for side in (1.0, -1.0)]
    return [float((probability * rejected).sum()) for rejected in (*ours, *published)]


def exact() -> str:
    """Count out the worst of all settings by α: 5 % of one cell, and what Holm leaves one of 25 and of 1,000."""
    rows = []
    for tests in (1, 25, 1000):
        alpha = ALPHA / tests
        found = [
            levels(n, drop, gained, alpha)
            for n in (200, 600, 2000, 10_000)
            for drop in (0.005, 0.01, 0.02, 0.05)
            for gained in (0.0005, 0.002, 0.01, 0.03, 0.1)
        ]
        worst = np.max(found, axis=0) / alpha
        rows.append([f"{alpha:g}", *(f"{worst[i]:.2f} α" for i in (0, 1, 2, 3))])
    header = ["α of a cell", "fails, at most", "passes, at most", "as published: fails", "as published: passes"]
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def together(correlation, cells):
    """Give the factor by which independent normal numbers, (..., cells), get one correlation for all pairs, or each."""
    matrix = np.full((cells, cells), correlation) if np.isscalar(correlation) else np.array(correlation)
    np.fill_diagonal(matrix, 1)
    # One that was estimated pair by pair need not be any numbers' correlation: the nearest that is.
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    factor = vectors * np.sqrt(np.maximum(values, 0))
    return (factor / np.sqrt((factor**2).sum(axis=1, keepdims=True))).T


def counts(draws, pairs, n, lost, gained, correlation):
    """Draw losses and gains of many pairs of models, (pairs, cells) twice; `lost` and `gained` are (cells,)."""
    low, high = ndtri(lost).astype(np.float32), -ndtri(gained).astype(np.float32)
    factor = together(correlation, len(lost)).astype(np.float32)
    losses, gains = np.empty((2, pairs, len(lost)), np.int64)
    for pair in range(pairs):
        latent = draws.standard_normal((n, len(lost)), np.float32) @ factor
        losses[pair], gains[pair] = (latent < low).sum(0), (latent > high).sum(0)
    return losses, gains


def fates(losses, gains, n, margin=MARGIN, alpha=ALPHA):
    """Say of each pair whether its gate passes and whether it fails, (pairs,) twice."""
    tests = losses.shape[1]
    passed = (-paired_stats.tango_score(losses, gains, n, margin, -1.0) >= paired_stats.normal_quantile(alpha)).all(
        axis=1
    )
    # Holm's first step is Bonferroni's: it decides whether any cell fails.
    failed = (
        paired_stats.tango_score(losses, gains, n, margin, 1.0) >= paired_stats.normal_quantile(alpha / tests)
    ).any(axis=1)
    return passed, failed


SETTINGS = [
    *((n, discordance, 0.8) for n in (600, 2000, 10_000) for discordance in (0.03, 0.08, 0.14)),
    (10_000, 0.2, 0.8), (2000, 0.08, 0.0), (2000, 0.08, 0.97),
]  # fmt: skip


def real():
    """Return what real retrainings have told of their outcomes."""
    return json.loads(REAL.read_text(encoding="utf-8"))["outcomes"]


def as_measured():
    """Return settings as real retrainings have them: the cells that differ on at most 14 % of the images, and all."""
    told = real()
    shares, matrix = np.array(told["discordance"]), np.array(told["correlation"])
    for chosen in (shares <= 0.14, shares > 0):
        for n in (600, 2000, 10_000):
            yield n, shares[chosen], matrix[np.ix_(chosen, chosen)]


def paired(pairs: int, settings=None, first=0) -> str:
    """Simulate the paired gate: its errors, and its power. Each row has draws of its own, by its number."""
    rows: list[list[object]] = []
    for n, discordance, correlation in settings or [*SETTINGS, *as_measured()]:
        draws = np.random.default_rng(first + len(rows))
        cells = CELLS if np.isscalar(discordance) else len(discordance)

        def drawn(drops, n=n, discordance=discordance, correlation=correlation, cells=cells, draws=draws):
            drop = np.broadcast_to(drops, cells)
            lost = np.maximum((discordance + drop) / 2, drop + 1e-4)
            return fates(*counts(draws, pairs, n, lost, lost - drop, correlation), n)

        one = np.zeros(cells)
        one[0] = MARGIN
        equal = drawn(np.full(cells, 1e-9))
        at_margin, single, beyond = drawn(np.full(cells, MARGIN)), drawn(one + 1e-9), drawn(MARGIN + BEYOND)
        shown = [equal[0], equal[1], at_margin[1], single[0], beyond[1]]
        rows.append([n, *_named(discordance, correlation), *(f"{np.mean(each):.1%}" for each in shown)])
    at = "drop at the margin"
    header = ["images", "discordance", "correlation", "P(pass \\| equal)", "P(fail \\| equal)",
              f"P(fail \\| {at})", f"P(pass \\| {at})", "P(fail \\| 2 points beyond)"]  # fmt: skip
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def _named(discordance, correlation) -> list[str]:
    if np.isscalar(correlation):
        return [f"{discordance:.0%}", str(correlation)]
    every = correlation[np.triu_indices(len(correlation), 1)]
    shares = f"{discordance.min():.1%} to {discordance.max():.1%}"
    return [f"{shares}, {len(discordance)} cells as on MNIST", f"{np.median(every):.2f} at half"]


def retrainings(draws, k, summaries, correlation, seeds):
    """
    Draw k + 1 summaries, (k + 1, summaries), the candidate first.

    "With outliers", one training in ten has three times the spread; "skewed" ones have a long lower tail (a gamma
    distribution of shape 2).
    """
    skewed = (2 - draws.gamma(2, size=(k + 1, summaries))) / np.sqrt(2) if seeds == "skewed" else None
    values = (draws.standard_normal((k + 1, summaries)) if skewed is None else skewed) @ together(
        correlation, summaries
    )
    return values * (1 + 2 * (draws.random((k + 1, 1)) < 0.1) * (seeds == "with outliers"))


def retraining(pairs: int, summaries: int = 8) -> str:
    """Simulate the retraining gate: healthy candidates, and ones that lack two and four standard deviations."""
    draws, rows, told = np.random.default_rng(0), [], np.array(real()["correlation_of_summaries"])
    for k in (5, 10, 18, 19):
        for correlation in (0.0, 0.8, told):
            for seeds in ("normal", "with outliers", "skewed"):
                found = {lacking: np.zeros(2) for lacking in (0, 2, 4)}
                for _ in range(pairs):
                    several = summaries if np.isscalar(correlation) else len(correlation)
                    values = retrainings(draws, k, several, correlation, seeds)
                    for lacking, failed in found.items():
                        candidate, accepted = values[0] - lacking, values[1:]
                        failed += (
                            (candidate < retraining_stats.prediction_bounds(accepted, ALPHA)).any(),
                            retraining_stats.rank_p_value(accepted, candidate) <= ALPHA * (1 + 1e-12),
                        )
                decides = int(retraining_stats.rank_test_possible(k, ALPHA))
                shown = [found[0][0], found[0][1], *(found[lacking][decides] for lacking in (2, 4))]
                rates = [f"{each / pairs:.1%}" for each in shown]
                rates[1] = rates[1] if decides else "cannot decide"
                named = correlation if np.isscalar(correlation) else f"{several} summaries as on MNIST"
                rows.append([k, named, seeds, *rates])
    header = ["k", "correlation", "seeds", "P(t bound fails \\| healthy)", "P(rank fails \\| healthy)",
              "caught 2 σ lower in all", "caught 4 σ lower in all"]  # fmt: skip
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def seconds(cells: int = 1000, n: int = 10_000) -> float:
    """Return the processor's seconds for the statistics of a paired gate, from changes to the table."""
    draws = np.random.default_rng(0)
    changes = draws.choice(np.array([-1, 0, 1], np.int8), p=[0.05, 0.9, 0.05], size=(cells, n))
    drops = [PairedDifference(0.9, 0.9, 1, n, row) for row in changes]
    names = [GateCell("normal", str(number), "accuracy", MARGIN) for number in range(cells)]
    started = time.process_time()
    paired_gate.judge(names, drops, ALPHA, {})
    paired_gate.passes_if_equal(names, drops, ALPHA, {})
    return time.process_time() - started


def took() -> float:
    """Return the least of three times: the others have waited."""
    return min(seconds() for _ in range(3))


def main(given: list[str] | None = None) -> int:
    """Print the tables that are asked for, all if none is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = {
        "exact": lambda pairs: exact(),
        "paired": paired,
        "critical": critical.critical,
        "retraining": retraining,
        "looks": gate_sequential.looks,
        "sequential": gate_sequential.sequential,
        "seconds": lambda pairs: f"1,000 cells of 10,000 images: {took():.2f} seconds of the processor",
    }
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(tables)}")
    parser.add_argument("--pairs", type=int, default=2000, help="drawn for each row (2000)")
    parser.add_argument(
        "--check", action="store_true", help=f"print no table, fail above {SECONDS:g} s for 1,000 cells"
    )
    arguments = parser.parse_args(given)
    if unknown := set(arguments.tables) - set(tables):
        parser.error(f"no such table: {', '.join(sorted(unknown))}; there are {', '.join(tables)}")
    if arguments.check:
        return int(took() > SECONDS)
    for name in arguments.tables or tables:
        print(tables[name](arguments.pairs), end="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(output.run(main))
