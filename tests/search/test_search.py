"""The search: it finds what was planted, says so briefly, and finds nothing where there is nothing."""

import struct
import zlib

import numpy as np
import pytest
import torch
from torch import nn

from robustness.classifiers.modules import state_hash
from robustness.data.images import from_arrays
from robustness.perturbations.norms import Budget
from robustness.search.descriptions import parse_description
from robustness.search.search import image_pair, png, predict_pair, search

SIDE = 8
BUDGET = Budget(norm="linf", size=0.25)


@pytest.fixture(scope="module")
def images():
    """Dark and bright images, whose means lie more than 0.3 from the middle."""
    random = np.random.default_rng(0)
    pixels = random.integers(25, 45, (12, SIDE, SIDE), dtype=np.uint8)
    labels = np.arange(12) % 2
    pixels[labels == 1] += 180
    return from_arrays(pixels, labels)


class Planted(nn.Module):
    """
    Tells dark from bright by the mean, which no change of at most 0.25 a pixel brings across the middle.

    Where ``trigger`` is above one half it says the other class; it rises from 0 to 1 as the trigger comes near, as that
    of a trained back door does.
    """

    def __init__(self, trigger):
        super().__init__()
        self.trigger = trigger

    def forward(self, inputs):
        margin = 30 * (inputs.mean((1, 2, 3)) - 0.5)
        margin = margin * (1 - 2 * self.trigger(inputs[:, 0]).clamp(0, 1))
        return torch.stack([-margin, margin], 1)


def above(part, inputs):
    """Rise from 0 to 1 as a part becomes 0.2 brighter than the image."""
    return (part - inputs.mean((1, 2))) / 0.2


def triggers(seed):
    """Return twenty triggers of four kinds, drawn at random: two pixels, a box, a stripe, a brightness."""
    random = np.random.default_rng(seed)
    for i in range(20):
        r, c, other, across = (int(value) for value in random.integers(0, SIDE - 1, 4))
        if i % 4 == 0:
            yield (
                "pixels",
                lambda x, r=r, c=c, o=other, a=across: torch.minimum(above(x[:, r, c], x), above(x[:, o, a], x)),
            )
        elif i % 4 == 1:
            yield "box", lambda x, r=r, c=c: above(x[:, r : r + 2, c : c + 2].mean((1, 2)), x)
        elif i % 4 == 2:
            yield "stripe", lambda x, r=r: above(x[:, r].mean(1), x)
        else:
            level = float(random.uniform(0.25, 0.32))
            yield "brightness", lambda x, level=level: 0.5 - ((x.mean((1, 2)) - 0.5).abs() - 0.5 + level) * 5


def test_planted_triggers_are_found_and_said_briefly(images):
    """Without a trigger these models cannot be flipped (next test): whatever is found has found the trigger."""
    dark = images.select((images.labels == 0).nonzero()[0], "dark")  # most triggers flip all of them at once
    said = {}
    for i, (kind, trigger) in enumerate(triggers(seed=1)):
        result = search(Planted(trigger), dark, BUDGET, max_examples=200)
        assert len(result["images"]) == 6, "the model is right on all images, and sure, where the trigger is not"
        said[i, kind] = [one["sentence"] for one in result["found"]]
    found = {key: sentences[0] for key, sentences in said.items() if sentences}
    print(f"{len(found)} of {len(said)} planted triggers found: {found}")
    assert len(found) >= 18
    assert sum(len(sentence) < 60 for sentence in found.values()) >= 15, "they shrink to what a person reads"


def test_a_margin_beyond_the_budget_is_never_flipped(images):
    for examples in (50, 300):
        result = search(Planted(lambda x: torch.zeros(len(x))), images, BUDGET, max_examples=examples)
        assert (len(result["images"]), result["found"], result["flip_rate"]) == (12, [], 0)


def test_the_same_arguments_find_the_same_and_leave_no_trace(images):
    model = nn.Sequential(nn.BatchNorm2d(1), Planted(lambda x: above(x[:, 3].mean(1), x))).train()
    before = state_hash(model)
    first, again = (search(model, images, BUDGET, count=4, max_examples=80) for _ in range(2))
    assert first == again
    assert first["found"]
    assert state_hash(model) == before
    assert model.training


def test_a_found_line_predict_pairs(images):
    model = Planted(lambda x: above(x[:, 3].mean(1), x))
    result = search(model, images, BUDGET, count=6, max_examples=150)
    assert result["found"]
    for one in result["found"]:
        before, after = predict_pair(model, images, one["row"], one["description"], BUDGET)
        assert images.classes[before] == one["label"]
        assert images.classes[after] == one["after"] != one["label"]
        assert str(parse_description(one["description"])) == one["sentence"]


def test_nan_is_not_robust(images):
    model = Planted(lambda x: torch.where((x.mean((1, 2)) - 0.5).abs() < 0.3, torch.nan, 0.0))
    with pytest.raises(ValueError, match="must be finite, got NaN under"):
        search(model, images, BUDGET, max_examples=200)


def test_the_picture_is_the_pair(images):
    pair = image_pair(images, 3, '{"kind":"tone","brightness":0.2,"contrast":0.0}', None)
    content = png(pair)
    width, height, depth, colour = struct.unpack(">IIBB", content[16:26])
    assert (width, height, depth, colour) == (2 * SIDE, SIDE, 8, 0)
    start = content.index(b"IDAT")
    size = struct.unpack(">I", content[start - 4 : start])[0]
    rows = np.frombuffer(zlib.decompress(content[start + 4 : start + 4 + size]), np.uint8).reshape(SIDE, 1 + 2 * SIDE)
    assert (rows[:, 0] == 0).all()
    assert np.array_equal(rows[:, 1:], np.rint(255 * np.concatenate(list(pair[:, 0]), 1)).astype(np.uint8))
