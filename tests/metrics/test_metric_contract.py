"""The contract of every metric in the registry: chance level, interval and influence against simulations."""

import math
from dataclasses import replace

import numpy as np
import pytest

from robustness import claims
from robustness.cards import Claim
from robustness.metrics import registry
from robustness.metrics.chance_level import chance_level, lucky_level
from robustness.metrics.confusion import confusion_matrix
from robustness.metrics.evidence import Evidence
from robustness.metrics.metric import Metric, RateEstimate
from robustness.metrics.rate_metric import rate_metric
from robustness.metrics.registry import METRICS, measure_cell, measure_matrix

LABELS = {
    "balanced": np.arange(200) % 4,
    "imbalanced": np.repeat(np.arange(4), [150, 30, 15, 5]),
    "an absent class": np.repeat([0, 1, 3], [80, 60, 60]),
    "two of four classes, imbalanced": np.repeat([1, 2], [120, 80]),
}
DRAWS = 300


def errors(matrix, label=None):
    """The error rate, of which less is better."""
    wrong = 1 - float(matrix.trace() / matrix.sum())
    return RateEstimate(wrong, int(matrix.sum()), gradient=1 - np.eye(len(matrix)))


ERROR = rate_metric(
    "error", "error rate", errors, lambda images, p, label: 1 - float(images @ p / images.sum()), better="lower"
)
"""Beside those that ship: a rate of which less is better."""
RATES = {name: known for name, known in METRICS.items() if known.rate} | {"error": ERROR}
OTHERS = {name: known for name, known in METRICS.items() if known.claimable and not known.rate}
OWN_CHANCE = {"loss", "roc_auc", "brier"}
"""Their chance levels have tests of their own in test_chance_level: they are not of a classifier that names classes."""


@pytest.fixture(autouse=True)
def another_rate(monkeypatch):
    monkeypatch.setitem(METRICS.built_in, "error", ERROR)


# ------------------------------------------------------------------ chance levels


@pytest.mark.parametrize("labels", LABELS.values(), ids=list(LABELS))
@pytest.mark.parametrize("metric", [*RATES, *(f"{name}[1]" for name, known in RATES.items() if known.takes_class)])
def test_every_chance_level_is_that_of_a_simulation(metric, labels):
    """Constants, uniform guesses and guesses by the labels' shares. Catches: 1/classes for any metric that is new."""
    random, better = np.random.default_rng(11), registry.get(metric).better
    shares = np.bincount(labels, minlength=4) / len(labels)

    def simulated(probabilities):
        drawn = (random.choice(4, len(labels), p=probabilities) for _ in range(DRAWS))
        values = np.array([measure_matrix(metric, confusion_matrix(labels, each, 4)).value for each in drawn])
        return np.nanmean(values), 5 * np.nanstd(values) / math.sqrt(DRAWS) + 1e-9

    constants = [measure_matrix(metric, confusion_matrix(labels, np.full_like(labels, c), 4)).value for c in range(4)]
    constants = [constants[1]] if "[" in metric else constants
    (uniform, error), (frequent, other) = simulated(np.full(4, 0.25)), simulated(shares)
    best = np.nanmax if better == "higher" else np.nanmin
    level = chance_level(metric, labels, 4)
    assert level.guess == pytest.approx(uniform, abs=error)
    assert level.constant == pytest.approx(float(best(constants)), nan_ok=True)
    # Always predicting a class must not count for its recall: no threshold could beat that.
    alone = "[" in metric and registry.get(metric).perfect_by_constant
    due = uniform if alone else float(best([*constants, uniform, frequent]))
    assert level.value == pytest.approx(due, abs=max(error, other), nan_ok=True)


@pytest.mark.parametrize("metric", RATES)
def test_luck_is_on_the_better_side_of_chance(metric):
    """Catches: a lucky error rate that is worse than chance, so that a threshold of chance alone is written."""
    labels, better = LABELS["imbalanced"], RATES[metric].better
    level, lucky = chance_level(metric, labels, 4).value, lucky_level(metric, labels, 4)
    assert lucky > level if better == "higher" else lucky < level


def test_a_metric_that_brings_no_chance_level_is_never_held(monkeypatch):
    """Catches: a chance level by default, with which a claim that says nothing passes."""
    monkeypatch.setitem(METRICS.built_in, "error", replace(ERROR, chance_level=None))
    labels = np.arange(40) % 4
    assert math.isnan(chance_level("error", labels, 4).value)
    verdict = claims.judge(Claim("m", "clean", "0", "error", 0.3, "clean", ()), made(labels, labels[None]))
    assert verdict.outcome == "vacuous"
    assert "the chance level of error is unknown" in verdict.message


