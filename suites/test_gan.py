"""A generative network's perturbation, x + k·G(x), at every k of the card (Xiao et al. 2018)."""

import pytest

pytestmark = pytest.mark.claims(family="gan")


def test_gan(claim, sweep):
    """The model keeps what its card claims under the perturbation that a generator makes."""
    claim.check(sweep(claim.sweep))
