"""A model that travels: made again where no folder is shared, and in a process that knows nothing of its project."""

import os
import pickle
import subprocess
import sys

import helpers
import pytest

from robustness import cards
from robustness.classifiers import build, weights
from robustness.classifiers.modules import state_hash
from robustness.engines.packaging import pack_model

NET = """
from pathlib import Path
from torch import nn
from {package}.parts.layers import layers
import {outside}

def factory(width=3):
    return nn.Sequential(*layers(width), nn.Linear(width, {outside}.CLASSES))
"""
LAYERS = "from torch import nn\ndef layers(width):\n    return [nn.Flatten(), nn.Linear(784, width)]\n"
CARD = """
name = "tiny"
[model]
factory = "{package}.net:factory"
arguments = {{ width = 5 }}
weights = "own/tiny.safetensors"
[data]
name = "digits"
split = {{ kind = "balanced", per_class = 3 }}
[claims.clean]
accuracy = 0.5
"""
ELSEWHERE = """
import pickle, sys
from pathlib import Path
from robustness.engines.packaging import unpack_model
from robustness.classifiers.modules import state_hash

shipped, contents = pickle.loads(Path(sys.argv[1]).read_bytes())
module = unpack_model(shipped, contents.__getitem__)
assert not module.training
print(state_hash(module), module[1].out_features)
"""


@pytest.fixture
def made(tmp_path, own_path):
    """A model in a package of a project, that imports from another folder, with weights beside its card."""
    package, outside = (f"{name}_{os.getpid()}_{next(helpers.NUMBERS)}" for name in ("package", "outside"))
    project, other = tmp_path / "project", tmp_path / "other"
    texts = {
        "net": NET.format(package=package, outside=outside),
        "parts/layers": LAYERS,
        "__init__": "",
        "parts/__init__": "",
    }
    for name, text in texts.items():
        path = project / package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    other.mkdir()
    (other / f"{outside}.py").write_text("CLASSES = 10\n")
    sys.path.append(str(other))
    (project / "pyproject.toml").touch()
    card = project / "cards" / "tiny.toml"
    (card.parent / "own").mkdir(parents=True)
    card.write_text(CARD.format(package=package))
    read = cards.load(card)
    (card.parent / "own" / "tiny.safetensors").write_bytes(weights.to_bytes(build.build_module(read).state_dict(), {}))
    return read


def test_it_is_the_same_model_elsewhere(made, tmp_path):
    """Catches: a package's files or those of another folder left behind, weights not found, arguments lost."""
    loaded = build.load_model(made, made.weights)
    shipped, files = pack_model(made, made.weights, loaded, ())
    assert not shipped.card.file.claims
    contents = {name: path.read_bytes() for name, path in files.items()}
    (tmp_path / "shipped").write_bytes(pickle.dumps((shipped, contents)))
    environment = {**os.environ, "PYTHONPATH": str(helpers.ROOT)}
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "shipped")]
    (tmp_path / "project").rename(tmp_path / "gone")
    (tmp_path / "other").rename(tmp_path / "gone too")
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=helpers.LIMIT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [state_hash(loaded.module), "5"]


def test_a_model_is_named_by_content(made):
    """Catches: a worker that keeps an older model because the card is called the same."""
    loaded = build.load_model(made, made.weights)
    before, _ = pack_model(made, made.weights, loaded, ())
    assert pack_model(made, made.weights, loaded, ())[0].name == before.name
    assert pack_model(made, made.weights, loaded, ("a", "b"))[0].name != before.name
    made.weights.write_bytes(made.weights.read_bytes() + b" ")
    assert pack_model(made, made.weights, loaded, ())[0].name != before.name


def test_what_a_factory_reads_travels_too(tmp_path, own_path):
    """Catches: a worker whose factory does not find its configuration, or builds something else for want of it."""
    package = f"package_{os.getpid()}_{next(helpers.NUMBERS)}"
    folder = tmp_path / "project" / "src" / package
    folder.mkdir(parents=True)
    (tmp_path / "project" / "pyproject.toml").touch()
    (folder / "__init__.py").touch()
    (folder / "net.py").write_text(READING)
    (folder / "config").mkdir()
    (folder / "config" / "net.json").write_text('{"width": 5}')
    sys.path.append(str(tmp_path / "project" / "src"))
    path = tmp_path / "project" / "tiny.toml"
    path.write_text(CARD.format(package=package).replace("arguments = { width = 5 }\n", ""))
    card = cards.load(path)
    (tmp_path / "project" / "own").mkdir()
    card.weights.write_bytes(weights.to_bytes(build.build_module(card).state_dict(), {}))
    loaded = build.load_model(card, card.weights)
    shipped, files = pack_model(card, card.weights, loaded, ())
    contents = {name: path.read_bytes() for name, path in files.items()}
    (tmp_path / "shipped").write_bytes(pickle.dumps((shipped, contents)))
    (tmp_path / "project").rename(tmp_path / "gone")
    assert helpers.run(ELSEWHERE, tmp_path / "shipped").split() == [state_hash(loaded.module), "5"]


READING = """
import json
from pathlib import Path
from torch import nn

def factory():
    (file,) = (Path(__file__).parent / "config").glob("*.json")
    width = json.loads(file.read_text())["width"]
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.Linear(width, 10))
"""


def test_tensors_beside_an_onnx_file_travel_to_their_place(tmp_path):
    """Catches: a graph that arrives without its tensors, or with them where it does not look."""
    from found_models import onnx_apart

    onnx_apart(tmp_path, 0, location="parts/net.bin")
    path = tmp_path / "tiny.toml"
    path.write_text('name = "tiny"\n[model]\nfactory = "onnx:net.onnx"\n[data]\nname = "digits"\n'
                    'split = { kind = "balanced", per_class = 3 }\n')  # fmt: skip
    card = cards.load(path)
    shipped, _ = pack_model(card, card.weights, build.load_model(card, card.weights), ())
    assert [place for place, _ in shipped.files] == ["beside/net.onnx", "beside/parts/net.bin"]
    other = tmp_path / "elsewhere"
    other.mkdir()
    file = onnx_apart(other, 1, location="parts/net.bin")
    shipped, _ = pack_model(card, file, build.load_model(card, file), ())
    assert shipped.weights == "beside/elsewhere/net.onnx"
    assert [place for place, _ in shipped.files] == ["beside/elsewhere/net.onnx", "beside/elsewhere/parts/net.bin"]
