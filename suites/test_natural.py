"""Changes by cameras and light, at every strength of the card."""

import pytest

pytestmark = pytest.mark.claims(family="natural")


def test_natural(claim, sweep):
    """The model meets its card's claim under natural changes."""
    claim.check(sweep(claim.sweep))
