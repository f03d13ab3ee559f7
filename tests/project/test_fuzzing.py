"""A hundred mutations of what users hand over; `python tests/fuzzing.py` makes thousands."""

import fuzzed
import fuzzing
import pytest


def test_a_hundred_mutations():
    """Each is a clear error, or has another reader's numbers. Catches: tracebacks, hangs, numbers of nobody's."""
    found = fuzzing.fuzz(112, seed=0)
    failed = {name: [o for o in outcomes if o.startswith("FAILED")] for name, outcomes in found.items()}
    assert {name: outcomes for name, outcomes in failed.items() if outcomes} == {}
    assert sum(outcomes.total() for outcomes in found.values()) == 112
    assert sum(len(outcomes) > 1 for outcomes in found.values()) >= 5, "they are refused for various reasons"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", fuzzed.KINDS)
def test_what_is_mutated_is_sound(name, tmp_path):
    """Catches: a fuzzer all of whose inputs are refused, mutated or not."""
    write, read = fuzzed.KINDS[name]
    write(tmp_path)
    assert read(tmp_path) in ("same", "other")
