"""A training and a sweep are right with the instructions of every processor: `.ci/run` runs this file with two sets."""

import os
import subprocess
import sys

import helpers
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.defences.plain import fit
from robustness.classifiers.modules import is_channels_last_safe, lay_out
from robustness.perturbations import FGSM
from robustness.sweep.runner import run_sweep
from robustness.util.hardware import LIMITS
from robustness.workspace.recipes import Job

IMAGES = helpers.images(40, (28, 28, 3), seed=1)


class Network(nn.Module):
    """A block with a strided 1x1 convolution of six channels beside another; in float64, where oneDNN has no part."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.enter = nn.Conv2d(3, 6, 3, padding=1)
        self.large, self.small = nn.Conv2d(6, 12, 3, 2, 1), nn.Conv2d(6, 12, 1, 2)
        self.leave = nn.Linear(12 * 14 * 14, 3)
        self.to(dtype)

    def forward(self, inputs):
        inputs = F.relu(self.enter(inputs.to(self.leave.weight.dtype)))
        return self.leave(F.relu(self.large(inputs) + self.small(inputs)).flatten(1))


def test_a_training_is_that_in_float64():
    """Catches: gradients to weights that oneDNN computes wrongly, or with writes behind its buffers."""
    made = []
    for dtype in (torch.float32, torch.float64):
        network = Network(dtype)
        before = network.small.weight.detach().clone()
        fit(network, IMAGES, Job(0), epochs=8, batch_size=20, learning_rate=0.05, held_out=0.0)
        assert not any(each._forward_pre_hooks for each in network.modules())
        assert all(parameter.is_contiguous() for parameter in network.parameters())
        made.append((network.small.weight - before).detach().double())
    assert made[1].abs().max() > 0.01
    assert torch.allclose(made[0], made[1], atol=1e-4)


def test_a_sweep_is_that_in_float64():
    """Catches: gradients to the images, or outputs, that oneDNN computes wrongly."""
    evidence = run_sweep(Network().eval(), IMAGES, FGSM(), [0.02], probabilities=True)
    exact, inputs = Network(torch.float64), torch.from_numpy(IMAGES.batch(0, 40)).double().requires_grad_()
    labels = torch.from_numpy(IMAGES.labels.astype(np.int64))
    (gradient,) = torch.autograd.grad(F.cross_entropy(exact(inputs), labels, reduction="sum"), inputs)
    due = exact((inputs + 0.02 * gradient.sign()).clamp(0, 1)).softmax(1).detach().numpy()
    assert np.allclose(evidence.probabilities[0], due, atol=1e-3)


def test_one_channel_is_laid_out_soundly_too(monkeypatch):
    """Catches: maps of one channel, which are contiguous in both layouts and so are not laid out anew."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    convolution = nn.Conv2d(1, 8, 1, stride=2)
    lay_out(convolution)
    seen = []
    convolution.register_forward_pre_hook(lambda _, given: seen.append(given[0].stride()))
    inputs = torch.rand(2, 1, 28, 28).to(memory_format=torch.channels_last)
    assert torch.equal(convolution(inputs), convolution(inputs.clone(memory_format=torch.contiguous_format)))
    assert seen[0] == (784, 784, 28, 1)


@pytest.mark.parametrize(("limit", "sound"), [("AVX2", False), ("sse41", False), ("AVX512_CORE", None), (None, None)])
@pytest.mark.parametrize("variable", LIMITS[:2])
def test_what_is_sound_is_decided_by_the_instructions(monkeypatch, variable, limit, sound):
    """Catches: a limit that is not read; a layout lost where it is sound, which changes the bits of trainings."""
    for name in LIMITS[:2]:
        monkeypatch.delenv(name, raising=False)
    if limit:
        monkeypatch.setenv(variable, limit)
    due = torch.backends.cpu.get_cpu_capability() == "AVX512" if sound is None else sound
    strided = nn.Conv2d(6, 12, 1, stride=2)
    assert is_channels_last_safe(strided) is due
    for other in (nn.Conv2d(8, 12, 1, stride=2), nn.Conv2d(6, 12, 1), nn.Conv2d(6, 12, 3, stride=2)):
        assert is_channels_last_safe(other)
    assert is_channels_last_safe(strided.requires_grad_(False))  # as all are in a sweep


def output(command, environment):
    """Run a command with these variables and return what it printed; its errors are this test's."""
    done = subprocess.run(
        command, cwd=helpers.ROOT, env=environment, capture_output=True, text=True, timeout=helpers.LIMIT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(any(map(os.environ.get, LIMITS)), reason="already with the instructions of another processor")
def test_both_are_right_without_avx512():
    """Catches: all of the above on the processors of others, for whoever has AVX-512."""
    variables = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MALLOC_CHECK_": "3"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", __file__, "-k", "float64"]
    assert "2 passed" in output(command, os.environ | variables)


@pytest.mark.parametrize("name", LIMITS)
def test_evidence_of_fewer_instructions_is_of_another_device(name):
    """Catches: evidence with other last bits that is taken for that of the whole processor."""
    code = "from robustness.util.hardware import device_fingerprint; print(device_fingerprint('cpu'), end='')"
    bare = {key: value for key, value in os.environ.items() if key not in LIMITS}
    limits = {}, {name: "default"}, {name: "AVX2"}
    kinds = [output([sys.executable, "-c", code], bare | limit) for limit in limits]
    assert kinds[0] == kinds[1]
    assert kinds[2] == f"{kinds[0]}-limited-to-avx2"
