"""Sweeps without claims: of a model without a card, or of any model under a profile."""


def test_measured(measured, sweep):
    """The sweep has numbers at every strength; nothing is claimed."""
    measured.check(sweep(measured.sweep))
