"""Metrics against scikit-learn, their intervals against simulation, and the published tables."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from robustness.errors import RobustnessError
from robustness.metrics.intervals import mean_interval, wilson
from robustness.metrics.metric import MetricError
from robustness.metrics.registry import METRICS, measure, measure_matrix, parse

AVERAGES = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "precision_micro", "recall_micro", "f1_micro")
MACRO = ("precision", "recall", "f1", "balanced_accuracy")

# The noise paper's tables 1 and 2, after one epoch and after ten: rows are the true digits, a thousand images each.
TABLE_1 = """
979 0 0 0 2 5 3 1 8 2
0 984 1 2 0 0 0 0 7 6
0 10 958 16 1 1 0 3 9 2
0 1 7 955 0 17 0 4 5 11
0 2 2 0 951 5 3 0 1 36
2 0 1 8 0 984 1 0 2 2
6 2 1 0 1 14 971 0 5 0
0 7 4 1 4 3 0 907 1 73
2 8 2 2 0 15 4 1 960 6
2 1 0 6 1 0 2 3 1 984
"""
TABLE_2 = """
971 0 2 0 1 5 11 0 8 2
1 983 1 1 4 0 1 1 7 1
2 7 957 20 2 1 1 3 6 1
0 1 4 976 0 6 3 3 3 4
0 0 2 2 985 1 3 0 0 7
1 0 1 4 0 986 6 0 2 0
1 2 0 0 2 2 990 0 3 0
0 2 0 6 6 2 0 975 2 7
1 2 0 1 1 3 4 3 983 2
1 0 0 5 4 3 1 4 5 977
"""


@st.composite
def decisions(draw):
    """Labels and predictions, each from classes of its own: some have no images, some no predictions, some neither."""
    classes = draw(st.integers(2, 12))
    present = st.sampled_from(draw(st.lists(st.integers(0, classes - 1), min_size=1, unique=True)))
    predicted = st.sampled_from(draw(st.lists(st.integers(0, classes - 1), min_size=1, unique=True)))
    pairs = draw(st.lists(st.tuples(present, predicted), min_size=1, max_size=60))
    return [label for label, _ in pairs], [prediction for _, prediction in pairs], classes


def scored(metric: str, labels, predictions, classes: int, **average):
    """Scikit-learn's number, or with ``average=None`` one a class."""
    if metric == "accuracy":
        return sklearn.accuracy_score(labels, predictions)
    if metric == "balanced_accuracy":  # whose own function warns of predictions that are nobody's label
        return sklearn.recall_score(labels, predictions, labels=np.unique(labels), average="macro")
    name, _, kind = metric.partition("_")
    score = getattr(sklearn, f"{name}_score")
    return score(labels, predictions, labels=range(classes), zero_division=0, **{"average": kind or "macro", **average})


def table(text: str) -> np.ndarray:
    return np.array(text.split(), np.int64).reshape(10, 10)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (TABLE_1, {"accuracy": 0.9633, "precision[0]": 0.9879, "recall[0]": 0.979, "f1[0]": 0.9834}),
        (TABLE_2, {"accuracy": 0.9783, "precision[0]": 0.992843, "recall[0]": 0.971, "f1[0]": 0.9818}),
    ],
)
def test_published_tables(text, printed):
    """With rows and columns exchanged precision[0] would be 0.971; as a macro average, 0.9784."""
    for metric, value in printed.items():
        digits = len(str(value)) - 2
        assert round(measure_matrix(metric, table(text)).value, digits) == value


def test_published_counts():
    recall, precision = measure_matrix("recall[0]", table(TABLE_2)), measure_matrix("precision[0]", table(TABLE_2))
    assert (recall.successes, recall.n, recall.method) == (971, 1000, "wilson")
    assert recall.interval == wilson(971, 1000)
    assert (precision.successes, precision.n, precision.method) == (None, 978, "delta")


