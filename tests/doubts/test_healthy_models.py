"""No doubt is raised on an undefended model, whatever its architecture, under the profiles' own attacks."""

import healthy_models
import numpy as np
import pytest
import safetensors.torch

from benchmarks import doubts

PROFILE = {"VGG-like": "default", "CNN, batch norm": "default", "LeNet-5": "default"}
"""What others are looked at under is quick."""


@pytest.mark.parametrize("name", healthy_models.ARCHITECTURES)
def test_no_doubt_is_raised_on_an_undefended_model(name):
    """Catches: attacks of profiles that are too weak for sound networks, and doubts that take these for masked."""
    module = healthy_models.make(name)
    assert doubts.accuracy(module, healthy_models.digits("test")) > 0.9
    assert doubts.raised(module, healthy_models.digits("test"), PROFILE.get(name, "quick")) == {}


NETS = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(1568, 10),
        )

    def forward(self, inputs):
        print(tuple(inputs.shape))
        return super().forward(inputs)
"""


@pytest.mark.parametrize("profile", ["quick", "default"])
def test_a_strangers_network_ends_as_measured_without_a_card(tmp_path, run_suites, capsys, profile):
    """End to end, trained for three epochs only: the network on which ten steps of ε/4 found 3 of 40 examples."""
    (tmp_path / "nets.py").write_text(NETS)
    names: dict = {}
    exec(NETS, names)
    module = healthy_models.train(names["Net"](), healthy_models.digits("train"), epochs=3, rate=0.001)
    safetensors.torch.save_file(module.state_dict(), tmp_path / "net.safetensors")
    images = healthy_models.digits("test")
    pixels = (images.batch(0, 300)[:, 0] * 255).round().astype(np.uint8)
    np.savez(tmp_path / "images.npz", test_x=pixels, test_y=images.labels[:300])
    options = {"factory": "nets:Net", "weights": "net.safetensors", "dataset": "images.npz", "profile": profile}
    run = run_suites(tmp_path, *(f"--robustness-{name}={value}" for name, value in options.items()))
    assert run.returncode == 0, run.stdout
    assert "measured" in run.stdout
    assert "failed" not in run.stdout
