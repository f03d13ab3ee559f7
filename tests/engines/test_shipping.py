"""A model that travels: made again where no folder is shared, and in a process that knows nothing of its project."""

import os
import pickle
import sys
from pathlib import Path

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
READING = """
import json
from pathlib import Path
from torch import nn

def factory(width):
    (file,) = (Path(__file__).parent / "config").glob("*.json")
    width = json.loads(file.read_text())["width"]
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.Linear(width, 10))
"""
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


IMPORTS = {
    "project/{package}/__init__.py": "",
    "project/{package}/net.py": NET,
    "project/{package}/parts/__init__.py": "",
    "project/{package}/parts/layers.py": LAYERS,
    "other/{outside}.py": "CLASSES = 10\n",
}
READS = {
    "project/src/{package}/__init__.py": "",
    "project/src/{package}/net.py": READING,
    "project/src/{package}/config/net.json": '{{"width": 7}}',
}


@pytest.fixture
def write(tmp_path, own_path):
    """Return a function that writes a project of these modules and returns its card, with weights beside it."""

    def write(files):
        names = {name: f"{name}_{os.getpid()}_{next(helpers.NUMBERS)}" for name in ("package", "outside")}
        files = {**files, "project/pyproject.toml": "", "project/cards/tiny.toml": CARD}
        for place, text in files.items():
            path = tmp_path / place.format(**names)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.format(**names))
        sys.path += [str(tmp_path / "other"), str(tmp_path / "project" / "src")]
        card = cards.load(tmp_path / "project" / "cards" / "tiny.toml")
        card.weights.parent.mkdir()
        card.weights.write_bytes(weights.to_bytes(build.build_module(card).state_dict(), {}))
        return card

    return write


@pytest.mark.parametrize(("files", "width"), [(IMPORTS, 5), (READS, 7)], ids=["imports", "reads"])
def test_it_is_the_same_model_elsewhere(write, tmp_path, files, width):
    """
    Catches: a package's files or those of another folder left behind, weights not found, arguments lost; a worker whose
    factory does not find its configuration, or builds something else for want of it.
    """
    card = write(files)
    loaded = build.load_model(card, card.weights)
    shipped, paths = pack_model(card, card.weights, loaded, ())
    assert not shipped.card.file.claims
    contents = {name: path.read_bytes() for name, path in paths.items()}
    (tmp_path / "shipped").write_bytes(pickle.dumps((shipped, contents)))
    for folder in {Path(place).parts[0] for place in files}:
        (tmp_path / folder).rename(tmp_path / f"{folder} that is gone")
    assert helpers.run(ELSEWHERE, tmp_path / "shipped").split() == [state_hash(loaded.module), str(width)]


def test_a_model_is_named_by_content(write):
    """Catches: a worker that keeps an older model because the card is called the same."""
    made = write(IMPORTS)
    loaded = build.load_model(made, made.weights)
    before, _ = pack_model(made, made.weights, loaded, ())
    assert pack_model(made, made.weights, loaded, ())[0].name == before.name
    assert pack_model(made, made.weights, loaded, ("a", "b"))[0].name != before.name
    made.weights.write_bytes(made.weights.read_bytes() + b" ")
    assert pack_model(made, made.weights, loaded, ())[0].name != before.name


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