@settings(max_examples=50, deadline=None)
@given(decisions())
def test_averages_are_scikit_learns(case):
    """Absent classes decide: left out, counted 0, or counted as 1."""
    for metric in AVERAGES:
        assert measure(metric, *case).value == pytest.approx(scored(metric, *case), abs=1e-12), metric


@settings(max_examples=50, deadline=None)
@given(decisions())
def test_each_class_is_scikit_learns(case):
    labels, predictions, classes = case
    for name in ("precision", "recall", "f1"):
        expected = scored(name, *case, average=None)
        for label in range(classes):
            measured = measure(f"{name}[{label}]", *case)
            of_class, as_class = labels.count(label), predictions.count(label)
            both = sum(label in pair for pair in zip(labels, predictions, strict=True))
            assert measured.n == {"precision": as_class, "recall": of_class, "f1": both}[name]
            if measured.n:
                assert measured.value == pytest.approx(expected[label], abs=1e-12)
                assert not measured.note
            else:
                assert math.isnan(measured.value)
                assert all(math.isnan(end) for end in measured.interval)
                assert "the class has n" in measured.note


@settings(max_examples=50, deadline=None)
@given(decisions())
def test_intervals_hold_their_value(case):
    for metric in (*AVERAGES, "precision[0]", "recall[0]", "f1[0]"):
        measured = measure(metric, *case)
        if not math.isnan(measured.value):
            low, high = measured.interval
            assert 0 <= low <= measured.value <= high <= 1
            assert high > low


@given(st.integers(2, 12), st.integers(1, 50))
def test_a_perfect_classifier_has_exactly_one(classes, images):
    """Ten times 0.1 is below 1, and a bound of 1 would be missed."""
    labels = np.repeat(np.arange(classes), images)
    assert all(measure(metric, labels, labels, classes).value == 1 for metric in AVERAGES)


def test_balanced_macro_recall_is_accuracy_to_the_last_bit():
    matrix = table(TABLE_2)
    assert measure_matrix("recall", matrix).value == measure_matrix("accuracy", matrix).value == 0.9783


def test_absent_classes_are_named():
    labels, predictions = [0, 0, 1, 1], [0, 0, 0, 2]
    assert measure("precision", labels, predictions, 4).note == "2 of 4 classes without predictions counted 0"
    assert measure("recall", labels, predictions, 4).note == "2 of 4 classes without images counted 0"
    assert measure("balanced_accuracy", labels, predictions, 4).note == "2 of 4 classes without images left out"
    assert "without predictions" in measure("f1", labels, predictions, 4).note
    assert measure("recall[3]", labels, predictions, 4).note == "the class has no images"


@pytest.mark.parametrize("metric", AVERAGES)
def test_no_images_are_no_result(metric):
    measured = measure(metric, [], [], 3)
    assert math.isnan(measured.value)
    assert (measured.n, measured.note) == (0, "no images")


@pytest.mark.parametrize("metric", [*MACRO, "precision[3]", "f1[3]"])
def test_gradient_is_the_slope(metric):
    """One more image in a cell, on a table a million times as large, whose rates are exact quotients of integers."""
    matrix = np.random.default_rng(3).integers(1, 30, (5, 5)) * 10**6
    parsed = parse(metric, 5)
    estimate = parsed.metric.rate(matrix, parsed.label)
    slopes = np.zeros((5, 5))
    for cell in np.ndindex(5, 5):
        more = matrix.copy()
        more[cell] += 1000
        slopes[cell] = (parsed.metric.rate(more, parsed.label).value - estimate.value) / 1000 * matrix.sum()
    np.testing.assert_allclose(estimate.gradient, slopes, rtol=1e-3, atol=1e-4)


