"""A hundred mutations of what users hand over; `python tests/fuzzing.py` makes thousands."""

import fuzzing


def test_a_hundred_mutations():
    """Each is a clear error, or has another reader's numbers. Catches: tracebacks, hangs, numbers of nobody's."""
    found = fuzzing.fuzz(105, seed=0)
    failed = {name: [o for o in outcomes if o.startswith("FAILED")] for name, outcomes in found.items()}
    assert {name: outcomes for name, outcomes in failed.items() if outcomes} == {}
    assert sum(outcomes.total() for outcomes in found.values()) == 105
    assert sum(len(outcomes) > 1 for outcomes in found.values()) >= 5, "they are refused for various reasons"
