"""What a classifier that knows nothing gets: constants through scikit-learn, guesses by trying every one."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from robustness import claims
from robustness.cards import Claim
from robustness.metrics import confusion_rates
from robustness.metrics.chance_level import chance_level
from robustness.metrics.confusion import confusion_matrix
from robustness.metrics.evidence import Evidence
from robustness.metrics.registry import METRICS, MetricError, MetricKind, measure, measure_matrix

AVERAGES = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "precision_micro", "recall_micro", "f1_micro")


def scored(metric: str, labels, predictions, classes: int) -> float:
    """Scikit-learn's number."""
    if metric == "accuracy":
        return sklearn.accuracy_score(labels, predictions)
    if metric == "balanced_accuracy":  # whose own function warns of predictions that are nobody's label
        return sklearn.recall_score(labels, predictions, labels=np.unique(labels), average="macro")
    name, _, kind = metric.partition("_")
    score = getattr(sklearn, f"{name}_score")
    return score(labels, predictions, labels=range(classes), zero_division=0, average=kind or "macro")


@settings(max_examples=40, deadline=None)
@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=40), metric=st.sampled_from(AVERAGES))
def test_constant_is_the_best_of_all_constants(labels, metric):
    """Always taking class 0, or a macro average over the classes that are present, would give another number."""
    best = max(scored(metric, labels, [guess] * len(labels), 6) for guess in range(6))
    found = chance_level(metric, labels, 6)
    assert found.constant == pytest.approx(best, abs=1e-12)
    assert found.value >= max(found.constant, found.guess)


@pytest.mark.parametrize("labels", [[0, 1, 1, 1], [0, 0, 1, 1, 2], [2, 2, 2, 2], [0, 1, 2]])
def test_area_of_constant_probabilities(labels):
    """Through scikit-learn, of one who gives every image the labels' shares. Catches: one half where it is more."""
    shares = np.bincount(labels, minlength=3) / len(labels)
    due = sklearn.roc_auc_score(np.eye(3)[labels].ravel(), np.tile(shares, len(labels)))
    found = chance_level("roc_auc", labels, 3)
    assert found.constant == pytest.approx(due, abs=1e-12)
    assert found.value == max(found.constant, 0.5)


@pytest.mark.parametrize("labels", [[0, 0, 1, 2], [1, 1, 1, 0, 0], [2]])
@pytest.mark.parametrize(
    "metric", [*AVERAGES, *(f"{name}[{c}]" for name in ("precision", "recall", "f1") for c in (0, 1))]
)
def test_guess_is_the_mean_over_every_guess(labels, metric):
    """Exactly: 3ⁿ equally likely guesses; those for which one class's metric is undefined are left out."""
    values = [measure(metric, labels, guess, 3).value for guess in itertools.product(range(3), repeat=len(labels))]
    defined = [value for value in values if not math.isnan(value)]
    expected = math.fsum(defined) / len(defined) if defined else math.nan
    assert chance_level(metric, labels, 3).guess == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("metric", ["precision", "f1", "recall", "balanced_accuracy", "f1[7]", "precision[7]"])
def test_guess_holds_in_simulation(metric):
    random = np.random.default_rng(7)
    labels = np.repeat(np.arange(10), np.arange(10, 110, 10))
    matrices = (confusion_matrix(labels, random.integers(0, 10, len(labels)), 10) for _ in range(400))
    values = np.array([measure_matrix(metric, matrix).value for matrix in matrices])
    assert chance_level(metric, labels, 10).guess == pytest.approx(values.mean(), abs=4 * values.std() / 20)


@pytest.mark.parametrize("name", ["precision", "f1"])
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_the_constant_of_that_class(name, label):
    labels = [0, 0, 0, 1]
    score = getattr(sklearn, f"{name}_score")
    found = chance_level(f"{name}[{label}]", labels, 2)
    assert found.constant == pytest.approx(score(labels, [label] * 4, labels=[label], average="macro"))
    assert found.value >= found.constant


def test_recall_of_one_class_can_be_claimed():
    """The constant of that class has recall 1: as a floor it would refuse every bound."""
    found = chance_level("recall[cat]", [0, 1, 1, 1], ["cat", "dog"])
    assert (found.value, found.constant) == (0.5, 1.0)


