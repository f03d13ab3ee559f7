"""
Which convolutions PyTorch's oneDNN computes wrongly on the CPU, or leaves its buffers for.

    python -m benchmarks.onednn [--isa AVX2 native] [--count 2000] [--layout contiguous channels-last ours]

Each shape is run in a process of its own, which is forked from one that has imported torch. Output and gradients to
input and weight are compared with those of float64, which oneDNN has no part in. Each of torch's buffers ends meanwhile
before a page that may not be touched: what reads or writes behind it ends the process, always (this needs a C compiler
and Linux). `ours` is the layout that `robustness.classifiers.modules.lay_out` chooses. Prints one JSON line for each
shape that is wrong, and a table; ends with 1 where anything is wrong.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tabulate import tabulate

from robustness.util import output

LAYOUTS = "contiguous", "channels-last", "ours"
AXES = {
    "kernel": (1, 1, 3, 5, 7),
    "stride": (1, 2, 3),
    "padded": (False, True),
    "dilation": (1, 1, 2),
    "inputs": (1, 3, 6, 8, 12, 16, 20, 32),
    "outputs": (1, 6, 8, 12, 16, 24),
    "groups": ("one", "one", "two", "each"),
    "batch": (1, 3, 20),
    "size": (7, 12, 28),
}
TOLERANCE = 1e-3
GUARD = r"""
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#define PAGE 4096ul
#define ROOM (1ul << 40)
extern void __libc_free(void *);
static char *begin;
static atomic_ulong used;
__attribute__((constructor)) static void reserve(void) {
    begin = mmap(0, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (begin == MAP_FAILED) abort();
}
/* A page with the size, the block, and a page that may not be touched. */
int posix_memalign(void **out, size_t alignment, size_t size) {
    size_t due = (size + alignment - 1) / alignment * alignment, pages = (due + PAGE - 1) / PAGE * PAGE;
    char *page = begin + atomic_fetch_add(&used, pages + 2 * PAGE);
    if (mprotect(page, pages + PAGE, PROT_READ | PROT_WRITE)) return ENOMEM;
    *(size_t *)page = size;
    char *block = page + PAGE + pages - due;
    memset(block + size, 0xA5, due - size);
    *out = block;
    return 0;
}
void free(void *given) {
    char *block = given;
    if (block < begin || block >= begin + ROOM) { __libc_free(given); return; }
    char *page = (char *)((uintptr_t)block / PAGE * PAGE) - PAGE;
    for (unsigned char *each = (unsigned char *)block + *(size_t *)page; (uintptr_t)each % PAGE; each++)
        if (*each != 0xA5) abort();
    mprotect(page, *(size_t *)page + PAGE, PROT_NONE);
}
"""
"""Stands before glibc: blocks that torch and oneDNN ask for end where their memory ends."""


def shapes(count: int) -> list[dict[str, Any]]:
    """Draw that many convolutions, the same each time."""
    drawn = random.Random(0)
    found: dict[str, dict[str, Any]] = {}
    while len(found) < count:
        shape = {name: drawn.choice(values) for name, values in AXES.items()}
        if shape["groups"] == "each":
            shape["outputs"] = shape["inputs"]
        elif shape["groups"] == "two" and (shape["inputs"] % 2 or shape["outputs"] % 2):
            continue
        if shape["kernel"] == 1:
            shape["padded"], shape["dilation"] = False, 1
        reach = shape["dilation"] * (shape["kernel"] - 1) + 1
        if shape["size"] + 2 * (reach // 2 if shape["padded"] else 0) >= reach:
            found[json.dumps(shape)] = shape
    return list(found.values())


def run(shape: dict[str, Any], layout: str, say: Callable[[str], object]) -> list[str]:
    """Compute a convolution's output and gradients, each said before; return the names of those that are wrong."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    groups = {"one": 1, "two": 2, "each": shape["inputs"]}[shape["groups"]]
    reach = shape["dilation"] * (shape["kernel"] - 1) + 1
    settings = {"stride": shape["stride"], "dilation": shape["dilation"], "groups": groups}
    settings["padding"] = reach // 2 if shape["padded"] else 0
    one = nn.Conv2d(shape["inputs"], shape["outputs"], shape["kernel"], **settings)
    exact = nn.Conv2d(shape["inputs"], shape["outputs"], shape["kernel"], **settings).double()
    exact.load_state_dict(one.state_dict())
    images = torch.rand(shape["batch"], shape["inputs"], shape["size"], shape["size"])
    if layout != "contiguous":
        images = images.contiguous(memory_format=torch.channels_last)
        one.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if layout == "ours":
        from robustness.classifiers.modules import lay_out

        lay_out(one)
    directions = torch.rand(exact(images.double()).shape)

    def results(module: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        leaf = images.detach().to(dtype).requires_grad_()
        say("output")
        found = {"output": (output := module(leaf))}
        for name, to in {"input gradient": leaf, "weight gradient": module.weight}.items():
            say(name)
            (found[name],) = torch.autograd.grad(output, [to], directions.to(dtype), retain_graph=True)
        return {name: value.detach().double() for name, value in found.items()}

    expected, computed = results(exact, torch.float64), results(one, torch.float32)
    say("end")
    return [
        name
        for name, due in expected.items()
        if not (computed[name] - due).abs().max() <= TOLERANCE * (1 + due.abs().max())
    ]


def forked(shape: dict[str, Any], layout: str) -> list[str]:
    """Run one shape in a process of its own; return what is wrong with it."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        wrong = run(shape, layout, lambda what: os.write(writing, f"{what}\n".encode()))
        os.write(writing, json.dumps(wrong).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        *_, last = stream.read().splitlines() or [""]
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        return [f"{last}: ended with {status}"]
    return [str(name) for name in json.loads(last)]


def work(count: int, layout: str) -> int:
    """Print a JSON line for each shape: what is wrong with it."""
    import torch
    import torch.fx.experimental.symbolic_shapes  # a backward pass imports it: here, once, and not in every child

    import robustness.classifiers.modules  # noqa: F401

    torch.set_num_threads(1)
    for shape in shapes(count):
        print(json.dumps({"layout": layout, **shape, "wrong": forked(shape, layout)}), flush=True)
    return 0


def lines(isa: str, layout: str, count: int) -> Iterator[dict[str, Any]]:
    """Run all shapes with a set of instructions."""
    settings = {"OMP_NUM_THREADS": "1"}
    if isa != "native":
        settings["ONEDNN_MAX_CPU_ISA"] = isa
    with tempfile.TemporaryDirectory() as folder:
        source, guard = Path(folder) / "guard.c", Path(folder) / "guard.so"
        source.write_text(GUARD, encoding="utf-8")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", guard, source], check=True)
        command = [sys.executable, "-m", "benchmarks.onednn", "--work", layout, "--count", str(count)]
        environment = {**os.environ, **settings, "LD_PRELOAD": str(guard)}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as started:
            assert started.stdout is not None
            for line in started.stdout:
                yield {"isa": isa, **json.loads(line)}
        if started.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {started.returncode}")


def main() -> int:
    """Print what is wrong, and a table of how many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", nargs="+", default=["AVX2", "native"], help="values of ONEDNN_MAX_CPU_ISA, or native")
    parser.add_argument("--layout", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--count", type=int, default=2000, help="how many shapes (default: 2000)")
    parser.add_argument("--work", choices=LAYOUTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.count, options.work)
    rows, any_wrong = [], False
    for isa, layout in itertools.product(options.isa, options.layout):
        total, kinds = 0, Counter[str]()
        for line in lines(isa, layout, options.count):
            total += 1
            kinds.update(line["wrong"])
            if line["wrong"]:
                any_wrong = True
                print(json.dumps(line), flush=True)
        rows.append([isa, layout, total, ", ".join(f"{n} {what}" for what, n in kinds.most_common()) or "none"])
    print(tabulate(rows, ["instructions", "layout", "shapes", "wrong"], tablefmt="github"))
    return int(any_wrong)


if __name__ == "__main__":
    sys.exit(output.run(main))
