"""Models whose numbers lie in files that no card names: what a factory, or its model, reads makes evidence stale."""

import json
import os
import re
import sys

import helpers
import numpy as np
import pytest
import torch
from helpers import open_workspace
from torch import nn

from robustness import cards
from robustness.classifiers import build, file_reads
from robustness.classifiers.file_reads import FileReads
from robustness.errors import ModelError

pytestmark = pytest.mark.usefixtures("own_path")

SOURCE = """
import glob, json, os, pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

HERE = Path(__file__).parent
{top}

def net(state=None):
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    if state is not None:
        module.load_state_dict(state)
    return module

def opened(path):
    with safe_open(path, "pt") as file:
        return {{name: file.get_tensor(name) for name in file.keys()}}

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = None
    def forward(self, inputs):
        if self.inner is None:
            self.inner = [net(torch.load(HERE / "best.pt", weights_only=True)).eval()]
        return self.inner[0](inputs)

class Scaled(nn.Module):
    def __init__(self, sign):
        super().__init__()
        self.inner, self.sign = net(torch.load(HERE / "fixed.pt", weights_only=True)), sign
    def forward(self, inputs):
        return self.sign * self.inner(inputs)

def factory():
    {body}
"""

CARD = """
name = "tiny"

[model]
factory = "{module}:factory"

[data]
name = "digits"
split = {{ kind = "balanced", per_class = 3 }}
"""


def state(seed: int) -> dict[str, torch.Tensor]:
    return helpers.linear(helpers.digits(), seed).state_dict()


def by_torch(folder, seed):
    torch.save(state(seed), folder / "best.pt")


def by_safetensors(folder, seed):
    import safetensors.torch

    safetensors.torch.save_file(state(seed), folder / "best.safetensors")


def by_numpy(folder, seed):
    np.savez(folder / "best.npz", **{name: value.numpy() for name, value in state(seed).items()})


def by_torchscript(folder, seed):
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    module.load_state_dict(state(seed))
    torch.jit.save(torch.jit.trace(module.eval(), torch.zeros(1, 1, 28, 28)), folder / "best.ts")


def by_a_newer_file(folder, seed):
    """Leave the file of the first weights, and put another one beside it."""
    (folder / "runs").mkdir(exist_ok=True)
    torch.save(state(seed), folder / "runs" / f"{seed}.pt")


def by_touching(folder, seed):
    """Have two files, and make the other one the newest: no file is another, and no name."""
    (folder / "runs").mkdir(exist_ok=True)
    for each in (0, 1):
        if not (path := folder / "runs" / f"{each}.pt").exists():
            torch.save(state(each), path)
        os.utime(path, (1e9 + (each == seed), 1e9 + (each == seed)))


def by_configuration(folder, seed):
    torch.save(state(0), folder / "fixed.pt")
    (folder / "config.json").write_text(json.dumps({"sign": 1 - 2 * seed}))


NEWEST = "return net(torch.load(max({listed}, key=os.path.getmtime), weights_only=True))"
TORCH = "torch.load({of}, weights_only=True)"
WAYS = {
    "torch": (by_torch, "", f"return net({TORCH.format(of='HERE / `best.pt`')})"),
    "torch, mapped": (by_torch, "", "return net(torch.load(HERE / `best.pt`, weights_only=True, mmap=True))"),
    "the current folder": (by_torch, "", f"return net({TORCH.format(of='`best.pt`')})"),
    "bytes": (by_torch, "", "import io\n    return net(torch.load(io.BytesIO((HERE / `best.pt`).read_bytes())))"),
    "os.open": (
        by_torch, "",
        "fd = os.open(HERE / `best.pt`, os.O_RDONLY)\n    with os.fdopen(fd, `rb`) as f: return net(torch.load(f))",
    ),
    "a thread": (
        by_torch, "",
        "return net(ThreadPoolExecutor(1).submit(lambda: torch.load(HERE / `best.pt`, weights_only=True)).result())",
    ),
    "safetensors": (by_safetensors, "", "return net(load_file(HERE / `best.safetensors`))"),
    "safe_open": (by_safetensors, "", "return net(opened(HERE / `best.safetensors`))"),
    "numpy": (
        by_numpy, "",
        "return net({name: torch.from_numpy(value) for name, value in np.load(HERE / `best.npz`).items()})",
    ),
    "torchscript": (by_torchscript, "", "return torch.jit.load(str(HERE / `best.ts`))"),
    "at import": (by_torch, f"WEIGHTS = {TORCH.format(of='HERE / `best.pt`')}", "return net(WEIGHTS)"),
    "at the first pass": (by_torch, "", "return Lazy()"),
    "configuration": (by_configuration, "", "return Scaled(json.loads((HERE / `config.json`).read_text())[`sign`])"),
    "the newest, by glob": (by_a_newer_file, "", NEWEST.format(listed="glob.glob(str(HERE / `runs` / `*.pt`))")),
    "the newest, by pathlib": (by_a_newer_file, "", NEWEST.format(listed="(HERE / `runs`).glob(`*.pt`)")),
    "the newest, by os": (
        by_a_newer_file, "", NEWEST.format(listed="[HERE / `runs` / name for name in os.listdir(HERE / `runs`)]"),
    ),
    "the newest, touched": (by_touching, "", NEWEST.format(listed="(HERE / `runs`).iterdir()")),
}  # fmt: skip


