"""The perturbation of a generator, x + k·G(x), at every k of the card (Xiao et al. 2018)."""

import pytest

pytestmark = pytest.mark.claims(family="gan")


def test_gan(claim, sweep):
    """The model meets its card's claim under a generator's perturbation."""
    claim.check(sweep(claim.sweep))
