"""Confusion matrices against scikit-learn, confusion groups against plain loops and the published tables."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn

from robustness.metrics.confusion import attractors, concentration, confusion_groups, confusion_matrix

# A label and a prediction of seven classes; in so few images some classes have none of either.
PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=50)


@settings(max_examples=50, deadline=None)
@given(PAIRS, st.sampled_from([np.int64, np.uint8, np.int32]))
def test_matrix_is_scikit_learns(pairs, dtype):
    labels, predictions = np.array(pairs, dtype).T

    matrix = confusion_matrix(labels, predictions, 7)

    np.testing.assert_array_equal(matrix, sklearn.confusion_matrix(labels, predictions, labels=range(7)))
    assert matrix.dtype == np.int64


def test_narrow_labels_do_not_overflow():
    """42 · 43 + 42 is past uint8."""
    assert confusion_matrix(np.array([42], np.uint8), np.array([42], np.uint8), 43)[42, 42] == 1


def test_no_images_are_a_matrix_of_zeros():
    np.testing.assert_array_equal(confusion_matrix([], [], 2), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("labels", "predictions", "classes", "complaint"),
    [
        ([0, 1], [0, -1], 2, "`predictions` .* -1 marks an image without a valid prediction"),
        ([0, -1], [0, 1], 2, "`labels` .* got -1"),
        ([0, 1], [0, 2], 2, r"`predictions` .* got 2 \(1 of 2 outside\)"),
        ([0, 1], [0], 2, r"`predictions` must have one class per label \(2\), got 1"),
        ([0, 1], [0.0, 1.0], 2, "`predictions` must be one integer per image"),
        ([[0, 1]], [0, 1], 2, "`labels` must be one integer per image"),
        ([0], [0], 0, "`classes`"),
    ],
)
def test_what_is_no_class_is_refused(labels, predictions, classes, complaint):
    with pytest.raises(ValueError, match=complaint):
        confusion_matrix(labels, predictions, classes)


# At least 6 % of an image's class, as the noise paper lists them; its percentages are of all images of the digit.
NOISY = {
    0: {2: 0.16, 5: 0.27, 7: 0.135},
    1: {2: 0.13, 3: 0.176, 5: 0.25, 7: 0.085, 9: 0.073},
    2: {3: 0.143, 5: 0.156},
    3: {2: 0.137, 5: 0.249, 7: 0.064},
    4: {2: 0.11, 5: 0.222, 7: 0.166, 9: 0.09},
    5: {2: 0.107, 3: 0.15, 7: 0.073},
    6: {2: 0.169, 4: 0.084, 5: 0.26, 7: 0.092},
    7: {2: 0.113, 3: 0.137, 5: 0.184, 9: 0.087},
    8: {2: 0.169, 3: 0.19, 5: 0.252},
    9: {2: 0.09, 3: 0.116, 4: 0.124, 5: 0.22, 7: 0.177},
}


def published() -> np.ndarray:
    """A thousand images a digit that fall as the paper lists, the rest right."""
    matrix = np.zeros((10, 10), np.int64)
    for digit, group in NOISY.items():
        for wrong, share in group.items():
            matrix[digit, wrong] = round(1000 * share)
        matrix[digit, digit] = 1000 - matrix[digit].sum()
    return matrix


def test_groups_are_the_papers():
    """Shares of the wrong predictions, of the column, or a strict bound would give others."""
    assert confusion_groups(published()) == NOISY
    assert [digit for digit, _ in attractors(published(), 4)] == [5, 2, 3, 7]


def test_groups_begin_at_the_share_itself():
    matrix = np.array([[88, 6, 6], [0, 100, 0], [0, 0, 0]])
    assert confusion_groups(matrix, 0.06) == {0: {1: 0.06, 2: 0.06}, 1: {}, 2: {}}
    assert confusion_groups(matrix, 0.061) == {0: {}, 1: {}, 2: {}}


@settings(max_examples=50, deadline=None)
@given(PAIRS, st.integers(1, 4))
def test_attractors_and_concentration_by_hand(pairs, top):
    drawn = Counter(guess for label, guess in pairs if guess != label)
    ranked = sorted(drawn.items(), key=lambda item: (-item[1], item[0]))[:top]
    matrix = confusion_matrix(*np.array(pairs).T, 7)

    assert attractors(matrix, top) == [(label, count / drawn.total()) for label, count in ranked]
    share, entropy = concentration(matrix, top)
    if drawn:
        assert share == pytest.approx(sum(count for _, count in ranked) / drawn.total())
        assert entropy == pytest.approx(stats.entropy(list(drawn.values()), base=2), abs=1e-12)
        assert share <= 1
        assert entropy >= 0


def test_nothing_wrong_has_no_attractor():
    matrix = np.diag([5, 5, 0])
    assert attractors(matrix) == []
    assert confusion_groups(matrix) == {0: {}, 1: {}, 2: {}}
    assert all(math.isnan(number) for number in concentration(matrix))


def test_group_share_is_a_share():
    with pytest.raises(ValueError, match="`share`"):
        confusion_groups(np.eye(2, dtype=np.int64), 6)
