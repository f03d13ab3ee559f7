"""Sweeps that were asked for without claims: a model without a card, or any model under a profile."""


def test_measured(measured, sweep):
    """The sweep was made, and has numbers at every strength; nothing is claimed of them."""
    measured.check(sweep(measured.sweep))
