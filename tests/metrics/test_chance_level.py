"""What a classifier that knows nothing gets: constants through scikit-learn, guesses by trying every one."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn
from test_metrics import scored

from robustness.metrics.chance_level import chance_level
from robustness.metrics.metric import MetricError
from robustness.metrics.registry import METRICS, measure

AVERAGES = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "precision_micro", "recall_micro", "f1_micro")


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


def test_without_images_there_is_nothing_to_claim():
    assert math.isnan(chance_level("recall[2]", [0, 1], 3).value)
    assert math.isnan(chance_level("accuracy", [], 2).value)


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


@pytest.mark.parametrize("metric", [*(name for name, known in METRICS.items() if known.rate), "loss"])
def test_one_class_alone_is_always_right(metric):
    found = chance_level(metric, [0, 0], 1)
    assert found == ((0, 0, 0) if metric == "loss" else (1, 1, 1))


def test_what_one_who_knows_nothing_gets_of_metrics_that_compare():
    """Catches: a detector's coin toss called a claim, an accuracy after filtering that a constant classifier has."""
    labels = [0, 1, 1, 1]
    due = {
        "transferability": 1,
        "undetected_error_rate": 1,
        "coverage": 0,
        "rejection_rate": 0,
        "detection_auc": 0.5,
        "accuracy_std": 0.5,
    }
    assert {metric: chance_level(metric, labels, 2).value for metric in due} == due
    assert chance_level("selective_accuracy", labels, 2) == chance_level("accuracy", labels, 2)
    assert chance_level("max_accuracy_slope", labels, 2).value == math.inf


def test_what_cannot_be_claimed_has_no_floor():
    with pytest.raises(MetricError, match="snr"):
        chance_level("snr", [0, 1], 2)
