"""Iterative, sparse and adaptive attacks, and those of other libraries, at every strength of the card."""

import pytest

pytestmark = pytest.mark.claims(family="attack")


def test_attacks(claim, sweep):
    """The model meets its card's claim under attack."""
    claim.check(sweep(claim.sweep))