def predicted(seed: int, sign: int = 1) -> np.ndarray:
    """What plain PyTorch predicts with the weights of a seed."""
    images = helpers.digits()
    module = helpers.linear(images, seed).eval()
    with torch.inference_mode():
        return (sign * module(torch.from_numpy(images.batch(0, len(images))))).argmax(1).numpy()


def made(tmp_path, top, body):
    source = SOURCE.format(top=top.replace("`", '"'), body=body.replace("`", '"'))
    return helpers.project(tmp_path / "project", source, CARD)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("way", WAYS)
def test_other_weights_are_other_numbers_and_the_same_are_believed(way, tmp_path, monkeypatch):
    """Catches: a file that nobody hears of, so that old numbers stand for new weights; evidence never believed."""
    write, top, body = WAYS[way]
    path = made(tmp_path, top, body)
    monkeypatch.chdir(tmp_path / "project")
    write(tmp_path / "project", 0)
    card = cards.load(path)
    first = open_workspace(path)
    assert np.array_equal(first.evidence(card).predictions[0], predicted(0))
    assert not [notice for notice in first.notices if "random" in notice]
    weights_hash = first.weights_hash(card)
    kept = open_workspace(path)
    if way != "at the first pass":  # nothing that can be seen is read by its factory, which is called in every run
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(build, "build_module", None)
            assert np.array_equal(kept.evidence(card).predictions[0], predicted(0))
    else:
        assert kept.evidence(card).provenance["run"] == first.store.run
    assert [notice for notice in kept.notices if notice not in first.notices] == []
    write(tmp_path / "project", 1)
    sys.modules.pop(card.file.model.factory.partition(":")[0])
    again = open_workspace(path)
    due = predicted(0, sign=-1) if write is by_configuration else predicted(1)
    assert np.array_equal(again.evidence(card).predictions[0], due)
    shown = way not in ("at the first pass", "configuration")  # in which the factory reads no other weights
    assert (again.weights_hash(card) != weights_hash) == shown, "reports and baselines show it"
    assert again.notices


@pytest.mark.parametrize("body", ["return net()", "module = net()\n    module.load_state_dict({**module.state_dict(), "
                                  "`1.bias`: torch.zeros(10)})\n    return module"])  # fmt: skip
def test_random_weights_must_be_asked_for(tmp_path, body):
    """Catches: an untrained model, or one that is half trained, taken for one that brings its weights."""
    path = made(tmp_path, "", body)
    card = cards.load(path)
    with pytest.raises(ModelError, match=r"`weights` must be given .* its factory gives random ones \(1\.weight"):
        open_workspace(path).evidence(card)
    path.write_text(path.read_text().replace("[data]", "seed = 3\n[data]"))
    of = open_workspace(path)
    of.evidence(cards.load(path))
    assert of.notices == ["tiny: its weights are random (seed 3), as the card says"]


def test_a_seed_that_decides_nothing_makes_nothing_random(tmp_path):
    """Catches: weights from a file called random because the card had no other way to say so."""
    path = made(tmp_path, "", WAYS["torch"][2])
    path.write_text(path.read_text().replace("[data]", "seed = 0\n[data]"))
    by_torch(tmp_path / "project", 1)
    of = open_workspace(path)
    assert np.array_equal(of.evidence(cards.load(path)).predictions[0], predicted(1))
    assert of.notices == []


def test_weights_that_nothing_shows_are_held_to_the_factory_in_every_run(tmp_path, monkeypatch):
    """Catches: kept weights believed of a factory that reads them where Python hears nothing."""
    path = made(tmp_path, "", "return net({name: torch.full(s, float(os.environ[`LEVEL`])) for name, s in "
                "((`1.weight`, (10, 784)), (`1.bias`, (10,)))})")  # fmt: skip
    found = []
    for level in ("1", "2"):
        monkeypatch.setenv("LEVEL", level)
        found.append(open_workspace(path).weights_hash(cards.load(path)))
    assert found[0] != found[1]


