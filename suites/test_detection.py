"""Decisions that detect attacks: rejection, detection and selective accuracy; accuracy over strengths (label-2n)."""

import pytest

pytestmark = pytest.mark.claims(family="detection")


def test_detection(claim, sweep):
    """The model meets its card's claim about detection, filtering or sensitivity."""
    claim.check(sweep(claim.sweep))
