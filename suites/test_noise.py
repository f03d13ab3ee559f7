"""Additive noise, x + V·R and U(−ε, ε), at every amplitude of the card (digits-noise, section 5.1)."""

import pytest

pytestmark = pytest.mark.claims(family="noise")


def test_noise(claim, sweep):
    """The model meets its card's claim under noise."""
    claim.check(sweep(claim.sweep))