def test_what_does_not_count(tmp_path, monkeypatch):
    """Catches: evidence that no run believes, for a log, a scratch file, the data or the store changed beside it."""
    body = """
    import tempfile, torch.utils.data
    with open(HERE / `log`, `a`) as log: log.write(`x`)
    (HERE / `state.json`).read_text(); (HERE / `state.json`).write_text(str(os.getpid()) + str(os.urandom(4)))
    with tempfile.NamedTemporaryFile() as scratch: Path(scratch.name).read_text()
    Path(os.__file__).read_text(); Path(`/proc/self/stat`).read_text(); os.listdir(`/proc`)
    (HERE / `data`).mkdir(exist_ok=True); os.listdir(HERE / `data`)
    open(HERE / `test.npz`).close(); os.listdir(HERE / `store`)
    return net(torch.load(HERE / `best.pt`, weights_only=True))
"""
    path = made(tmp_path, "", body.strip())
    folder = tmp_path / "project"
    (folder / "state.json").write_text("0")
    images = helpers.digits()
    np.savez(folder / "test.npz", test_x=images.stored(0, len(images))[:, 0], test_y=images.labels)
    path.write_text(re.sub(r'name = "digits"\nsplit = .*', 'name = "array"\nfile = "test.npz"', path.read_text()))
    by_torch(folder, 0)

    def of():
        from robustness.workspace.store import Store
        from robustness.workspace.workspace import Workspace

        return Workspace(Store(folder / "store"), folder, threads=1)

    (folder / "store").mkdir()
    card, first = cards.load(path), of()
    listed = first.evidence(card).provenance["sources"]
    assert set(listed) - {"best.pt", "data/"} == {f"{card.file.model.factory.partition(':')[0]}.py"}
    (folder / "store" / "other").mkdir()
    monkeypatch.setattr(build, "build_module", None)
    again = of()
    again.evidence(card)
    assert again.notices == []


def test_an_installed_factory_reads_for_the_project(tmp_path, monkeypatch):
    """Catches: only code below the project heard, where what builds the model is installed and its weights are not."""
    path = made(tmp_path, "", f"return net({TORCH.format(of='`best.pt`')})")
    monkeypatch.chdir(tmp_path / "project")
    by_torch(tmp_path / "project", 0)
    kinds = file_reads._code_origin
    monkeypatch.setattr(file_reads, "_code_origin", lambda file: "installed" if "tiny_" in file else kinds(file))
    assert "best.pt" in open_workspace(path).evidence(cards.load(path)).provenance["sources"]


def test_nothing_is_heard_of_who_does_not_listen(tmp_path):
    """Catches: a record that goes on after its time, or of another thread's listener."""
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    one, other = FileReads(tmp_path), FileReads(tmp_path)
    with one.recording():
        with other.recording():
            (tmp_path / "a").read_text()
        (tmp_path / "b").read_text()
    (tmp_path / "c").write_text("c")
    assert set(one.digests()) == {"a", "b"}
    assert set(other.digests()) == {"a"}


def test_what_a_recipe_reads_trains_anew(tmp_path):
    """Catches: weights of an older configuration believed because the recipe's code is the same."""
    body = "return net()\n\ndef recipe(module, images, job):\n    "
    body += "module[1].bias.data[:] = json.loads((HERE / `fit.json`).read_text())[`bias`]\n    return module"
    path = made(tmp_path, "", body)
    module = path.read_text().partition('factory = "')[2].partition(":")[0]
    path.write_text(path.read_text().replace("[data]", f'[recipe]\ncallable = "{module}:recipe"\n[data]'))
    found = []
    for bias in (1.0, 1.0, 2.0):
        (tmp_path / "project" / "fit.json").write_text(json.dumps({"bias": bias}))
        of = open_workspace(path)
        found.append((of.weights_hash(cards.load(path)), of.notices))
    assert found[0][0] == found[1][0] != found[2][0]
    assert [notices for _, notices in found] == [[], [], ["tiny: its weights are older than fit.json; made again"]]


def test_a_library_reads_for_the_factory_that_calls_it(tmp_path):
    """Catches: shards and configuration that a library opens, in native code or in threads of its own."""
    from found_models import vit_folder

    pytest.importorskip("transformers")
    path = made(tmp_path, "", "import transformers\n    return transformers.AutoModelForImageClassification"
                ".from_pretrained(HERE / `vit`)")  # fmt: skip
    vit_folder(tmp_path / "project" / "vit")
    listed = open_workspace(path).classifier(cards.load(path)).sources
    assert {"vit/config.json", "vit/model.safetensors"} <= set(listed)
