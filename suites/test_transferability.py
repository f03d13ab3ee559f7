"""Examples computed on the card's source models, tested on its own model (label-2n, section 5)."""

import pytest

pytestmark = pytest.mark.claims(family="transfer")


def test_transferability(claim, sweep):
    """The model meets its card's claim against examples computed on another model."""
    claim.check(sweep(claim.sweep))