def test_a_class_without_images_has_no_recall_to_claim():
    assert math.isnan(chance_level("recall[2]", [0, 1], 3).value)


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=5), seed=st.integers(0, 999))
def test_loss_floor_is_the_least_of_constant_probabilities(counts, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    found = chance_level("loss", labels, len(counts))
    others = np.random.default_rng(seed).dirichlet(np.ones(len(counts)), 50)
    shares = np.array(counts) / sum(counts)

    assert found.value == pytest.approx(sklearn.log_loss(labels, np.tile(shares, (len(labels), 1))))
    assert all(-np.log(p[labels]).mean() >= found.value - 1e-12 for p in others)
    assert found.guess == pytest.approx(np.log(len(counts)))


def test_large_data_sets_do_not_underflow():
    """0.9¹⁰⁰⁰⁰ is past what a float holds; the F1 of a guess on balanced classes comes near 0.1 all the same."""
    found = chance_level("f1", np.repeat(np.arange(10), 1000), 10)
    assert found.guess == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize("metric", [name for name, kind in METRICS.items() if kind.claimable and not kind.compares])
def test_one_class_alone_is_always_right(metric):
    found = chance_level(metric, [0, 0], 1)
    assert found == ((0, 0, 0) if metric == "loss" else (1, 1, 1))


def test_what_one_who_knows_nothing_gets_of_metrics_that_compare():
    """Catches: a detector's coin toss called a claim, an accuracy after filtering that a constant classifier has."""
    labels = [0, 1, 1, 1]
    due = {
        "transferability": 1,
        "undetected_wrong": 1,
        "kept": 0,
        "discarded": 0,
        "detection_auc": 0.5,
        "deviation": 0.5,
    }
    assert {metric: chance_level(metric, labels, 2).value for metric in due} == due
    assert chance_level("accuracy_filtered", labels, 2) == chance_level("accuracy", labels, 2)
    assert chance_level("sensitivity", labels, 2).value == math.inf


def test_what_cannot_be_claimed_has_no_floor():
    with pytest.raises(MetricError, match="snr"):
        chance_level("snr", [0, 1], 2)


def test_no_images_have_no_floor():
    assert math.isnan(chance_level("accuracy", [], 2).value)


# ------------------------------------------------------------------ the contract of all metrics

LABELS = {
    "balanced": np.arange(200) % 4,
    "imbalanced": np.repeat(np.arange(4), [150, 30, 15, 5]),
    "an absent class": np.repeat([0, 1, 3], [80, 60, 60]),
    "two of four classes, imbalanced": np.repeat([1, 2], [120, 80]),
}
DRAWS = 300


def kappa(matrix, label=None):
    """Cohen's kappa: 0 of one who knows nothing, however the classes are divided."""
    n, chance = matrix.sum(), (matrix.sum(0) @ matrix.sum(1)) / matrix.sum() ** 2
    value = math.nan if chance == 1 else float((matrix.trace() / n - chance) / (1 - chance))
    return confusion_rates.RateEstimate(value, int(n), None, np.zeros(matrix.shape))


def errors(matrix, label=None):
    """The error rate, of which less is better."""
    return confusion_rates.RateEstimate(
        1 - float(matrix.trace() / matrix.sum()), int(matrix.sum()), None, np.zeros(matrix.shape)
    )


NEW = {
    "kappa": MetricKind("Cohen's kappa", kappa, lambda images, guessed, label: 0.0),
    "error": MetricKind(
        "error rate", errors, lambda images, guessed, label: 1 - float(images @ guessed / images.sum()), better="lower"
    ),
}
RATES = {name: kind for name, kind in METRICS.items() if kind.rate is not None} | NEW


@pytest.mark.parametrize("labels", LABELS.values(), ids=list(LABELS))
@pytest.mark.parametrize("metric", [*RATES, *(f"{name}[1]" for name in ("precision", "f1"))])
def test_every_chance_level_is_that_of_a_simulation(metric, labels, monkeypatch):
    """Constants, uniform guesses and guesses by the labels' shares. Catches: 1/classes for any metric that is new."""
    monkeypatch.setattr("robustness.metrics.registry.METRICS", METRICS | NEW)
    monkeypatch.setattr("robustness.metrics.chance_level.METRICS", METRICS | NEW)
    random, better = np.random.default_rng(11), RATES[metric.partition("[")[0]].better
    shares = np.bincount(labels, minlength=4) / len(labels)

    def simulated(probabilities):
        drawn = (random.choice(4, len(labels), p=probabilities) for _ in range(DRAWS))
        values = np.array([measure_matrix(metric, confusion_matrix(labels, each, 4)).value for each in drawn])
        return np.nanmean(values), 5 * np.nanstd(values) / math.sqrt(DRAWS) + 1e-9

    constants = [measure_matrix(metric, confusion_matrix(labels, np.full_like(labels, c), 4)).value for c in range(4)]
    constants = [constants[1]] if "[" in metric else constants
    (uniform, error), (frequent, other) = simulated(np.full(4, 0.25)), simulated(shares)
    best = np.nanmax if better == "higher" else np.nanmin
    found = chance_level(metric, labels, 4)
    assert found.guess == pytest.approx(uniform, abs=error)
    assert found.constant == pytest.approx(float(best(constants)), nan_ok=True)
    assert found.value == pytest.approx(float(best([*constants, uniform, frequent])), abs=max(error, other))


def test_a_metric_that_brings_no_chance_level_is_never_held(monkeypatch):
    """Catches: a chance level by default, with which a claim that says nothing is held."""
    monkeypatch.setattr("robustness.metrics.registry.METRICS", METRICS | {"kappa": MetricKind("kappa", kappa)})
    labels = np.arange(40) % 4
    assert math.isnan(chance_level("kappa", labels, 4).value)
    verdict = claims.judge(Claim("m", "clean", "0", "kappa", 0.3, "clean", ()), made(labels, labels[None]))
    assert verdict.outcome == "refused"
    assert "it is not known what a classifier that knows nothing gets of kappa" in verdict.message


@pytest.mark.parametrize("name", [name for name, kind in METRICS.items() if kind.claimable])
def test_every_metric_that_ships_brings_its_chance_level(name):
    assert METRICS[name].has_chance


def made(labels, predictions, probability=None, clean=None, source=None):
    """Evidence of these predictions, (strengths, N), and, for a detector, attack probabilities of the same shape."""
    shape, names = predictions.shape, tuple(map(str, range(len(predictions))))
    blank = np.zeros(shape, np.float32)
    return Evidence(
        labels.astype(np.int32), tuple("abcd"), names if clean is not None else ("0",), predictions.astype(np.int32),
        blank, blank, blank, blank, ("ok",) * len(predictions), {"decision": {"threshold": 0.5}},
        attack_probability=None if probability is None else probability.astype(np.float32), clean=clean, source=source,
    )  # fmt: skip


COMPARE = [name for name, kind in METRICS.items() if kind.compares and not kind.probabilities]


@pytest.mark.parametrize("labels", LABELS.values(), ids=list(LABELS))
@pytest.mark.parametrize("metric", COMPARE)
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
    beside = (("accuracy", least), ("kept", 0.3))
    for classify in classifiers.values():
        for discards in (0.0, 0.4, 1.0):
            filtered = [(random.random((rows, n)) < discards).astype(float) for rows in (1, strengths)]
            clean = made(labels, classify(1), filtered[0])
            evidence = made(labels, classify(strengths), filtered[1], clean, source)
            for bound in (0.05, 0.3, 0.5, 0.7, 0.95):
                verdict = claims.judge(Claim("m", "s", "2", metric, bound, "attack", beside), evidence)
                tried, held = tried + 1, held + (verdict.outcome == "held" and not by_luck(verdict, metric, n))
    assert tried == 60
    assert held == 0


def by_luck(verdict, metric, n):
    """Return whether a filter that tosses a fair coin would show as much."""
    least = {"detection_auc": 0.5, "detection_precision": 0.5}.get(metric)
    return least is not None and abs(verdict.measured.value - least) < 5 * math.sqrt(0.25 / n)


@pytest.mark.parametrize(("bound", "outcome"), [(0.25, "refused"), (0.3, "refused"), (0.35, "held")])
def test_a_filter_that_discards_by_chance_holds_no_claim_on_what_it_discards(bound, outcome):
    """Catches: 0 as the chance level of a detector's recall, which one that discards three images in ten beats."""
    random, labels = np.random.default_rng(13), np.arange(400) % 4
    tell = [(random.random((1, 400)) < share).astype(float) for share in (0.25, 0.6)]
    clean = made(labels, labels[None], tell[0])
    evidence = made(labels, labels[None], tell[1], clean)
    claim = Claim("m", "s", "0", "discarded", bound, "attack", (("accuracy", 0.9), ("kept", 0.7)))
    assert claims.judge(claim, evidence).outcome == outcome
