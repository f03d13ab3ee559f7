"""What `fuzzing` mutates: for each kind of input a sound one, and how the package and another reader read it."""

from __future__ import annotations

import io
import json
import os
import tomllib
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helpers
import numpy as np
from picture_files import folder as picture_folder
from picture_files import picture

from robustness import cards, data
from robustness.errors import RobustnessError
from robustness.workspace.store import Store

KEY = "ab" + "0" * 62
CARD = """
name = "tiny"
profile = "quick"
description = "a card with a bit of everything"

[model]
factory = "net:factory"
weights = "tiny.safetensors"
arguments = { classes = 10 }

[data]
name = "digits"
split = { kind = "balanced", per_class = 3 }

[sweeps.normal]
kind = "gaussian"
strengths = [0.2, 0.8]

[claims.clean]
accuracy = 0.9

[claims.normal]
accuracy = [0.8, "no claim possible"]
"recall[3]" = [0.5, 0.25]

[gate]
kind = "paired"
margin = 0.02

[[waivers]]
claim = "normal:0.2:accuracy"
owner = "me"
reason = "known"
expires = 2999-01-01
"""


@dataclass(frozen=True)
class Kind:
    """A sound input in a folder, the files of it that are mutated, and its two readers."""

    name: str
    sound: Path
    files: tuple[str, ...]
    read: Callable[[Path], str]
    """Says "same" or "other" (numbers, which another reader gives too); raises RobustnessError, or fails."""


def same(got: Any, due: Any, *, sound: Any = None) -> str:
    """Hold numbers to those of another reader; say whether they are those of the sound file."""
    assert np.array_equal(np.asarray(got), np.asarray(due), equal_nan=np.asarray(due).dtype.kind in "fc")
    return "same" if sound is None or np.array_equal(np.asarray(got), np.asarray(sound)) else "other"


# Each kind: a function that writes the sound input into a folder, and one that reads it.


def write_card(here: Path) -> None:
    (here / "pyproject.toml").write_text('[tool.robustness]\nmodels = ["*.toml"]\n')
    (here / "net.py").write_text(helpers.MODULE)
    (here / "tiny.toml").write_text(CARD)


def read_card(here: Path) -> str:
    card = cards.load(here / "tiny.toml")
    table = tomllib.loads((here / "tiny.toml").read_text())
    assert card.name == table["name"]
    for claim in card.claims():
        row = table["claims"][claim.sweep]
        strengths = row.get("strengths", table.get("sweeps", {}).get(claim.sweep, {}).get("strengths", [0.0]))
        due = row[claim.metric] if isinstance(row[claim.metric], list) else [row[claim.metric]]
        if claim.sweep == "clean" or claim.sweep in table.get("sweeps", {}):
            assert claim.threshold in due
            assert len(due) == len(strengths)
    assert all(path.is_relative_to(here) for path in (card.baseline,) if card.file.gate and not card.file.gate.baseline)
    return "same"


def write_project(here: Path) -> None:
    write_card(here)
    (here / "pyproject.toml").write_text(
        '[tool.other]\nx = 1\n[tool.robustness]\nmodels = ["tiny.toml", "t*.toml"]\n'
        '[tool.robustness.profiles.mine.normal]\nkind = "gaussian"\nstrengths = [0.1, 0.2]\n'
    )


def read_project(here: Path) -> str:
    from robustness.cards import profiles as sweep_profiles
    from robustness.util import project

    found = project.cards(here)
    try:
        table = tomllib.loads((here / "pyproject.toml").read_text(encoding="utf-8"))
    except ValueError:
        assert not found  # the text names no table of ours, and is not read
        return "same"
    tools = table.get("tool", {})
    own = tools.get("robustness", {}) if isinstance(tools, dict) else {}
    assert {path.name for path in found} == {p.name for each in own.get("models", []) for p in here.glob(each)}
    profiles = project.profiles(here)
    for name in profiles:
        assert sweep_profiles.sweeps(name, (1, 28, 28), profiles) is not None
    return "same"


