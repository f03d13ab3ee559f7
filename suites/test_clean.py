"""The unperturbed images: without clean accuracy, robustness means nothing."""

import pytest

pytestmark = pytest.mark.claims(family="clean")


def test_clean(claim, sweep):
    """The model meets its card's claim without any perturbation."""
    claim.check(sweep(claim.sweep))
