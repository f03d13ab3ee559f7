"""Runs of the papers' commands on embedded digits, which the tests of this folder share."""

import os
import shutil

import pytest

from reports.paper import RUNS
from robustness.metrics.evidence import Evidence
from robustness.workspace.store import Store

# The units that a run measures; all of the smoke scale if there are none.
UNITS = {"signs-adversarial": ["--seeds", "3"], "eyes-parseval": ["--folds", "0"], "label-2n": ["--folds", "0"]}


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """The folder of a store that xdist's workers share: what one of them trains the others wait for."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "reports-store"


@pytest.fixture(scope="session")
def command(store):
    """Run a paper's command at the smoke scale; return its exit code."""

    def run(paper, output, *more, store=store):
        places = ["--store", str(store), "--output", str(output), "--workers", "1"]
        return paper.main(["--data-set", "digits", "--scale", "smoke", *UNITS.get(paper.name, []), *places, *more])

    return run


@pytest.fixture(scope="session")
def smoke(command, tmp_path_factory):
    """Return the folder with the results of a paper's run, which takes place once."""
    folders = {}

    def folder(paper):
        if paper.name not in folders:
            if "PYTEST_XDIST_WORKER" not in os.environ:  # what an earlier session built would not be built again
                shutil.rmtree(RUNS / f"{paper.package}-digits-smoke", ignore_errors=True)
            folders[paper.name] = tmp_path_factory.mktemp(paper.name)
            assert command(paper, folders[paper.name]) == 0
        return folders[paper.name]

    return folder


@pytest.fixture(scope="session")
def evidence_of(store):
    """Return the stored evidence of a result by its name there."""

    def read(result, name):
        return Evidence.from_bytes(Store(store).path("evidence", result["evidence"][name]["key"]).read_bytes())

    return read