def _module() -> Any:
    from torch import nn

    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def _state(seed: int = 0) -> dict[str, Any]:
    import torch

    torch.manual_seed(seed)
    return _module().state_dict()


def write_weights(here: Path) -> None:
    import safetensors.torch
    import torch

    from robustness.classifiers import weights

    state = _state()
    (here / "own.safetensors").write_bytes(weights.to_bytes(state, {"model": "tiny"}))
    safetensors.torch.save_file(state, here / "plain.safetensors")
    torch.save({"state_dict": state, "epoch": 3}, here / "nested.pt")
    torch.save(state, here / "old.pth", _use_new_zipfile_serialization=False)
    names = list(state)
    parts = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
    for file, each in parts.items():
        safetensors.torch.save_file({name: state[name] for name in each}, here / file)
    index = {"metadata": {}, "weight_map": {name: file for file, each in parts.items() for name in each}}
    (here / "shards.index.json").write_text(json.dumps(index))


def read_weights(here: Path) -> str:
    import safetensors.torch
    import torch

    from robustness.classifiers import checkpoints

    outcomes, errors = set(), []
    for name in ("own.safetensors", "plain.safetensors", "nested.pt", "old.pth", "shards.index.json"):
        module = _module()
        try:
            checkpoints.load_checkpoint(module, here / name)
        except RobustnessError as error:
            errors.append(error)
            continue
        if name == "own.safetensors":
            due = _state()  # it has a checksum
        elif name.endswith(".safetensors"):
            due = safetensors.torch.load_file(here / name)
        elif name.endswith(".json"):
            due = safetensors.torch.load_file(here / "a.safetensors") | safetensors.torch.load_file(
                here / "b.safetensors"
            )
        else:
            due = torch.load(here / name, map_location="cpu", weights_only=True)
            due = due.get("state_dict", due)
        for key, value in module.state_dict().items():
            with suppress(KeyError):  # a name that was mended, and said
                outcomes.add(same(value.numpy(), due[key].to(value.dtype).numpy(), sound=_state()[key].numpy()))
    if errors:
        raise errors[0]
    return "other" if "other" in outcomes else "same"


ARRAYS = {
    "train_x": np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4), "train_y": np.arange(6) % 3,
    "test_x": np.arange(100, 100 + 6 * 16, dtype=np.uint8).reshape(6, 4, 4), "test_y": np.arange(6)[::-1] % 3,
    "classes": np.array(["cat", "dog", "eel"]),
}  # fmt: skip


def write_arrays(here: Path) -> None:
    import lzma

    np.savez_compressed(here / "a.npz", **ARRAYS)
    (here / "b.npz.xz").write_bytes(lzma.compress((here / "a.npz").read_bytes(), preset=0))


def _images(here: Path, **table: Any) -> Any:
    spec = data.DataSpec.model_validate(table)
    return data.load(spec, "test", root=here, cache=here / "cache", beside=here)


def read_arrays(here: Path) -> str:
    import lzma

    error, outcome = None, "same"
    for name in ("a.npz", "b.npz.xz"):
        try:
            images = _images(here, name="array", file=name)
        except RobustnessError as caught:
            error = caught
            continue
        content = (here / name).read_bytes()
        with np.load(io.BytesIO(lzma.decompress(content) if name.endswith("xz") else content)) as due:
            pixels = np.asarray(images.pixels).squeeze()
            outcome = same(pixels, due["test_x" if "test_x" in due else "x"].squeeze(), sound=ARRAYS["test_x"])
    if error:
        raise error
    return outcome


def write_mnist(here: Path) -> None:
    (here / "images").write_bytes(np.array([0x803, 3, 4, 4], ">u4").tobytes() + bytes(range(48)))


