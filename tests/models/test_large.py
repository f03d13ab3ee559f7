"""The large classifiers: torchvision's own networks at width 1, and RepVGG's re-parameterisation."""

import helpers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.large import mobilenet, resnet50, shufflenet
from models.repvgg import Block, repvgg
from robustness.util.torchvision_compat import models as zoo


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (resnet50, zoo.resnet50),
        (shufflenet, zoo.shufflenet_v2_x1_0),
        (mobilenet, zoo.mobilenet_v2),
    ],
    ids=["resnet50", "shufflenet", "mobilenet"],
)
def test_at_width_one_with_its_own_stem_a_network_is_torchvision_s(ours, theirs):
    """Weights of the one in the other give the same logits. Catches: a stride, a pooling, a shortcut that differs."""
    torch.manual_seed(0)
    network, other = ours(outputs=7, stem="imagenet", mean=0.0, std=1.0).eval(), theirs(num_classes=7).eval()
    network[1].load_state_dict(other.state_dict())
    inputs = torch.rand(2, 3, 64, 64)
    assert torch.allclose(network(inputs), other(inputs), atol=1e-5)


@pytest.mark.parametrize("make", [resnet50, shufflenet, mobilenet, repvgg])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_stem_keeps_4_by_4_of_an_image_of_32(make, channels):
    """The paper's own stem leaves one pixel. Catches: widths that do not reach the shortcuts or the last layer."""
    network = make(channels=channels, outputs=43, width=0.125).eval()
    sizes, shape = helpers.map_sizes(network, torch.zeros(2, channels, 32, 32))
    assert shape == (2, 43)
    assert min(sizes) == 4
    full, narrow = (sum(p.numel() for p in make(width=width).parameters()) for width in (1.0, 0.25))
    assert narrow < full / 4


@pytest.mark.parametrize("make", [resnet50, shufflenet, mobilenet])
def test_an_unknown_stem_is_refused(make):
    with pytest.raises(ValueError, match="`stem` must be small or imagenet, got 'large'"):
        make(stem="large")


def test_an_unknown_repvgg_is_refused():
    with pytest.raises(ValueError, match="`kind` must be one of a0, a1, a2, got 'b0'"):
        repvgg("b0")


def drawn(module, seed):
    """Draw weights and batch norm's statistics at random: fresh ones are 0, 1, and hide what is left out."""
    draws = np.random.default_rng(seed)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            for tensor, low, high in (
                (each.weight.data, -1.5, 1.5), (each.bias.data, -1, 1), (each.running_mean, -1, 1),
                (each.running_var, 0.2, 2),
            ):  # fmt: skip
                tensor.copy_(torch.from_numpy(draws.uniform(low, high, tensor.shape)))
    return module


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**16), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 2]))
def test_a_block_as_one_convolution_computes_the_same(seed, fan_in, fan_out, stride):
    """Catches: a 1x1 kernel off the centre, a missing identity, ε of batch norm left out, a bias of the mean alone."""
    torch.manual_seed(seed)
    block = drawn(Block(fan_in, fan_out, stride), seed).double().eval()
    inputs = torch.randn(2, fan_in, 6, 6, dtype=torch.float64)
    assert torch.allclose(block(inputs), helpers.repvgg_branches(block, inputs), atol=1e-10)
    assert len(block.norms) == (3 if fan_in == fan_out and stride == 1 else 2)


def test_a_block_trains_by_its_branches():
    """Catches: one convolution in training, where batch norm has to see what each branch gives."""
    torch.manual_seed(0)
    block, inputs = Block(3, 3), torch.randn(8, 3, 6, 6)
    block(inputs)
    for norm, branch in zip(block.norms, (block.large(inputs), block.small(inputs), inputs), strict=True):
        assert torch.allclose(norm.running_mean, 0.1 * branch.mean((0, 2, 3)), atol=1e-6)


def test_a2_has_the_published_widths():
    """Ding et al. 2021, table 2: A2 has stages of 96, 192, 384 and 1408 channels, 2, 4, 14 and 1 blocks, after 64."""
    network = repvgg("a2")
    widths = [block.large.out_channels for block in network if isinstance(block, Block)]
    assert widths == [64, *[96] * 2, *[192] * 4, *[384] * 14, 1408]