@pytest.mark.parametrize("metric", [known for known in METRICS.values() if known.claimable], ids=lambda m: m.name)
def test_every_metric_that_ships_brings_its_chance_level(metric):
    assert metric.chance_level is not None


def made(labels, predictions, probability=None, clean=None, source=None):
    """Evidence of these predictions, (strengths, N), and, for a detector, attack probabilities of the same shape."""
    shape, names = predictions.shape, tuple(map(str, range(len(predictions))))
    blank = np.zeros(shape, np.float32)
    return Evidence(
        labels.astype(np.int32), tuple("abcd"), names if clean is not None else ("0",), predictions.astype(np.int32),
        blank, blank, blank, blank, ("ok",) * len(predictions), {"decision": {"threshold": 0.5}},
        attack_probability=None if probability is None else probability.astype(np.float32), clean=clean, source=source,
    )  # fmt: skip


@pytest.mark.parametrize("labels", LABELS.values(), ids=list(LABELS))
@pytest.mark.parametrize("metric", [name for name in OTHERS if name not in OWN_CHANCE])
def test_nothing_that_knows_nothing_holds_a_claim_that_compares(metric, labels):
    """Classes by chance, constant, or none moved; a filter that discards all, nothing, or by chance; at every bound."""
    random, n = np.random.default_rng(12), len(labels)
    shares = np.bincount(labels, minlength=4) / n
    strengths, held, tried = 3, 0, 0
    wrong = np.where(random.random((strengths, n)) < 0.5, (labels + 1) % 4, labels)
    source = made(labels, wrong, clean=made(labels, labels[None]))
    classifiers = {
        "constant": lambda rows: np.full((rows, n), int(shares.argmax())),
        "uniform": lambda rows: random.integers(0, 4, (rows, n)),
        "frequent": lambda rows: random.choice(4, (rows, n), p=shares),
        "one guess": lambda rows: np.repeat(random.integers(0, 4, (1, n)), rows, axis=0),
    }
    # A claim counts beside clean accuracy just above what knowing nothing gets with luck.
    least = chance_level("accuracy", labels, 4).value + 4 * math.sqrt(0.25 / n)
    beside = (("accuracy", least), ("coverage", 0.3))
    for classify in classifiers.values():
        for discards in (0.0, 0.4, 1.0):
            filtered = [(random.random((rows, n)) < discards).astype(float) for rows in (1, strengths)]
            clean = made(labels, classify(1), filtered[0])
            evidence = made(labels, classify(strengths), filtered[1], clean, source)
            for bound in (0.05, 0.3, 0.5, 0.7, 0.95):
                verdict = claims.judge(Claim("m", "s", "2", metric, bound, "attack", beside), evidence)
                tried, held = tried + 1, held + (verdict.outcome == "passed" and not by_luck(verdict, metric, n))
    assert tried == 60
    assert held == 0


def by_luck(verdict, metric, n):
    """Return whether a filter that tosses a fair coin would show as much."""
    least = {"detection_auc": 0.5, "detection_precision": 0.5}.get(metric)
    return least is not None and abs(verdict.measured.value - least) < 5 * math.sqrt(0.25 / n)


@pytest.mark.parametrize(("bound", "outcome"), [(0.25, "vacuous"), (0.3, "vacuous"), (0.35, "passed")])
def test_a_filter_that_discards_by_chance_holds_no_claim_on_what_it_discards(bound, outcome):
    """Catches: 0 as the chance level of a detector's recall, which one that discards three images in ten beats."""
    random, labels = np.random.default_rng(13), np.arange(400) % 4
    tell = [(random.random((1, 400)) < share).astype(float) for share in (0.25, 0.6)]
    clean = made(labels, labels[None], tell[0])
    evidence = made(labels, labels[None], tell[1], clean)
    claim = Claim("m", "s", "0", "rejection_rate", bound, "attack", (("accuracy", 0.9), ("coverage", 0.7)))
    assert claims.judge(claim, evidence).outcome == outcome


# ------------------------------------------------------------------ intervals and influences

STRENGTHS = ("0.1", "0.3", "0.35")
CELLS = [*METRICS, *(f"{name}[1]" for name, known in METRICS.items() if known.takes_class)]
ROW = 2