def read_mnist(here: Path) -> str:
    from robustness.data import mnist

    got = mnist.read_idx(here / "images", 3)
    content = (here / "images").read_bytes()
    shape = np.frombuffer(content[4:16], ">u4").tolist()
    return same(got, np.frombuffer(content[16:], np.uint8).reshape(shape), sound=np.arange(48).reshape(3, 4, 4))


def write_pictures(here: Path) -> None:
    picture_folder(here / "set", {"cat": [(12, 9), (9, 12)], "dog": [(12, 12), (10, 10)]})
    for i, form in enumerate(("jpg", "gif", "bmp", "tiff", "webp", "ppm")):
        picture(i, (12, 12)).save(here / "set" / "cat" / f"x{i}.{form}")


def read_pictures(here: Path) -> str:
    from PIL import Image

    images = _images(here, name="folder", folder="./set", images={"size": [8, 8], "crop": "none"})
    files = sorted(path for path in (here / "set").rglob("*") if path.is_file())
    due = []
    for path in files:
        with Image.open(path) as image:
            due.append(np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BILINEAR)))
    assert len(files) == len(images)
    same(np.asarray(images.pixels[np.arange(len(files))]), np.stack(due))
    return "other"


def write_parquet(here: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = []
    for i in range(6):
        stream = io.BytesIO()
        picture(i, (8, 8)).save(stream, "png")
        rows.append(stream.getvalue())
    pq.write_table(pa.table({"image": rows, "label": [0, 1, 2, 0, 1, 2]}), here / "a.parquet")


def read_parquet(here: Path) -> str:
    import pyarrow.parquet as pq
    from PIL import Image

    images = _images(here, name="parquet", file="a.parquet")
    table = pq.read_table(here / "a.parquet")
    due = [np.asarray(Image.open(io.BytesIO(row)).convert("RGB")) for row in table.column("image").to_pylist()]
    same(np.asarray(images.labels), table.column("label").to_pylist())
    return same(np.asarray(images.pixels[np.arange(len(due))]), np.stack(due))


def write_huggingface(here: Path) -> None:
    import datasets as hf

    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [picture(i, (8, 8)) for i in range(4)], "label": [0, 1, 0, 1]}
    hf.disable_progress_bars()
    hf.Dataset.from_dict(rows, features=features).save_to_disk(here / "set")


def read_huggingface(here: Path) -> str:
    import datasets as hf

    images = _images(here, name="huggingface", folder="./set")
    rows = hf.load_from_disk(str(here / "set"))
    due = np.stack([np.asarray(row["image"].convert("RGB")) for row in rows])
    return same(np.asarray(images.pixels[np.arange(len(due))]), due)


def _evidence() -> Any:
    from robustness.metrics.evidence import OUTCOMES, Evidence

    outcomes = {name: np.arange(4, dtype=np.float32).reshape(2, 2) for name in OUTCOMES}
    return Evidence(
        labels=np.array([0, 1], np.int32), classes=("a", "b"), strengths=("0", "1"), status=("ok", "ok"),
        provenance={"key": KEY, "label": "tiny:clean", "sources": {}, "distributions": {}}, **outcomes,
    )  # fmt: skip


def write_store(here: Path) -> None:
    from robustness.sweep.recorder import ChunkResult
    from robustness.workspace.chunk_cache import StoredChunks

    store = Store(here, run="this")
    store.write(here / "evidence.safetensors", _evidence().to_bytes())
    store.write_findings(KEY, {"key": KEY, "label": "tiny:x", "sources": {}, "distributions": {}, "result": {"n": 3}})
    store.path("findings", KEY, "json").rename(here / "findings.json")
    about = {"sources": {}, "distributions": {}}
    kept = StoredChunks(store, KEY, here, dependencies=lambda: about, every=0)
    kept.write(ChunkResult(0, {"x": np.arange(5, dtype=np.float32)}, {"batch_size": 20}))
    (kept.folder / "0.safetensors").rename(here / "chunk.safetensors")


