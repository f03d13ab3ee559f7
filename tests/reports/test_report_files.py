"""What every result file says of its origin."""

import json

import pytest

from reports.commands import OUTPUT
from reports.verdicts import JUDGED

FILES = sorted(OUTPUT.glob("*.json"))


def data_sets(found):
    """Yield every data set that a provenance names."""
    if isinstance(found, dict):
        if {"name", "n", "fingerprint"} <= set(found):
            yield found
        for value in found.values():
            yield from data_sets(value)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_result_file_names_data_seeds_scale_device_and_versions(file):
    """Catches: a report whose numbers cannot be attributed, such as one that leaves out its seeds."""
    result = json.loads(file.read_text(encoding="utf-8"))
    origin = result["provenance"]
    assert result["scale"] in {"smoke", *JUDGED}
    sets = list(data_sets(origin["data"]))
    assert sets
    assert all(of["name"] and of["n"] > 0 and of["fingerprint"] for of in sets)
    seeds = result.get("seeds") or origin["seeds"]  # digits-noise has its seeds beside its epochs
    assert seeds
    assert all(isinstance(seed, int) for seed in seeds)
    assert origin["device"]
    assert origin["cores"] > 0
    assert {"python", "pytest-robustness", "torch", "numpy"} <= set(origin["versions"])
    assert all(origin["versions"].values())


def test_there_are_result_files():
    assert len(FILES) > 20
