"""Parseval networks: what the constraint does to weights and sums, and what it does to distances."""

from functools import partial

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from models.eyes import cnn
from models.parseval import Convex, constrain_, constrained, orthogonal_, simplex, tighten_, weights
from models.wrn import Standardise, wrn

SHAPES = st.sampled_from([(3, 5), (5, 3), (4, 4), (4, 2, 3, 3), (8, 1, 2, 2)])


@st.composite
def matrices(draw, largest=1.3):
    """A weight with known singular values, of which some may be 0, and no more than its smaller side."""
    shape = draw(SHAPES)
    rows, columns = shape[0], int(np.prod(shape[1:]))
    rank = min(rows, columns)
    values = st.one_of(st.just(0.0), st.floats(0.2, largest))
    sigma = draw(st.lists(values, min_size=rank, max_size=rank))
    drawn = np.random.default_rng(draw(st.integers(0, 2**16)))
    left, right = (np.linalg.qr(drawn.normal(size=(side, side)))[0] for side in (rows, columns))
    made = left[:, :rank] @ np.diag(sigma) @ right[:rank]
    return torch.from_numpy(made).view(shape), np.array(sigma)


def singular(weight):
    return np.linalg.svd(weight.flatten(1).numpy(), compute_uv=False)


@given(matrices())
def test_repeated_steps_bring_every_singular_value_but_zero_to_one(made):
    """
    ‖WWᵀ − I‖ itself cannot vanish where there are more rows than columns. Catches: a wrong sign, W·W for W·Wᵀ.

    Few steps: what rounding makes of a 0 grows by 1 + β with each.
    """
    weight, sigma = made
    for _ in range(40):
        tighten_(weight, 0.3)
    assert np.allclose(np.sort(singular(weight)), np.sort((sigma > 0).astype(float)), atol=1e-6)


@given(matrices(), st.floats(1e-4, 0.4))
def test_a_step_moves_each_singular_value_by_its_own_formula(made, beta):
    weight, sigma = made
    due = np.sort(sigma + beta * sigma * (1 - sigma**2))
    assert np.allclose(np.sort(singular(tighten_(weight.clone(), beta))), due, atol=1e-9)


def test_at_the_paper_s_beta_it_takes_thousands_of_steps():
    weight = 0.5 * torch.eye(3, dtype=torch.float64)
    counts = {}
    for i in range(1, 10_001):
        tighten_(weight)
        if i in (100, 10_000):
            counts[i] = float((1 - singular(weight)).max())
    assert counts[100] > 0.4
    assert counts[10_000] < 1e-6


VECTORS = arrays.arrays(np.float64, st.integers(1, 6), elements=st.floats(-5, 5))


@given(VECTORS, st.integers(0, 2**16))
def test_the_projection_is_the_nearest_point_of_the_simplex(values, seed):
    """
    On it, idempotent, and no other point of the simplex lies on the far side: ⟨v − p, q − p⟩ ≤ 0 for every q.

    Catches: dividing by the sum, a softmax, clamping alone.
    """
    vector = torch.from_numpy(values)
    point = simplex(vector)
    assert bool((point >= 0).all())
    assert abs(float(point.sum()) - 1) < 1e-9
    assert torch.allclose(simplex(point), point, atol=1e-9)
    others = np.random.default_rng(seed).dirichlet(np.ones(len(values)), 50)
    others = np.concatenate([others, np.eye(len(values))])
    assert ((others - point.numpy()) @ (values - point.numpy()) <= 1e-9).all()


@given(matrices(), st.integers(0, 2**16))
def test_a_tight_linear_layer_does_not_expand_distances(made, seed):
    weight, _ = made
    for _ in range(40):
        tighten_(weight, 0.3)
    one, other = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 50, weight.flatten(1).shape[1])))
    before = torch.linalg.vector_norm(one - other, dim=1)
    after = torch.linalg.vector_norm((one - other) @ weight.flatten(1).T, dim=1)
    assert bool((after <= before + 1e-5).all())


def test_a_tight_convolution_expands_distances_by_at_most_its_kernel_s_size():
    """And it does expand some: what is said of linear layers must not be said of it. An average kernel reaches 3."""
    kernel = nn.Conv2d(1, 1, 3, padding=1, bias=False, padding_mode="circular")
    with torch.no_grad():
        kernel.weight.fill_(1 / 3)  # one row of length 1: tight
        flat = torch.ones(1, 1, 8, 8)
        ratio = torch.linalg.vector_norm(kernel(flat)) / torch.linalg.vector_norm(flat)
        assert float(ratio) == pytest.approx(3)
        noise = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 1, 8, 8))).float()
        orthogonal_(kernel)
        ratios = torch.linalg.vector_norm(kernel(noise).flatten(1), dim=1) / torch.linalg.vector_norm(
            noise.flatten(1), dim=1
        )
        assert float(ratios.max()) <= 3