def population(accuracy: float) -> np.ndarray:
    """Cell probabilities of ten classes with uneven confusions and some more images of some classes."""
    random = np.random.default_rng(10)
    cells = random.dirichlet(np.full(10, 0.7), 10)
    np.fill_diagonal(cells, 0)
    cells *= (1 - accuracy) / cells.sum(axis=1, keepdims=True)
    np.fill_diagonal(cells, accuracy)
    return cells * random.dirichlet(np.full(10, 50))[:, None]


def simulated(metric: str, accuracy: float, draws: int) -> tuple[float, list]:
    """The population's value, and what is measured on samples of 600 images."""
    cells = population(accuracy)
    truth = measure_matrix(metric, np.rint(cells * 1e12).astype(np.int64)).value
    samples = np.random.default_rng(600).multinomial(600, cells.ravel(), draws).reshape(-1, 10, 10)
    return truth, [measure_matrix(metric, sample) for sample in samples]


@pytest.mark.parametrize("metric", [*MACRO, "precision[3]", "f1[3]"])
def test_delta_intervals_cover(metric):
    truth, measured = simulated(metric, 0.8, 2000)
    covered = np.mean([m.interval.low <= truth <= m.interval.high for m in measured])
    assert 0.93 < covered < 0.97
    widths = np.mean([m.interval.high - m.interval.low for m in measured]) / 2 / 1.96
    assert widths == pytest.approx(np.std([m.value for m in measured]), rel=0.06)


@pytest.mark.parametrize("metric", ["precision", "f1"])
def test_lower_ends_hold_near_one(metric):
    """Where releases are decided; estimate ± z·σ puts 9 % of its lower ends above the truth here."""
    truth, measured = simulated(metric, 0.995, 1000)
    assert np.mean([m.interval.low > truth for m in measured]) < 0.03


def test_confidence_reaches_every_interval():
    numbers = {"loss": np.arange(4.0), "snr": np.arange(4.0)}
    for metric in (*(name for name, known in METRICS.items() if known.rate), "loss", "snr"):
        wide, narrow = (
            measure(metric, [0, 1, 1, 0], [0, 1, 0, 0], 2, **numbers, confidence=c).interval for c in (0.99, 0.5)
        )
        assert wide.low < narrow.low <= narrow.high < wide.high


def test_loss_is_a_mean_over_images():
    measured = measure("loss", [0, 1, 1], [0, 1, 1], 2, loss=np.float32([1, 2, 6]))
    assert (measured.value, measured.n, measured.method, measured.successes) == (3, 3, "normal", None)
    assert measured.interval == mean_interval([1, 2, 6])


def test_infinite_loss_is_not_left_out():
    """A classifier that is surely wrong once must not look better than one that is a little wrong."""
    measured = measure("loss", [0, 1], [0, 1], 2, loss=[1, math.inf])
    assert (measured.value, measured.note) == (math.inf, "1 of 2 images with infinite loss")


def test_unchanged_images_have_no_snr():
    measured = measure("snr", [0, 1, 1], [0, 1, 1], 2, snr=[math.inf, 30, 50])
    assert (measured.value, measured.n) == (40, 2)
    assert measured.note == "1 of 3 images with infinite snr (unchanged, or black) left out"
    assert math.isnan(measure("snr", [0], [0], 2, snr=[math.inf]).value)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: measure("loss", [0, 1], [0, 1], 2), "`loss`"),
        (lambda: measure("loss", [0, 1], [0, 1], 2, loss=[1.0]), "`loss`"),
        (lambda: measure("loss", [0, 1], [0, 1], 2, loss=[1.0, math.nan]), "`loss`"),
        (lambda: measure("accuracy", [0, 1], [0, -1], 2), "-1"),
        (lambda: measure_matrix("accuracy", np.ones((2, 3), np.int64)), "`matrix`"),
        (lambda: measure_matrix("accuracy", np.ones((3, 3), np.int64), 2), "`matrix`"),
        (lambda: measure_matrix("accuracy", np.ones((2, 2), np.int64), ["a", "b", "c"]), "`matrix`"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, complaint):
    """Catches: an image without a number or a prediction that is left out, a matrix without a row for each class."""
    with pytest.raises(ValueError, match=complaint):
        call()


