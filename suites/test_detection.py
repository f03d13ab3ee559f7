"""What a decision that can tell an attack keeps, tells and gets right; accuracy over strengths (label-2n)."""

import pytest

pytestmark = pytest.mark.claims(family="detection")


def test_detection(claim, sweep):
    """The model keeps what its card claims about detection, filtering and sensitivity."""
    claim.check(sweep(claim.sweep))
