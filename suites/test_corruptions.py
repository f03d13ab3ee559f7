"""Common corruptions, at every severity of the card."""

import pytest

pytestmark = pytest.mark.claims(family="corruption")


def test_corruptions(claim, sweep):
    """The model meets its card's claim under a common corruption."""
    claim.check(sweep(claim.sweep))
