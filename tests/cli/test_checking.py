"""`robustness check`: a sound model has nothing to mend; each planted defect is told by its own line, and no other."""

import re
import sys

import helpers
import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from robustness import cards
from robustness.classifiers import weights
from robustness.cli import check as checking
from robustness.cli import main
from robustness.cli.check import check_model
from robustness.data import from_arrays
from robustness.metrics.intervals import half_width, sample_size_for

SOURCE = """
import torch
from torch import nn

class Net(nn.Linear):
    def forward(self, inputs):
        BEFORE
        logits = super().forward(inputs.flatten(1))
        AFTER
        return logits

def factory(classes=10):
    net = Net(784, classes)
    net.register_buffer("seen", torch.zeros(1))
    return net
"""

CARD = helpers.CARD.replace('[recipe]\ncallable = "{module}:recipe"\n', "").replace("per_class = 3", "per_class = 20")
CARD = CARD.replace('factory"', 'factory"\nweights = "w.safetensors"', 1)


@pytest.fixture
def check(tmp_path, own_path, monkeypatch):
    """Check a model that knows its digits, but for what is done before and after; give marks and lines by name."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    digits = helpers.digits(20)
    images = digits.batch(0, len(digits)).reshape(len(digits), -1)
    means = np.stack([images[digits.labels == c].mean(0) for c in range(10)])
    # A fifth: of larger logits some probabilities round to 1, which is a defect of its own.
    state = {"weight": means / 5, "bias": -(means**2).sum(1) / 10, "seen": np.zeros(1)}

    def run(before="pass", after="pass", **settings):
        path = helpers.project(tmp_path, SOURCE.replace("BEFORE", before).replace("AFTER", after), CARD)
        tensors = {name: torch.from_numpy(np.ascontiguousarray(v, np.float32)) for name, v in state.items()}
        (path.parent / "w.safetensors").write_bytes(weights.to_bytes(tensors, {}))
        lines, fine = check_model(helpers.open_workspace(path), cards.load(path), **settings)
        text = list(lines)
        told = {}
        for line in text[1:-1]:
            if line.startswith("  ") and not line.startswith("        "):
                mark, _, rest = line.strip().partition("  ")
                told[rest.strip().partition(":")[0]] = mark
        return {name for name, mark in told.items() if mark == "FIX"}, fine, "\n".join(text)

    return run


def test_a_sound_model_has_nothing_to_mend(check):
    """Catches: a defect seen where there is none."""
    wrong, fine, text = check()
    assert (wrong, fine) == (set(), True)
    assert "shape (32, 10)" in text
    assert "images/s, forward" in text
    assert text.endswith("nothing to fix")


@pytest.mark.parametrize(
    ("before", "after", "due", "said"),
    [
        ("inputs.mul_(1.0).add_(0.01)", "pass", "edits its input", "32 of 32 images in place"),
        ("self.seen += 1", "pass", "buffers", "changed by a forward pass"),
        ("self.train()", "pass", "mode", "Net"),
        ("pass", "logits = logits + torch.rand_like(logits)", "non-deterministic forward", "dropout"),
        ("pass", "logits = logits - 5 * logits.mean(0)", "depends on the batch", "batch statistics"),
        ("pass", "logits = logits.softmax(1)", "probabilities for logits", "without its last softmax"),
        ("pass", "logits = (logits * 1e4).detach() + 0 * logits", "zero gradients", "logits before softmax"),
        ("pass", "logits = logits[:, :9]", "outputs", "return one finite logit per image and class"),
        ("pass", "logits = logits * torch.nan", "outputs", "finite"),
        ("pass", "return {'a': logits, 'b': logits}", "forward pass", "logits_key"),
        ("raise ValueError('boom')", "pass", "forward pass", "raised ValueError: boom"),
        ("assert inputs.shape[3] == 1", "pass", "forward pass", "float32 images of shape (N, 1, 28, 28) in [0, 1]"),
        ("self.half()", "pass", "forward pass", "float16 but images are float32; call module.float()"),
        ("pass", "logits = logits.squeeze()", "depends on the batch", "for one image alone, as for many, got (10,)"),
        ("pass", "logits = logits.roll(1, 1)", "permuted classes", "its 1 is the data's 0"),
        ("inputs = inputs / 255", "logits = logits - self.bias + self.bias", "clean accuracy", "from 0 to 255"),
        ("inputs = inputs / 255", "logits = logits - self.bias + self.bias", "wrong input range", "from 0 to 255"),
        ("pass", "logits = -logits", "no better than chance", "the sign of the outputs"),
    ],
)  # fmt: skip
def test_each_defect_is_told(check, before, after, due, said):
    """Catches: a defect that is not seen, is taken for another, or leaves the reader without a repair."""
    wrong, fine, text = check(before, after)
    assert not fine
    assert due in wrong
    assert said in text


@pytest.mark.parametrize("after", ["logits = logits * torch.nan", "logits = logits.argmax(1)"])
def test_what_cannot_be_looked_at_is_no_further_defect(check, after):
    """Catches: outputs that are no logits told as random ones too, or by what raised on the way."""
    wrong, _, text = check(after=after)
    assert wrong == {"outputs"}
    assert text.count("FIX") == 1


def test_what_was_done_to_a_model_is_said(tmp_path, own_path):
    """Catches: a check of other weights or other images than its reader thinks of."""
    source = "from torch import nn\n\ndef factory():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    path = helpers.project(tmp_path, source, CARD.replace("w.safetensors", "w.pt"))
    state = {f"module.1.{name}": value for name, value in nn.Linear(784, 10).state_dict().items()}
    torch.save({"epoch": 1, "ema": state}, path.parent / "w.pt")
    text = "\n".join(check_model(helpers.open_workspace(path), cards.load(path))[0])
    assert "loading: w.pt: took the entry `ema`" in text
    assert "loading: removed from all names: `module.`" in text


def test_a_slow_model_is_looked_over_in_seconds(check, monkeypatch):
    """Catches: minutes for a large network on a processor; fewer images than somebody asked for."""
    monkeypatch.setattr("robustness.cli.check.SECONDS", 0.1)
    slow = "import time; time.sleep(0.002 * len(inputs))"
    _, _, text = check(slow)
    assert "shape (8, 10)" in text
    assert 8 <= int(re.search(r"\d+ of (\d+) images, 95 % Wilson", text)[1]) <= 50
    assert "forward; use --images N to measure the accuracy on more images" in text
    assert "of 60 images, 95 % Wilson" in check(slow, count=60)[2]
    monkeypatch.undo()
    assert "--images" not in check()[2]


def test_as_many_images_whatever_the_number_of_classes():
    """Catches: a thousand images of a thousand classes passed through at once where 32 were to be looked at."""
    images = from_arrays(np.zeros((3000, 1, 1), np.uint8), np.arange(3000) % 1000)
    few = checking._few(images, 32)
    assert len(few) == 32
    assert len(set(few.labels.tolist())) > 16


def test_accuracy_is_of_the_images_that_were_asked_for(check):
    """Catches: accuracy of the first images, which are of one class in many files; a margin that is not held."""
    _, _, text = check(count=50, margin=0.01)
    assert "of 50 images" in text
    assert "how many images: accuracy to ± 0.01 (95 %) needs" in text
    assert "and there are 200" in text


def test_the_command_says_by_its_code_whether_there_is_something_to_mend(check, tmp_path, monkeypatch, capsys):
    """Catches: 0 for a model that raises; models by file and by name not found alike."""
    check()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTNESS_STORE", str(tmp_path / "store"))
    for words in (["models/tiny.toml"], ["tiny"], ["tiny", "--card", "models"]):
        assert main.main(["check", *words]) == 0
        assert "nothing to fix" in capsys.readouterr().out
    check("raise ValueError('boom')")
    assert main.main(["check", "tiny"]) == 1
    assert main.main(["check", "tony"]) == 2
    with pytest.raises(SystemExit):
        main.main(["check", "tiny", "--margin", "2"])


@pytest.mark.parametrize("margin", [0.005, 0.02, 0.1, 0.4])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.97, 1.0])
def test_images_for_a_margin_are_the_fewest(margin, rate):
    """By the textbook's half width of Wilson's interval. Catches: Wald's n, one image too many or too few."""

    def half(n):
        z = norm.ppf(0.975)
        return z * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)

    n = sample_size_for(margin, rate)
    assert half_width(n, rate) == pytest.approx(half(n), rel=1e-9)
    assert half(n) <= margin
    assert n == 1 or half(n - 1) > margin


def test_a_module_is_left_as_it_came(check, tmp_path):
    """Catches: a look that trains, moves or keeps hold of what it looks at."""
    check()
    (path,) = (tmp_path / "models").glob("*.toml")
    workspace = helpers.open_workspace(path)
    module = workspace.classifier(cards.load(path)).module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    list(check_model(workspace, cards.load(path))[0])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not module.training
    assert isinstance(module, nn.Linear)
