"""Mean corruption error, against the published definition by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustness.metrics.corruption_error import error_rates, mean_corruption_error, relative_mean_corruption_error
from robustness.metrics.evidence import OK, Evidence
from robustness.metrics.metric import MetricError

RATES = st.lists(st.lists(st.floats(0.1, 1), min_size=5, max_size=5), min_size=2, max_size=4)


def evidence(predictions, status=(OK, OK)):
    size = np.shape(predictions)
    return Evidence(
        np.array([0, 1, 1, 0]), ("a", "b"), ("1", "2"), np.array(predictions),
        *(np.ones(size) for _ in range(4)), status,
    )  # fmt: skip


def test_errors_are_shares_of_wrong_images():
    """Catches: accuracy for error, a mean over the severities; a cell without numbers that counts as right."""
    assert error_rates(evidence([[0, 1, 1, 0], [1, 1, 1, 1]])) == [0.0, 0.5]
    with pytest.raises(MetricError, match="must have numbers at every severity, but 2 raised"):
        error_rates(evidence([[0, 1, 1, 0], [0, 1, 1, 0]], (OK, "raised ValueError")))


@given(rates=RATES, factor=st.floats(0.1, 1))
def test_a_model_that_errs_proportionally_has_that_ratio(rates, factor):
    """Catches: a mean of ratios per severity, a ratio of means over all corruptions, the inverse."""
    reference = {str(i): row for i, row in enumerate(rates)}
    errors = {name: [factor * error for error in row] for name, row in reference.items()}
    assert mean_corruption_error(errors, reference) == pytest.approx(factor)
    clean = 0.05
    lost = {name: [clean + factor * (error - clean) for error in row] for name, row in reference.items()}
    assert relative_mean_corruption_error(lost, reference, clean, clean) == pytest.approx(factor)


def test_what_cannot_be_compared_is_refused():
    """Catches: a corruption that one of the two lacks and that is left out; 0/0."""
    for errors in ({"fog": [0.1]}, {"fog": [0.1, 0.2], "snow": [0.1, 0.2]}, {}):
        with pytest.raises(MetricError, match="must have the same corruptions and severities"):
            mean_corruption_error(errors, {"fog": [0.1, 0.2]} if errors else {})
    with pytest.raises(MetricError, match="`reference` must lose accuracy under fog"):
        mean_corruption_error({"fog": [0.1]}, {"fog": [0.0]})
    with pytest.raises(MetricError, match="`reference` must lose accuracy under fog"):
        relative_mean_corruption_error({"fog": [0.1]}, {"fog": [0.2]}, 0.1, 0.2)