def read_store(here: Path) -> str:
    """Entries have checksums: whatever is believed is what was written."""
    from robustness.workspace.chunk_cache import StoredChunks

    store = Store(here / "store", run="this")
    places = {"evidence.safetensors": store.path("evidence", KEY), "findings.json": store.path("findings", KEY, "json")}
    kept = StoredChunks(store, KEY, here, dependencies=lambda: {"sources": {}, "distributions": {}}, every=0)
    for name, place in {**places, "chunk.safetensors": kept.folder / "0.safetensors"}.items():
        place.parent.mkdir(parents=True)
        (here / name).rename(place)
    evidence, _ = store.evidence(KEY, here)
    findings, _ = store.findings(KEY, here)
    part = kept.get(0)
    assert evidence is None or evidence.digest == _evidence().digest
    assert findings is None or findings["result"] == {"n": 3}
    assert part is None or part.arrays["x"].tolist() == [0, 1, 2, 3, 4]
    assert kept.batch_size(20) == 20
    return "same" if evidence and findings and part else "not believed"


def _accepted() -> Any:
    from dataclasses import replace

    from robustness.gate.baseline import AcceptedModel

    subject = {"images": "x", "seed": 0, "semantics": 1, "perturbation": {"kind": "clean"}, "unit": "default"}
    one = _evidence()
    one = replace(
        one, provenance={**one.provenance, "subject": subject}, predictions=np.array([[0, 1], [1, 1]], np.int32)
    )
    return AcceptedModel({"weights": "w"}, {"clean": one})


def write_baseline(here: Path) -> None:
    from robustness.gate import baseline

    baseline.write(here / "tiny.json", "tiny", [_accepted()])
    (pack,) = here.glob("*.npz")
    pack.rename(here / "pack.npz")


def read_baseline(here: Path) -> str:
    """As it is, and as somebody who can compute sums would leave it: its counts are those of its pack all the same."""
    import hashlib

    from robustness.gate import baseline
    from robustness.util.hashing import sha256_json

    path, pack = here / "tiny.json", here / "pack.npz"
    with suppress(ValueError, AttributeError, TypeError, KeyError, RecursionError):
        document = json.loads(path.read_bytes())
        digest = hashlib.sha256(pack.read_bytes()).hexdigest()
        document["outcomes"] = {"file": f"tiny.{digest[:16]}.npz", "sha256": digest}
        document.pop("checksum", None)
        document["checksum"] = sha256_json(document)
        path.write_text(json.dumps(document))
        pack.rename(here / f"tiny.{digest[:16]}.npz")
    found = baseline.read(path)
    right = (found.predictions[0] == found.labels).sum(1).tolist()
    assert right == [
        document["right"][name][s][0]
        for name in sorted(document["right"])
        for s in document["protocol"]["sweeps"][name]["strengths"]
    ]
    return "same" if found.predictions.tolist() == [[[0, 1], [1, 1]]] else "other"


def write_report(here: Path) -> None:
    from report_runs import load_card_of, report  # a document as runs write it

    from robustness.reporting import writers

    writers.write(report(load_card_of(here)), here / "run.json")
    writers.write(report(load_card_of(here)), here / "as-it-was.json")


def read_report(here: Path) -> str:
    from robustness.reporting import writers
    from robustness.reporting.report_file import read_report

    document, due = read_report(here / "run.json"), read_report(here / "as-it-was.json")
    for suffix in (".md", ".csv", ".json"):
        writers.FORMS[suffix](document)
    assert (document.verdict, document.counts) == (due.verdict, due.counts)
    return same(json.dumps(document.as_json()["models"]), json.dumps(due.as_json()["models"]))


