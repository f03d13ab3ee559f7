"""Iterated, sparse, adaptive and other libraries' attacks at every strength of the card."""

import pytest

pytestmark = pytest.mark.claims(family="attack")


def test_attacks(claim, sweep):
    """The model keeps what its card claims under attack."""
    claim.check(sweep(claim.sweep))
