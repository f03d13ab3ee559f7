"""The fast gradient sign method at every ε of the card (Goodfellow et al. 2015)."""

import pytest

pytestmark = pytest.mark.claims(family="fgsm")


def test_fgsm(claim, sweep):
    """The model meets its card's claim under FGSM."""
    claim.check(sweep(claim.sweep))
