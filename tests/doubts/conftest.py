"""Runs of the shipped suites in a process of their own."""

import subprocess
import sys

import helpers
import pytest


@pytest.fixture
def run_suites(monkeypatch):
    """Run suites on what lies in a folder, with a store beside it and no configuration."""

    def run(folder, *arguments, suites=""):
        monkeypatch.setenv("ROBUSTNESS_STORE", str(folder / "store"))
        options = ["-c", "/dev/null", "--rootdir", folder, "-q", "-n", "0", "-p", "no:cacheprovider", *arguments]
        return subprocess.run(
            [sys.executable, "-m", "pytest", helpers.ROOT / "suites" / suites, *options],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=helpers.LIMIT,
        )

    return run
