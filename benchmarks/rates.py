"""
What the sum of docs/plan.md is made of, measured on one core: ResNet-50's passes, decoding, drawing.

    python -m benchmarks.rates [--output benchmarks/results/rates.json]

Seconds are the processor's. `python -m benchmarks.rates --table` prints the page's table from the file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from benchmarks import folder
from benchmarks.imagenet import IMAGES, MODELS, SHAPE, Rates, whole
from models.large import resnet50
from robustness.cli.plan import size
from robustness.sweep.batching import single_threaded
from robustness.util import hardware, output

RESULT = Path(__file__).with_name("results") / "rates.json"
GIGABIT = 1e9 / 8
ASSUMED = {"a device of 1,000 images/s": 1000.0, "a device of 10,000 images/s": 10_000.0}
"""Not measured: what the sum would be on devices that pass so many images forward a second."""


def measured(images: int = 8, pictures: int = 40) -> dict[str, Any]:
    """Measure on this machine, one thread at work."""
    module = resnet50(outputs=1000, stem="imagenet").eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = torch.rand(images, *SHAPE).contiguous(memory_format=torch.channels_last).requires_grad_()
    with single_threaded():
        gradient = per_second(images, lambda: torch.autograd.grad(module(inputs).logsumexp(1).sum(), inputs))
        with torch.no_grad():
            forward = per_second(images, lambda: module(inputs))
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "pictures").mkdir()
        folder.write(Path(scratch) / "pictures", pictures)
        decoding = folder.images_of(Path(scratch))
        decoded = per_second(pictures, lambda: decoding.stored(0, pictures))
    numbers = np.random.Generator(np.random.Philox(0))
    noise = per_second(20, lambda: numbers.standard_normal((20, *SHAPE), dtype=np.float32))
    return {
        "rates": {"forward": forward, "gradient": gradient, "decoded": decoded, "drawn": noise},
        "device": f"one core, {hardware.device_fingerprint('cpu')}",
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m benchmarks.rates",
    }


def per_second(count: int, call: Callable[[], object]) -> float:
    """Return how many are done a second of the processor, after a warm-up."""
    call()
    started = time.process_time()
    call()
    return count / (time.process_time() - started)


def table(found: dict[str, Any]) -> str:
    """Lay out the sum as docs/plan.md shows it."""
    rates = found["rates"]
    rows = []
    for name, forward in {"one core, measured": rates["forward"], **ASSUMED}.items():
        gradient = forward * rates["gradient"] / rates["forward"]
        total = whole(Rates(forward, gradient, rates["decoded"], rates["drawn"], GIGABIT))
        rows.append([
            name, f"{total.device_hours:,.0f}", f"{total.drawing_hours / total.device_hours:.2f}",
            *(total.first(machines) for machines in (1, 10, 100)),
        ])  # fmt: skip
    header = ["", "device hours", "cores that draw, a device", "longest with 1 machine", "with 10", "with 100"]
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def sentence(found: dict[str, Any]) -> str:
    """Say what does not depend on the device, as docs/plan.md does."""
    total = whole(Rates(**found["rates"], network=GIGABIT))
    return (
        f"{total.forward / 1e9:.2f} billion images forward and {total.backward / 1e9:.2f} billion backward, "
        f"{size(total.evidence)} of evidence; {size(total.pixels + total.weights)} to each machine "
        f"({size(total.pixels)} of pixels, {size(total.weights)} of weights)"
    )


def main(given: Sequence[str] | None = None) -> int:
    """Measure and write, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="print the page's table from the file, measure nothing")
    arguments = parser.parse_args(given)
    if not arguments.table:
        arguments.output.parent.mkdir(exist_ok=True)
        arguments.output.write_text(json.dumps(measured(), indent=1) + "\n", encoding="utf-8")
    found = json.loads(arguments.output.read_text(encoding="utf-8"))
    print(f"{IMAGES:,} images x {MODELS} models: {sentence(found)}\n\n{table(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(output.run(main))
