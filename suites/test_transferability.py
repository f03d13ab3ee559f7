"""Examples made on the models that a card names as sources, sent to its own (label-2n, section 5)."""

import pytest

pytestmark = pytest.mark.claims(family="transfer")


def test_transferability(claim, sweep):
    """The model keeps what its card claims against examples that were made on another model."""
    claim.check(sweep(claim.sweep))
