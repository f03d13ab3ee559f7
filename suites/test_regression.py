"""Retrained models against their accepted baselines: one gate a model, which reads all its evidence (docs/gate.md)."""


def test_regression(gate, sweep):
    """The model passes the gate that its card asks for; its cells are the gate's table."""
    gate.check(sweep)
