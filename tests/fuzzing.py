"""
Mutates what a user can hand over, and holds each mutation to: a clear error, or the same numbers as another reader's.

    python tests/fuzzing.py [--mutations 1000] [--seed 0] [--kind KIND ...]

Each kind is read by the package and, where it is believed, once more by what does not belong to it (tomllib, NumPy,
Pillow, plain PyTorch), or held to the file before it was mutated where a checksum must have found the change. Kinds
take turns in a process of their own, whose death, and whose silence for a minute, counts as a failure.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import tomllib
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import fuzzed  # noqa: E402  # the kinds

SILENCE = 60.0
"""Seconds after which one mutation counts as one that hangs."""


def flipped(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 8])):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def header_flipped(content: bytes, chance: random.Random) -> bytes:
    """Flip where formats keep what they say of themselves: at the start, or at the end."""
    at = chance.randrange(min(len(content), 200) or 1)
    at = at if chance.random() < 0.5 else len(content) - 1 - at
    return content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :] if content else content


def truncated(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def doubled(content: bytes, chance: random.Random) -> bytes:
    start, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    return content[:end] + content[start:end] + content[end:]


def inserted(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content) + 1)
    return content[:at] + chance.randbytes(chance.choice([1, 4, 300])) + content[at:]


def cut(content: bytes, chance: random.Random) -> bytes:
    start, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + content[end:]


def zeroed(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    end = min(len(content), start + chance.choice([4, 64, 4096]))
    return content[:start] + bytes(end - start) + content[end:]


BYTES = [flipped, flipped, header_flipped, truncated, doubled, inserted, cut, zeroed]
VALUES: list[Any] = [
    None, True, 0, -1, 2**63, 10**30, 0.0, -0.5, 1e308, float("nan"), "", "x", "../x", "/etc/passwd", "a\nb",
    "\x1b[31m", "x" * 20_000, [], [[]], {}, {"x": 1}, [None], ["", ""], "::error::x", "=1+1",
]  # fmt: skip


def deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*path, key))


def retyped(document: Any, chance: random.Random) -> Any:
    """Put another value, of another type, at one place of a document; or take a place away, or double it."""
    document = json.loads(json.dumps(document))
    path = chance.choice([path for path in leaves(document) if path])
    place = document
    for key in path[:-1]:
        place = place[key]
    how = chance.random()
    if how < 0.2:
        del place[path[-1]]
    elif how < 0.3 and isinstance(place, list):
        place.append(place[path[-1]])
    elif how < 0.35:
        place[path[-1]] = deep(chance.choice([70, 400]))
    elif how < 0.45 and isinstance(place, dict):
        place[chance.choice(["x", "name", "../x", "x" * 5000, ""])] = place.pop(path[-1])
    else:
        place[path[-1]] = chance.choice(VALUES)
    return document


def as_json(content: bytes, chance: random.Random) -> bytes:
    return json.dumps(retyped(json.loads(content), chance)).encode()


def as_toml(content: bytes, chance: random.Random) -> bytes:
    import tomlkit

    with contextlib.suppress(Exception):  # what TOML cannot say
        return tomlkit.dumps(retyped(tomllib.loads(content.decode()), chance)).encode()
    return flipped(content, chance)


def as_zip(content: bytes, chance: random.Random) -> bytes:
    """Mutate a member, or the list of members, and write an archive that is whole in itself."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = chance.randrange(len(members))
    name, inside = members[at]
    how = chance.random()
    if how < 0.6:
        members[at] = name, mutated(inside, chance, name)
    elif how < 0.7:
        del members[at]
    elif how < 0.8:
        members.append(members[at])
    elif how < 0.9:
        members[at] = chance.choice(["../x", "/tmp/x", "x" * 300, "a\\b", ""]), inside
    else:
        members.append((chance.choice(["x", "../y", "constants.pkl"]), b"x"))
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for each, data in members:
            archive.writestr(each or "empty", data)
    return stream.getvalue()


