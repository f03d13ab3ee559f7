"""Makers of models as they are found: a card for a factory by name, a tiny Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
import torch

from robustness import cards
from robustness.cards import Card
from robustness.classifiers import libraries
from robustness.data import Images
from robustness.errors import MissingLibrary
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

CARD = """\
name = "found"

[model]
{model}

[data]
name = "digits"
split = {{ kind = "balanced", per_class = 2 }}

[sweeps.fgsm]
kind = "fgsm"
strengths = [0.1]

[sweeps.normal]
kind = "gaussian"
strengths = [0.1]
"""


def imported(package: str) -> Any:
    """Import a library as cards do, whatever was imported before; skip the test where it is missing."""
    try:
        return libraries.import_library(package)
    except MissingLibrary as missing:
        pytest.skip(str(missing))


def card(root: Path, *lines: str, **files: str) -> Card:
    """Write a card whose table ``[model]`` has these lines, beside modules by name, and read it."""
    (root / "models").mkdir(parents=True, exist_ok=True)
    (root / "pyproject.toml").touch()
    for name, text in files.items():
        (root / f"{name}.py").write_text(text)
    path = root / "models" / "found.toml"
    path.write_text(CARD.format(model="\n".join(lines)))
    return cards.load(path)


def open_workspace(root: Path, images: Images | None = None, of: Card | None = None) -> Workspace:
    """Return a workspace beside a card's project, which has these images for the card."""
    made = Workspace(Store(root / "store"), root / "data", threads=1)
    if images is not None and of is not None:
        made._images[of.file.data.model_dump_json(), "test", None] = images
    return made


def vit_folder(folder: Path, labels: list[str] | None = None, **processor: object) -> Path:
    """Have transformers write a vision transformer of 28×28 colour images, and its image processor."""
    transformers = libraries.import_library("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=28, patch_size=7,
        num_labels=len(labels) if labels else 10, **({"id2label": dict(enumerate(labels))} if labels else {}),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.ViTForImageClassification(config)
        for each in model.parameters():  # as they come the logits are all but equal
            each.data += 0.2 * torch.randn(each.shape)
    model.save_pretrained(folder)
    about = {"size": {"height": 28, "width": 28}, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    transformers.ViTImageProcessor(**{**about, **processor}).save_pretrained(folder)
    return folder


def edit(file: Path, **values: object) -> None:
    """Change some values of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def onnx_apart(folder, seed, *, location="net.data", part="graph", name="net.onnx"):
    """Write a linear classifier whose tensors lie in a file beside the graph, or beside that of a branch in it."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    state = helpers.linear(helpers.digits(), seed).state_dict()
    tensors = [numpy_helper.from_array(value.numpy(), key) for key, value in state.items()]
    layer = [
        helper.make_node("Flatten", ["images"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "1.weight", "1.bias"], ["logits"], transB=1),
    ]
    taken = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 28, 28])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])
    if part == "branch":
        both = helper.make_graph(layer, "branch", [], [logits], tensors)
        always = helper.make_node("Constant", [], ["always"], value=numpy_helper.from_array(np.array(True)))
        layer, tensors = (
            [always, helper.make_node("If", ["always"], ["logits"], then_branch=both, else_branch=both)],
            [],
        )
    elif part == "constant":
        layer = [helper.make_node("Constant", [], [each.name], value=each) for each in tensors] + layer
        tensors = []
    model = helper.make_model(
        helper.make_graph(layer, "net", [taken], [logits], tensors),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).unlink(missing_ok=True)
    from onnx import external_data_helper

    external_data_helper.convert_model_to_external_data(
        model, location=location, size_threshold=0, convert_attribute=True
    )
    onnx.save(model, folder / name)
    return folder / name
