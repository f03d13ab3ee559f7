"""The fully connected network of eyes-parseval: its sizes, and what the Parseval constraint bounds."""

import pytest
import torch
from torch import nn

from models.dense import dense
from models.parseval import constrain_


def sizes(network):
    return [(layer.in_features, layer.out_features) for layer in network.modules() if isinstance(layer, nn.Linear)]


def test_sizes_follow_image_and_width():
    assert sizes(dense(size=32, outputs=2)) == [(1024, 512), (512, 512), (512, 2)]
    assert sizes(dense(channels=3, size=8, width=0.25)) == [(192, 128), (128, 128), (128, 4)]


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