def test_a_matrix_has_no_loss():
    with pytest.raises(MetricError, match="loss="):
        measure_matrix("loss", table(TABLE_1))


@pytest.mark.parametrize(
    ("metric", "classes", "expected"),
    [
        ("accuracy", 10, ("accuracy", None)),
        ("precision", 10, ("precision", None)),
        ("recall[9]", 10, ("recall", 9)),
        ("f1[partially open]", ["open", "partially open"], ("f1", 1)),
        ("f1[stop [all-way]]", ["stop [all-way]"], ("f1", 0)),
        ("recall[3]", [str(digit) for digit in range(10)], ("recall", 3)),  # by index and by name the same
        ("recall[50]", ["20", "30", "50"], ("recall", 2)),
        ("precision_micro", 2, ("precision_micro", None)),
    ],
)
def test_parse_reads(metric, classes, expected):
    assert parse(metric, classes) == expected


PETS, SIGNS = ["cat", "dog", "1"], [f"sign {index}" for index in range(43)]


@pytest.mark.parametrize(
    ("metric", "classes", "complaint"),
    [
        ("acuracy", PETS, "did you mean 'accuracy'"),
        ("Balanced accuracy", PETS, "did you mean 'balanced_accuracy'"),
        ("precision_macro", PETS, "did you mean 'precision'"),
        ("f1-score", PETS, "did you mean 'f1'"),
        ("precison[0]", PETS, "did you mean 'precision'"),
        ("zzz", PETS, "snr; got 'zzz'$"),
        ("", PETS, "got ''$"),
        ("accuracy[0]", PETS, r"precision\[CLASS\].*got 'accuracy\[0\]'"),
        ("recall[0", PETS, "must be one of"),
        ("recall[3]", PETS, "index, 0 to 2, or by name, 'cat', 'dog', '1'"),
        ("recall[-1]", PETS, "must name a class"),
        ("recall[]", PETS, "must name a class"),
        ("recall[Dgo]", PETS, "did you mean 'dog'"),
        ("recall[1]", PETS, "classes 1, 2 by index or name"),
        ("recall[cat]", ["cat", "cat"], "classes 0, 1"),
        ("recall[sing 40]", SIGNS, r"'sign 11', …; got 'sing 40'; did you mean 'sign 40'"),
    ],
)
def test_parse_refuses(metric, classes, complaint):
    """Catches: a name that two classes bear, a list of all of many classes, no word of what may be meant."""
    with pytest.raises(MetricError, match=complaint) as caught:
        parse(metric, classes)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, RobustnessError)


def test_an_unknown_metric_is_told_of_all():
    """Catches: one that ships and is not listed, a class offered for a metric that has none."""
    with pytest.raises(MetricError) as caught:
        parse("acuracy", 10)
    assert str(caught.value) == (
        "`metric` must be one of accuracy, balanced_accuracy, precision, precision[CLASS], recall, recall[CLASS], f1, "
        "f1[CLASS], precision_micro, recall_micro, f1_micro, roc_auc, loss, ece, brier, attack_success_rate, "
        "transferability, selective_transferability, selective_accuracy, coverage, rejection_rate, "
        "undetected_error_rate, detection_precision, detection_auc, max_accuracy_slope, accuracy_std, accuracy_range, "
        "selective_max_accuracy_slope, selective_accuracy_std, selective_accuracy_range, snr; "
        "got 'acuracy'; did you mean 'accuracy'?"
    )


def test_claims_are_checked_without_slow_imports():
    """Scikit-learn, scipy and torch take seconds each; a warm run asserts on stored evidence only."""
    slow = {"torch", "sklearn", "scipy", "pytest"}
    code = f"import sys, robustness.metrics.chance_level; print(sorted({slow} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
