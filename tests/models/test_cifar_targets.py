"""The targets of hybrid-gan beside torchvision's networks and the paper's counts."""

import helpers
import pytest
import torch
from torch import nn

from models.cifar_targets import mobilenet_x1_4, resnet56, shufflenet_x2
from robustness.util.torchvision_compat import models as zoo

EVERY = [resnet56, shufflenet_x2, mobilenet_x1_4]


def without_early_halving(network):
    """torchvision's network with the stem of CIFAR-10: no stride, no pooling."""
    if hasattr(network, "maxpool"):
        network.maxpool = nn.Identity()
        network.conv1[0].stride = (1, 1)
    else:
        network.features[0][0].stride = network.features[2].conv[1][0].stride = (1, 1)
    return network.eval()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (shufflenet_x2, lambda: zoo.shufflenet_v2_x2_0(num_classes=10)),
        (mobilenet_x1_4, lambda: zoo.mobilenet_v2(num_classes=10, width_mult=1.4)),
    ],
    ids=["shufflenet", "mobilenet"],
)
def test_at_width_one_a_network_is_torchvision_s(ours, theirs):
    """Weights of the one in the other give the same logits. Catches: 1x channels doubled, channels in fours."""
    network, other = ours(mean=0.0, std=1.0).eval(), without_early_halving(theirs())
    network[1].load_state_dict(other.state_dict())
    inputs = torch.rand(1, 3, 32, 32)
    assert torch.allclose(network(inputs), other(inputs), atol=1e-5)


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


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_can_be_narrow_and_keeps_the_size_of_its_last_maps(make, channels):
    network = make(channels=channels, outputs=43, width=0.125).eval()
    sizes, shape = helpers.map_sizes(network, torch.zeros(2, channels, 32, 32))
    assert shape == (2, 43)
    assert (max(sizes), min(sizes)) == (32, 8 if make is resnet56 else 4)


@pytest.mark.parametrize("make", EVERY)
def test_a_width_of_zero_is_refused(make):
    with pytest.raises(ValueError, match="`width` must be above 0, got 0"):
        make(width=0)
