"""Two small models, one attacked and one that the examples are shown to; and evidence that is written by hand."""

from dataclasses import replace
from pathlib import Path

import helpers
import numpy as np
import torch

from robustness.metrics.evidence import OK, Evidence

SOURCE = """
import torch
from torch import nn

class Broken(nn.Module):
    def forward(self, inputs):
        return (inputs - inputs.detach()).sqrt()

class Flat(nn.Module):
    def forward(self, inputs):
        return inputs.round()

def factory(outputs=10, scale=1.0, before=""):
    class Scaled(nn.Sequential):
        def forward(self, inputs):
            return scale * super().forward(inputs)
    first = {"": [], "broken": [Broken()], "flat": [Flat()]}[before]
    return Scaled(*first, nn.Flatten(), nn.Linear(784, outputs))

def recipe(module, images, job, power=1.0):
    pixels = torch.from_numpy(images.batch(0, len(images)).reshape(len(images), -1))
    labels = torch.from_numpy(images.labels.copy())
    with torch.no_grad():
        last = module[-1]
        last.weight.zero_()
        last.bias.zero_()
        for i in range(10):
            mean = pixels[labels == i].mean(0) ** power
            last.weight[i], last.bias[i] = mean, -(mean ** 2).sum() / 2
        if last.out_features == 11:
            last.bias[10] = 75.0  # about half of the images have a larger sum over the classes
    return module
"""


STRENGTHS = [0.02, 0.1, 0.3]


def text(name="tiny", model="", power=1.0, sweep="far", kind="fgsm", source="other.toml", strengths=STRENGTHS, more=""):
    """A card's text; ``source`` None for a white-box sweep."""
    return f"""
name = "{name}"

[model]
factory = "MODULE:factory"
{model}

[recipe]
callable = "MODULE:recipe"
arguments = {{ power = {power} }}

[data]
name = "digits"
split = {{ kind = "balanced", per_class = 8 }}

[sweeps.{sweep}]
kind = "{kind}"
{f'source = "{source}"' if source else ""}
strengths = {strengths}
{more}"""


def pair(folder, target=None, source=None) -> Path:
    """A project with two cards: tiny.toml, whose sweep ``far`` is made on other.toml."""
    path = helpers.project(folder, SOURCE, "{module}")
    module, target = path.read_text(), target or text()
    path.write_text(target.replace("MODULE", module))
    other = source or text("other", power=3.0, sweep="near", source=None)
    path.with_name("other.toml").write_text(other.replace("MODULE", module))
    return path


def decided(module, inputs):
    with torch.no_grad():
        return module(inputs).argmax(1).numpy()


def evidence(labels, clean, under, *, strength="0.1", status=OK, attack=None, threshold=0.5) -> Evidence:
    """Evidence at one strength, written down by hand."""

    def of(predictions, name, attacked=None):
        floats = np.full((1, len(labels)), 0.5, np.float32)
        told = None if attacked is None else np.asarray([attacked], np.float32)
        return Evidence(
            labels=np.asarray(labels, np.int32), classes=("a", "b", "c"), strengths=(name,),
            predictions=np.asarray([predictions], np.int32), confidence=floats, true_probability=floats, loss=floats,
            snr=floats, status=(status,) if name == strength else (OK,), attack_probability=told,
            provenance={"decision": {"kind": "null", "threshold": threshold}},
        )  # fmt: skip

    return replace(of(under, strength, attack), clean=of(clean, "0"))
