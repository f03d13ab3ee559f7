"""What cameras and light do to images, at every strength of the card."""

import pytest

pytestmark = pytest.mark.claims(family="natural")


def test_natural(claim, sweep):
    """The model keeps what its card claims under natural changes."""
    claim.check(sweep(claim.sweep))