def mutated(content: bytes, chance: random.Random, name: str) -> bytes:
    """Return other bytes for a file of this name."""
    own = {".json": as_json, ".toml": as_toml, ".npz": as_zip, ".zip": as_zip, ".pt": as_zip}.get(Path(name).suffix)
    if own is not None and chance.random() < 0.6:
        with contextlib.suppress(ValueError, zipfile.BadZipFile, IndexError):
            return own(content, chance)
    return chance.choice(BYTES)(content, chance)


def one(kind: fuzzed.Kind, number: int, seed: int) -> str:
    """Mutate one input of a kind and say what came of it: an error's class, "same" or "other", or a failure."""
    from robustness.errors import RobustnessError

    chance = random.Random(f"{seed} {kind.name} {number}")
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        shutil.copytree(kind.sound, here / "x", symlinks=True)
        for _ in range(20):
            file = here / "x" / chance.choice(kind.files)
            before = file.read_bytes()
            after = mutated(before, chance, file.name)
            if after != before:
                break
        file.write_bytes(after)
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(None), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                return kind.read(here / "x")
        except RobustnessError as error:
            said = str(error)
            return (
                type(error).__name__ if said and "Traceback" not in said and len(said) < 20_000 else f"FAILED: {said}"
            )
        except BaseException:
            keep = Path(tempfile.gettempdir()) / f"fuzz-{kind.name}-{number}{file.suffix}"
            keep.write_bytes(after)
            return f"FAILED ({file.name}, kept as {keep}): {traceback.format_exc()}"


def work(names: list[str], numbers: range, seed: int, sound: Path, pipe: Any, done: frozenset[tuple[str, int]]) -> None:
    """Run mutations in turn, telling each before it begins and when it has ended."""
    kinds = fuzzed.kinds(sound, names)
    for number in numbers:
        for kind in kinds:
            if (kind.name, number) not in done:
                pipe.send(("begun", kind.name, number, ""))
                pipe.send(("ended", kind.name, number, one(kind, number, seed)))
    pipe.send(("over", "", 0, ""))


def fuzz(
    mutations: int, seed: int = 0, names: list[str] | None = None, show: Callable[[str], None] = lambda line: None
) -> dict[str, Counter[str]]:
    """Return what came of so many mutations, by kind; failures stand among them by their text."""
    names = names or list(fuzzed.KINDS)
    numbers = range(-(-mutations // len(names)))
    found: dict[str, Counter[str]] = {name: Counter() for name in names}
    done: set[tuple[str, int]] = set()
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder)
        fuzzed.write(sound, names)
        while True:
            ours, theirs = multiprocessing.get_context("spawn").Pipe()
            arguments = (names, numbers, seed, sound, theirs, frozenset(done))
            process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
            process.start()
            theirs.close()
            now, over = None, False
            try:
                while ours.poll(SILENCE if now else 10 * SILENCE):
                    what, name, number, outcome = ours.recv()
                    over = what == "over"
                    now = (name, number) if what == "begun" else None
                    if over:
                        break
                    if what == "ended":
                        done.add((name, number))
                        found[name][outcome] += 1
                        if outcome.startswith("FAILED"):
                            show(f"{name} {number}: {outcome}")
                how = "hangs"
            except EOFError:
                how = "ends the process"
            process.kill()
            process.join()
            if over:
                return found
            if now is None:
                raise RuntimeError("the process that mutates could not be started")
            done.add(now)
            found[now[0]][f"FAILED: {how}"] += 1
            show(f"{now[0]} {now[1]}: {how}")


def main() -> int:
    """Fuzz, and print a table; 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--mutations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=list(fuzzed.KINDS))
    given = parser.parse_args()
    found = fuzz(given.mutations, given.seed, given.kind, lambda line: print(line, flush=True))
    for name, counts in found.items():
        failed = sum(count for outcome, count in counts.items() if outcome.startswith("FAILED"))
        listed = ", ".join(f"{n} {o}" for o, n in counts.most_common() if not o.startswith("FAILED"))
        print(f"{name:12} {counts.total():6} mutations, {failed} failed: {listed}")
    print(f"{sum(each.total() for each in found.values())} mutations")
    return int(any(outcome.startswith("FAILED") for counts in found.values() for outcome in counts))


if __name__ == "__main__":
    sys.exit(main())