@pytest.mark.parametrize("add", ["convex", "sigmoid"])
def test_the_sum_stays_convex_under_an_optimizer(add):
    """Catches: coefficients that are never projected, a share outside of [0, 1]."""
    torch.manual_seed(0)
    network = wrn(10, outputs=2, add=add, orthogonal=True)
    optimizer = constrained(torch.optim.SGD(network.parameters(), lr=2.0), network)
    inputs, labels = torch.rand(8, 1, 8, 8), torch.tensor([0, 1] * 4)
    sums = [module for module in network.modules() if isinstance(module, Convex)]
    begin = [module.coefficients.clone() for module in sums]
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
    assert len(sums) == 3
    assert any(not torch.equal(module.coefficients, old) for module, old in zip(sums, begin, strict=True))
    zero, one = torch.zeros(1), torch.ones(1)
    for module in sums:
        assert 0 <= module(one, zero).item() <= 1
        assert module(one, zero).item() + module(zero, one).item() == pytest.approx(1)


def test_a_parseval_network_begins_with_tight_weights_and_stays_near_them():
    network = wrn(10, add="convex", orthogonal=True)
    assert all(np.allclose(singular(weight.detach()), 1, atol=1e-5) for weight in weights(network))
    with torch.no_grad():
        for weight in weights(network):
            weight.mul_(1.1)
    for _ in range(40):
        constrain_(network, 0.1)
    assert all(np.allclose(singular(weight.detach()), 1, atol=1e-3) for weight in weights(network))


@pytest.mark.parametrize(("depth", "k", "blocks", "last"), [(16, 1, 6, 64), (16, 2, 6, 128), (10, 4, 3, 256)])
def test_wrn_has_the_paper_s_blocks_and_widths(depth, k, blocks, last):
    network = wrn(depth, k)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len([module for module in convolutions if module.kernel_size == (3, 3)]) == 2 * blocks + 1
    assert convolutions[-1].out_channels == last == network[-1].in_features
    shapes = []
    network[-4].register_forward_hook(lambda module, args, outputs: shapes.append(outputs.shape[1:]))
    network.eval()(torch.zeros(1, 1, 32, 32))
    assert shapes == [(last, 8, 8)], "average pooling over 8 x 8"


def test_sixteen_layers_have_the_published_number_of_parameters():
    """WRN-16-1 for ten classes of colour images: 0.17 million (Zagoruyko and Komodakis, table 4 scaled: WRN-16-k)."""
    count = sum(parameter.numel() for parameter in wrn(16, 1, channels=3, outputs=10).parameters())
    assert 0.16e6 < count < 0.18e6


def test_depths_that_are_no_such_network_are_refused():
    with pytest.raises(ValueError, match=r"`depth` must be 6n \+ 4 for n blocks a group, got 15"):
        wrn(15)


def test_an_image_without_contrast_is_zero_and_has_a_gradient():
    """Catches: 0/0, and the root's derivative without a bound."""
    flat = torch.full((1, 1, 4, 4), 0.3, requires_grad=True)
    found = Standardise()(flat)
    found.sum().backward()
    assert torch.allclose(found, torch.zeros_like(found), atol=0.01)
    assert bool(flat.grad.isfinite().all())


@pytest.mark.parametrize("make", [partial(wrn, 10), cnn])
def test_each_crop_is_standardised_by_itself_unless_that_is_left_out(make):
    """Flatter crops are the same. Catches: a mean of the batch or of one channel, an option without effect."""
    torch.manual_seed(0)
    network, crops = make(channels=2, outputs=2).eval(), torch.rand(4, 2, 32, 32)
    flatter = crops * torch.tensor([0.3, 0.5, 0.7, 0.9])[:, None, None, None] + 0.05
    with torch.inference_mode():
        assert torch.allclose(network(flatter), network(crops), atol=1e-4)
        assert not torch.allclose(network(crops * torch.tensor([1.0, 0.5])[:, None, None]), network(crops), atol=1e-3)
        raw = wrn(10, channels=2, standardise=False).eval()
        assert not torch.allclose(raw(flatter), raw(crops), atol=1e-3)


def test_the_cnn_for_eyes_has_three_blocks():
    """Catches: a pooling or a batch norm that one block lacks; normalisation by numbers of all crops."""
    layers = [type(layer) for layer in cnn()]
    assert layers[:-4] == [Standardise, *3 * [nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.BatchNorm2d]]
    assert layers[-4:] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]
