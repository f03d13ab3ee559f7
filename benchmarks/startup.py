"""
What the plugin costs a run that does not use it, and what a warm run costs beside as many empty tests.

    python -m benchmarks.startup [--repeats 5]

Every figure is the median over runs of a whole process; the contestants take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from robustness.util import output

ROOT = Path(__file__).parents[1]
MODELS = "digits-mlp", "digits-cnn"
SUITES = ["suites", *(f"--robustness-model={name}" for name in MODELS)]
EMPTY = "import pytest\n\n@pytest.mark.parametrize('i', range({count}))\ndef test_empty(i):\n    pass\n"


def seconds(arguments: list[str], folder: Path, store: Path) -> float:
    """Time one run of pytest in a folder; an exit code that is not 0 is an error."""
    environment = {**os.environ, "ROBUSTNESS_STORE": str(store)}
    started = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return taken


def compare(repeats: int, claims: int = 238) -> dict[str, float]:
    """Return the median seconds of each contestant."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, store = Path(scratch) / "empty", Path(scratch) / "store"
        folder.mkdir()
        (folder / "test_empty.py").write_text(EMPTY.format(count=claims))
        contestants = {
            f"{claims} empty tests, -n 0, without the plugin": (["-n", "0", "-p", "no:robustness"], folder),
            f"{claims} empty tests, -n 0": (["-n", "0"], folder),
            "warm suites, -n 0": ([*SUITES, "-n", "0"], ROOT),
            f"{claims} empty tests, -n auto": (["-n", "auto"], folder),
            "warm suites, -n auto": ([*SUITES, "-n", "auto"], ROOT),
        }
        cold = seconds([*SUITES, "-n", "auto"], ROOT, store)
        for arguments, where in contestants.values():
            seconds(arguments, where, store)  # warm-up
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(repeats):
            for name, (arguments, where) in contestants.items():
                times[name].append(seconds(arguments, where, store))
    return {"cold suites, -n auto": cold} | {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    found = compare(arguments.repeats)
    print(f"{' and '.join(MODELS)}, 238 claims, {os.cpu_count()} cores, median of {arguments.repeats} runs (cold: one)")
    print(tabulate([[name, round(value, 2)] for name, value in found.items()], ["", "seconds"], tablefmt="github"))
    return 0


if __name__ == "__main__":
    sys.exit(output.run(main))
