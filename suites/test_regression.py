"""Retrained models against their accepted baselines: one gate per model, on all its evidence (docs/gate.md)."""


def test_regression(gate, sweep):
    """The model passes its card's gate; its cells are the gate's table."""
    gate.check(sweep)
