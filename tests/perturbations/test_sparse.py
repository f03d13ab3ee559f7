"""STG against closed forms on linear models: which features, how many, and when it stops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustness.data.images import from_arrays
from robustness.metrics.evidence import OK
from robustness.perturbations import STG, Batch
from robustness.perturbations.stg import stg
from robustness.sweep.runner import run_sweep

SETTINGS = settings(deadline=None, max_examples=25)


def linear(weight, bias=None):
    """A linear model of images (1, 1, D) with the given weights, (classes, D)."""
    weight = torch.as_tensor(np.asarray(weight, np.float32))
    module = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], len(weight)))
    module[1].weight.data.copy_(weight)
    module[1].bias.data.copy_(torch.zeros(len(weight)) if bias is None else torch.as_tensor(bias, dtype=torch.float32))
    return module


def changes(before, after):
    return (before != after).flatten(1).sum(1)


@SETTINGS
@given(seed=st.integers(0, 2**32 - 1), budget=st.integers(1, 12))
def test_two_classes_lose_the_largest_differences_first(seed, budget):
    """For two classes the gradient is along w1 − w0 everywhere: the order of features is that of |w1 − w0|."""
    random = np.random.default_rng(seed)
    weight, inputs = random.normal(size=(2, 12)), random.uniform(0.1, 0.9, (4, 1, 1, 12)).astype(np.float32)
    difference = weight[1] - weight[0]
    bias = [100.0, 0.0]  # class 0 whatever happens: the whole budget is spent
    found = stg(linear(weight, bias), torch.from_numpy(inputs), torch.zeros(4, dtype=torch.long), features=budget)
    due = inputs.copy()
    for feature in np.argsort(-np.abs(difference))[:budget]:
        due[..., feature] = difference[feature] > 0
    assert np.array_equal(found.numpy(), due)


@SETTINGS
@given(seed=st.integers(0, 2**32 - 1))
def test_it_stops_at_the_feature_that_turns_the_class(seed):
    """The number of changes is the least k whose k largest gains exceed the margin."""
    random = np.random.default_rng(seed)
    weight, inputs = random.normal(size=(2, 20)), random.uniform(0.2, 0.8, (6, 1, 1, 20)).astype(np.float32)
    logits = inputs.reshape(6, 20) @ weight.T
    labels = logits.argmax(1)
    found = stg(linear(weight), torch.from_numpy(inputs), torch.from_numpy(labels), features=20)
    for row, label in enumerate(labels):
        difference = weight[1 - label] - weight[label]
        order = np.argsort(-np.abs(difference))
        gains = (difference * ((difference > 0) - inputs[row, 0, 0]))[order].cumsum()
        due = int((gains <= logits[row, label] - logits[row, 1 - label]).sum()) + 1
        assert int(changes(torch.from_numpy(inputs), found)[row]) == min(due, 20)


def test_a_feature_at_its_bound_cannot_move_outwards():
    weight = [[0.0, 0.0, 0.0], [3.0, 2.0, 1.0]]
    inputs = torch.tensor([1.0, 1.0, 0.25]).view(1, 1, 1, 3)
    found = stg(linear(weight, [50.0, 0.0]), inputs, torch.tensor([0]), features=3)
    assert found.flatten().tolist() == [1.0, 1.0, 1.0], "only the third could still grow"


@SETTINGS
@given(seed=st.integers(0, 2**32 - 1), budgets=st.lists(st.integers(0, 12), min_size=1, max_size=5))
def test_a_replayed_path_is_a_fresh_one(seed, budgets):
    """Catches: a path that went on after a larger budget and is not cut for a smaller one."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    inputs, labels = torch.rand(5, 1, 3, 4), torch.randint(0, 3, (5,))
    perturb = STG().prepare(Batch(module, inputs, labels))
    for budget in budgets:
        found = perturb(float(budget), torch.empty_like(inputs))
        assert torch.equal(found, stg(module, inputs, labels, features=budget))
        assert int(changes(inputs, found).max()) <= budget


def test_an_image_that_is_wrong_already_stays():
    inputs = torch.full((1, 1, 1, 2), 0.5)
    assert torch.equal(stg(linear([[1.0, 0.0], [0.0, 0.0]]), inputs, torch.tensor([1]), features=2), inputs)


@pytest.mark.parametrize("classes", [2, 1000])
def test_few_and_many_classes(classes):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(30, classes))
    inputs = torch.rand(4, 1, 5, 6)
    labels = module(inputs).argmax(1)
    found = stg(module, inputs, labels, features=30)
    assert (module(found).argmax(1) != labels).any()


def test_a_fraction_of_a_feature_is_refused_in_its_cell():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4), dtype=np.uint8)
    images = from_arrays(pixels, [0, 1, 2, 0, 1, 2])
    evidence = run_sweep(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), images, STG(), [2.0, 1.5])
    assert evidence.status[0] == OK
    assert "whole numbers of features, got 1.5" in evidence.status[1]
