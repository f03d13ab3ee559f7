"""The images as they are: what a model must know before its robustness means anything."""

import pytest

pytestmark = pytest.mark.claims(family="clean")


def test_clean(claim, sweep):
    """The model keeps what its card claims without any perturbation."""
    claim.check(sweep(claim.sweep))
