"""The papers' networks: torchvision's own at width 1, re-parameterisation of RepVGG, published sizes, bounds."""

from functools import partial

import helpers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models.cifar_targets import mobilenet_x1_4, resnet56, shufflenet_x2
from models.dense import dense
from models.large import mobilenet, resnet50, shufflenet
from models.parseval import constrain_
from models.repvgg import Block, repvgg
from robustness.util.torchvision_compat import models as zoo


def without_early_halving(network):
    """torchvision's network with the stem of CIFAR-10: no stride, no pooling."""
    if hasattr(network, "maxpool"):
        network.maxpool = nn.Identity()
        network.conv1[0].stride = (1, 1)
    else:
        network.features[0][0].stride = network.features[2].conv[1][0].stride = (1, 1)
    return network.eval()


@pytest.mark.parametrize(
    ("ours", "theirs", "size"),
    [
        (partial(resnet50, stem="imagenet"), zoo.resnet50, 64),
        (partial(shufflenet, stem="imagenet"), zoo.shufflenet_v2_x1_0, 64),
        (partial(mobilenet, stem="imagenet"), zoo.mobilenet_v2, 64),
        (shufflenet_x2, lambda **classes: without_early_halving(zoo.shufflenet_v2_x2_0(**classes)), 32),
        (mobilenet_x1_4, lambda **classes: without_early_halving(zoo.mobilenet_v2(**classes, width_mult=1.4)), 32),
    ],
    ids=["resnet50", "shufflenet", "mobilenet", "shufflenet x2", "mobilenet x1.4"],
)
def test_at_width_one_a_network_is_torchvision_s(ours, theirs, size):
    """Weights of one in the other give the same logits. Catches: another stride, pooling, shortcut or rounded width."""
    torch.manual_seed(0)
    network, other = ours(outputs=7, mean=0.0, std=1.0).eval(), theirs(num_classes=7).eval()
    network[1].load_state_dict(other.state_dict())
    inputs = torch.rand(2, 3, size, size)
    assert torch.allclose(network(inputs), other(inputs), atol=1e-5)


LARGE = [resnet50, shufflenet, mobilenet, repvgg]
TARGETS = [resnet56, shufflenet_x2, mobilenet_x1_4]


@pytest.mark.parametrize("make", LARGE + TARGETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_stem_keeps_4_by_4_of_an_image_of_32(make, channels):
    """The paper's own stem leaves one pixel. Catches: widths that do not reach the shortcuts or the last layer."""
    network = make(channels=channels, outputs=43, width=0.125).eval()
    sizes, shape = helpers.map_sizes(network, torch.zeros(2, channels, 32, 32))
    assert shape == (2, 43)
    assert min(sizes) == (8 if make is resnet56 else 4)
    assert make in LARGE or max(sizes) == 32
    full, narrow = (sum(p.numel() for p in make(width=width).parameters()) for width in (1.0, 0.25))
    assert narrow < full / 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *((partial(make, stem="large"), "`stem` must be small or imagenet, got 'large'") for make in LARGE[:3]),
        *((partial(make, width=0), "`width` must be above 0, got 0") for make in TARGETS),
        (partial(repvgg, "b0"), "`kind` must be one of a0, a1, a2, got 'b0'"),
    ],
)
def test_what_no_network_has_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


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


def test_resnet56_has_the_paper_s_layers_and_parameters():
    """55 convolutions and a linear layer, beside two shortcuts; parameters counted by hand."""
    network = resnet56()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [c.kernel_size[0] for c in convolutions].count(3) == 55
    assert [c.kernel_size[0] for c in convolutions].count(1) == 2
    stages = [(16, 16), (16, 32), (32, 64)]
    by_hand = 9 * 3 * 16 + sum(9 * (first * out + 17 * out * out) for first, out in stages)
    by_hand += 2 * (16 + 18 * (16 + 32 + 64))
    by_hand += 16 * 32 + 32 * 64 + 2 * (32 + 64) + 64 * 10 + 10
    assert sum(p.numel() for p in network.parameters()) == by_hand


# The fully connected network of eyes-parseval


def sides(network):
    return [(layer.in_features, layer.out_features) for layer in network.modules() if isinstance(layer, nn.Linear)]


def test_sizes_follow_image_and_width():
    assert sides(dense(size=32, outputs=2)) == [(1024, 512), (512, 512), (512, 2)]
    assert sides(dense(channels=3, size=8, width=0.25)) == [(192, 128), (128, 128), (128, 4)]


def test_a_parseval_network_expands_no_distance_between_standardised_images():
    """Before and after steps of the constraint. Catches: weights that are not orthogonal, a layer that expands."""
    torch.manual_seed(0)
    network = dense(size=8, outputs=4, orthogonal=True)
    one, other = torch.rand(2, 50, 1, 8, 8)
    for _ in range(2):
        apart = (network[0](one) - network[0](other)).flatten(1).norm(dim=1)
        assert ((network(one) - network(other)).norm(dim=1) <= apart * (1 + 1e-5)).all()
        constrain_(network)
    assert (nn.utils.parameters_to_vector(dense(size=8).parameters())).norm() > 0


@pytest.mark.parametrize("orthogonal", [True, False])
def test_the_image_s_contrast_and_brightness_change_nothing(orthogonal):
    network, image = dense(size=8, orthogonal=orthogonal), torch.rand(3, 1, 8, 8)
    assert torch.allclose(network(image), network(0.5 * image + 0.25), atol=1e-5)