def drawn(random, n) -> Evidence:
    """Evidence of images from one population: classes, probabilities, a detector, a source, more wrong the stronger."""
    labels = random.choice(4, n, p=[0.4, 0.3, 0.2, 0.1]).astype(np.int32)
    ease = random.normal(size=(n, 1))  # of an image, for both models and at all strengths

    def of(names, margins, tells, **beside):
        logits = np.stack([random.normal(size=(n, 4)) + (m + ease) * np.eye(4)[labels] for m in margins])
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        p = p.astype(np.float32)
        true = p[:, np.arange(n), labels]
        attack = 1 / (1 + np.exp(-random.normal(size=(len(names), n)) - np.array(tells)[:, None]))
        return Evidence(
            labels, tuple("abcd"), names, p.argmax(-1).astype(np.int32), p.max(-1), true, -np.log(true),
            random.normal(10, 3, true.shape).astype(np.float32), ("ok",) * len(names),
            {"decision": {"threshold": 0.5}}, p, attack_probability=attack.astype(np.float32), **beside,
        )  # fmt: skip

    source = of(STRENGTHS, (1.0, 0.2, 0.0), (0.0, 0.0, 0.0), clean=of(("0",), (3.0,), (-1.0,)))
    clean = of(("0",), (3.0,), (-1.5,))
    return of(STRENGTHS, (2.7, 2.3, 1.0), (-1.0, -0.5, 0.5), clean=clean, source=source)


@pytest.fixture(scope="module")
def samples():
    """A population of 100,000 images, and 250 samples of 300 from the same distribution."""
    random = np.random.default_rng(0)
    return drawn(random, 100_000), [drawn(random, 300) for _ in range(250)]


@pytest.mark.parametrize("metric", CELLS)
def test_every_interval_covers(metric, samples):
    """95 % are meant. Catches: an interval of another denominator, of one standard deviation, of twice the width."""
    population, few = samples
    truth = measure_cell(population, ROW, metric).value
    measured = [measure_cell(sample, ROW, metric) for sample in few]
    assert 0.9 <= np.mean([m.interval.low <= truth <= m.interval.high for m in measured])
    width = np.mean([m.interval.high - m.interval.low for m in measured])
    # Chance raises a small calibration error; the interval reaches down to the true one (see test_calibration).
    wider = 0.4 if metric == "ece" else 0.15
    assert width / 2 / 1.96 == pytest.approx(np.std([m.value for m in measured]), rel=wider)


def without(evidence: Evidence, image: int) -> Evidence:
    """Evidence of all images but one."""
    axes = {"probabilities": 1}  # (S, N, K); the others end with the images
    arrays = {name: np.delete(array, image, axes.get(name, -1)) for name, array in evidence._arrays().items()}
    beside = {name: without(of, image) for name in ("clean", "source") if (of := getattr(evidence, name)) is not None}
    return replace(evidence, **arrays, **beside)


@pytest.mark.parametrize("metric", [name for name in (*CELLS, "error") if name == "error" or registry.gateable(name)])
def test_every_influence_is_what_an_image_takes_away(metric):
    """The value without one image, times all others. Catches: an influence of another rate, unscaled, not centred."""
    evidence, reference = drawn(np.random.default_rng(5), 400), registry.parse(metric, tuple("abcd"))
    value, per_image, largest, _ = reference.metric.influence(evidence, ROW, reference.label)
    assert value == pytest.approx(measure_cell(evidence, ROW, metric).value, abs=1e-12)
    assert per_image.shape == (400,)
    assert per_image.mean() == pytest.approx(0, abs=1e-9)
    assert np.abs(per_image).max() <= largest + 1e-9
    left_out = [399 * (value - measure_cell(without(evidence, i), ROW, metric).value) for i in range(60)]
    np.testing.assert_allclose(per_image[:60], left_out, atol=0.05 * np.abs(per_image).max())


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_what_counts_images_counts_what_it_measures(metric: Metric):
    """Catches: a gate that counts the changes of other images than the metric's share is of."""
    evidence = drawn(np.random.default_rng(6), 200)
    for label in (None, 1) if metric.takes_class else (None,):
        counted = metric.count(evidence, ROW, label) if metric.count else None
        if counted is not None:
            measured = metric.measure(evidence, ROW, label, 0.95)
            assert (counted.hits & counted.among).sum() == measured.successes
            assert counted.among.sum() == measured.n
