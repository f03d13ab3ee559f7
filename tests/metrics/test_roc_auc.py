"""ROC curves, the area under them, and the micro-averaged area with its interval over images."""

import helpers
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from robustness import cards, claims
from robustness.errors import CardError
from robustness.metrics import roc_auc
from robustness.metrics.metric import MetricError
from robustness.perturbations import GaussianNoise
from robustness.sweep.runner import run_sweep


def drawn(seed, count, classes, places=6):
    """Probabilities that know something, rounded so that there are ties."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    logits = random.normal(size=(count, classes)) + 1.2 * np.eye(classes)[labels]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return np.float32(np.round(shares, places)), labels


@given(st.integers(0, 2**16), st.integers(2, 60), st.integers(2, 5), st.sampled_from([1, 6]))
def test_it_is_scikit_learn_s_over_all_classes_together(seed, count, classes, places):
    """Catches: a macro average, ties won or lost, a class against another instead of the rest."""
    probabilities, labels = drawn(seed, count, classes, places)
    value, _ = roc_auc.micro_auc_variance(probabilities, labels)
    due = roc_auc_score(np.eye(classes)[labels].ravel(), probabilities.ravel())
    assert value == pytest.approx(due, abs=1e-9)


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_its_variance_is_that_of_drawing_images_again(classes):
    """Catches: an interval that takes an image's scores for independent: a third too narrow with two classes."""
    probabilities, labels = drawn(1, 300, classes)
    _, variance = roc_auc.micro_auc_variance(probabilities, labels)
    random = np.random.default_rng(0)
    values = []
    for _ in range(600):
        rows = random.integers(0, len(labels), len(labels))
        values.append(roc_auc.micro_auc_variance(probabilities[rows], labels[rows])[0])
    assert np.sqrt(variance) == pytest.approx(np.std(values), rel=0.12)


SCORES = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=2, max_size=12)


@given(positive=SCORES, negative=SCORES)
def test_area_is_scikit_learn_s_and_its_variance_delong_s(positive, negative):
    """
    Ties count half, and the curve encloses the area.

    Catches: the two samples swapped, ties lost or won, a variance by n instead of n − 1, a curve of other points.
    """
    one, other = np.float32(positive), np.float32(negative)
    value, variance = roc_auc.delong(one, other)
    truth, scores = [1] * len(one) + [0] * len(other), np.concatenate([one, other])
    assert value == pytest.approx(roc_auc_score(truth, scores))
    kernel = (one[:, None] > other).astype(float) + 0.5 * (one[:, None] == other)
    due = kernel.mean(1).var(ddof=1) / len(one) + kernel.mean(0).var(ddof=1) / len(other)
    assert variance == pytest.approx(due, abs=1e-12)
    curve = roc_auc.roc_curve(truth, scores)
    assert np.trapezoid(curve.true_positive_rates, curve.false_positive_rates) == pytest.approx(value)


@pytest.mark.parametrize(
    ("positive", "scores", "complaint"),
    [
        ([1, 1], [0.1, 0.2], "both kinds"),
        ([0, 2], [0.1, 0.2], "`positive`"),
        ([0, 1], [0.1], "`positive`"),
        ([0, 1], [0.1, float("nan")], "`scores`"),
    ],
)
def test_a_curve_of_what_is_no_score_is_refused(positive, scores, complaint):
    with pytest.raises(ValueError, match=complaint):
        roc_auc.roc_curve(positive, scores)


@pytest.mark.usefixtures("own_path")
def test_a_card_that_asks_for_them_has_probabilities_in_all_its_evidence(tmp_path):
    """Catches: evidence of a card without them served to one with them, and clean evidence that lacks them."""
    path = helpers.project(tmp_path / "project")
    without = helpers.open_workspace(path).evidence(cards.load(path), "normal")
    assert without.probabilities is None
    path.write_text(path.read_text().replace('name = "tiny"', 'name = "tiny"\nstore_probabilities = true', 1))
    made, card = helpers.open_workspace(path), cards.load(path)
    for name in ("clean", "normal"):
        evidence = made.evidence(card, name)
        assert evidence.probabilities is not None
        assert np.allclose(evidence.probabilities.sum(axis=2), 1, atol=1e-5)
    again = helpers.open_workspace(path).evidence(card, "normal")
    assert np.array_equal(again.probabilities, evidence.probabilities), "kept with it"


def test_a_card_that_keeps_no_probabilities_cannot_claim_it(tmp_path):
    text = helpers.CARD + "\n[claims.clean]\naccuracy = [0.5]\nroc_auc = [0.9]\n"
    with pytest.raises(
        CardError, match=r"claims\.clean\.roc_auc: needs the probability of every class in the evidence"
    ):
        cards.load(helpers.project(tmp_path / "without", "", text))


def test_evidence_without_probabilities_has_none():
    images = helpers.images(20)
    without, having = (
        run_sweep(helpers.linear(images), images, GaussianNoise(), [0.1], probabilities=kept) for kept in (False, True)
    )
    with pytest.raises(MetricError, match="`roc_auc` needs the probability of every class, got evidence without"):
        claims.measure(without, "0.1", "roc_auc")
    measured = claims.measure(having, "0.1", "roc_auc")
    due = roc_auc_score(np.eye(len(images.classes))[images.labels].ravel(), having.probabilities[0].ravel())
    assert measured.value == pytest.approx(due)
    assert measured.interval.low < due < measured.interval.high