def write_words(here: Path) -> None:
    (here / "words.json").write_text(
        json.dumps({
            "shard": "1/4", "engine": "ray=head:1,workers=3", "argument": "width=[1, 2]", "damage": "noise=0.5,1",
            "shape": "3,32,32", "seeds": "1,2", "path": "~/x", "name": "tiny",
        })
    )  # fmt: skip


def read_words(here: Path) -> str:
    from robustness import engines
    from robustness.cards import from_options, shards
    from robustness.cli import argument_types
    from robustness.mutations import kinds
    from robustness.util import paths as files

    readers: dict[str, Callable[[str], Any]] = {
        "shard": shards.parse, "engine": engines.parse, "argument": lambda text: from_options.arguments([text]),
        "damage": kinds.parse_mutation, "path": files.expanded, "name": files.as_name, "shape": argument_types.shape,
        "seeds": argument_types.seeds,
    }  # fmt: skip
    import argparse

    try:
        words = json.loads((here / "words.json").read_bytes().decode(errors="replace"))
    except (ValueError, RecursionError):
        words = {}
    text = (here / "words.json").read_bytes().decode(errors="surrogateescape").replace("\0", "")
    for name, reader in readers.items():
        value = words.get(name) if isinstance(words, dict) else None
        with suppress(RobustnessError, argparse.ArgumentTypeError):
            reader(value if isinstance(value, str) else text)
    return "same"


def write_exported(here: Path) -> None:
    import torch

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(_module().eval()).save(str(here / "net.pt"))


def read_exported(here: Path) -> str:
    import torch

    from robustness.classifiers import exported

    images = torch.ones(2, 1, 4, 4)
    with torch.no_grad():
        got = exported.load("torchscript", here / "net.pt")
        due = torch.jit.load(str(here / "net.pt"))
        try:
            due = due(images)
        except Exception:  # the file's own: a sweep's cell then errors
            return "other"
        assert np.allclose(got(images).numpy(), due.numpy(), equal_nan=True)  # it is compiled anew for each
        return "other"


def write_checkpoint(here: Path) -> None:
    from robustness.workspace.recipes import Job

    Job(0, here / "x.pt", store=Store(here), key="k").save({"step": 3, "weights": _state()})


def read_checkpoint(here: Path) -> str:
    """It has a checksum: what is believed is what was written."""
    from robustness.workspace.recipes import Job

    job = Job(0, here / "x.pt", store=Store(here), key="k")
    state = job.resume()
    if state is None:
        assert job.notices
        return "not believed"
    assert state["step"] == 3
    for name, value in _state().items():
        same(state["weights"][name].numpy(), value.numpy())
    return "same"


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], str]]] = {
    "card": (write_card, read_card),
    "project": (write_project, read_project),
    "weights": (write_weights, read_weights),
    "arrays": (write_arrays, read_arrays),
    "mnist": (write_mnist, read_mnist),
    "pictures": (write_pictures, read_pictures),
    "parquet": (write_parquet, read_parquet),
    "huggingface": (write_huggingface, read_huggingface),
    "store": (write_store, read_store),
    "baseline": (write_baseline, read_baseline),
    "report": (write_report, read_report),
    "options": (write_words, read_words),
    "torchscript": (write_exported, read_exported),
    "checkpoint": (write_checkpoint, read_checkpoint),
}
MUTATED = {
    "card": ["tiny.toml"], "project": ["pyproject.toml"], "report": ["run.json"],
}  # fmt: skip
"""Where not every file that is written is mutated."""


def write(sound: Path, names: list[str]) -> None:
    """Write the sound input of each kind into a folder of its own."""
    for name in names:
        (sound / name).mkdir()
        KINDS[name][0](sound / name)


def kinds(sound: Path, names: list[str]) -> list[Kind]:
    """Return the kinds, of inputs that `write` has written."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = []
    for name in names:
        here = sound / name
        every = tuple(sorted(str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()))
        found.append(Kind(name, here, tuple(MUTATED.get(name, every)), KINDS[name][1]))
    return found
