"""Damage to a module and to what it is trained on: what each kind does, by closed forms, and what it leaves alone."""

import math
import warnings
from collections import Counter

import found_models
import helpers
import numpy as np
import pytest
import torch
from torch import nn

from robustness.errors import ModelError
from robustness.mutations import kinds, operators, training_data
from robustness.mutations.kinds import KINDS, Mutation, MutationError

NOTHING = {"noise": 0, "pruning": 0, "rounding": 16, "classes": 1, "normalisation": 0, "layer": 0}
"""The level of each kind at which there is no damage; sixteen bits are next to none."""


def network(outputs=4):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, outputs)
        ).eval()


def batch():
    return torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(2))


def spoilt(module, kind, level):
    return operators.mutate(module, Mutation(kind, level), classes=4, outputs=4)


@pytest.mark.parametrize("kind", NOTHING)
def test_the_least_level_does_nothing(kind):
    """Catches: a kind that changes something beside its level, as by copying or by a draw that is always added."""
    module, inputs = network(), batch()
    with torch.inference_mode():
        due, got = module(inputs), spoilt(module, kind, NOTHING[kind])(inputs)
    assert torch.allclose(got, due, atol=1e-3 if kind == "rounding" else 0)


@pytest.mark.parametrize("kind", NOTHING)
def test_every_level_changes_a_copy_alone(kind):
    """Catches: damage done in place, which the next level would be done on top of; a level without effect."""
    module, inputs = network(), batch()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.inference_mode():
        due = module(inputs)
        for level in KINDS[kind].levels:
            assert not torch.equal(spoilt(module, kind, level)(inputs), due)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_the_same_seed_draws_the_same_damage_and_another_another():
    """Catches: draws from the process's own random state, which no store could keep."""
    module = network()
    first, torch_state = operators.add_weight_noise(module, 0.5, 3), torch.get_rng_state()
    again, other = operators.add_weight_noise(module, 0.5, 3), operators.add_weight_noise(module, 0.5, 4)
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_a_wrong_mean_moves_a_threshold_by_as_much():
    """Catches: a mean added, or subtracted behind the first layer: of one pixel the accuracy is known."""
    pixels = torch.linspace(0.005, 0.995, 100).view(-1, 1, 1, 1)
    labels = (pixels.flatten() > 0.5).long()
    module = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    module[1].weight.data, module[1].bias.data = torch.tensor([[0.0], [1.0]]), torch.tensor([0.0, -0.5])
    for mean in KINDS["normalisation"].levels:
        got = operators.shift_input_mean(module, mean)(pixels).argmax(1)
        assert (got == labels).float().mean().item() == pytest.approx(1 - mean)


def test_permuted_classes_are_wrong_and_the_others_as_they_were():
    """Catches: classes moved that were not to be, or a roll that leaves one in its place."""
    logits = torch.eye(5)
    for count in range(1, 6):
        got = operators.permute_classes(nn.Identity(), count)(logits).argmax(1)
        due = [(row + 1) % count if row < count else row for row in range(5)]
        assert got.tolist() == due


def test_rounding_to_so_many_bits():
    """Catches: another scale, or one for all layers: values lie on a grid, at most half a step from where they were."""
    module = network()
    for bits in (2, 4, 8):
        got = operators.quantize(module, bits)
        for before, after in ((module[4].weight, got[4].weight), (module[0].weight, got[0].weight)):
            step = before.abs().max() / (2 ** (bits - 1) - 1)
            assert (after - before).abs().max() <= step / 2 * 1.0001
            assert torch.allclose((after / step).round() * step, after)
            assert len(after.unique()) <= 2**bits - 1
        assert torch.equal(got[4].bias, module[4].bias)


def test_pruning_takes_the_smallest_of_each_layer():
    """Catches: the largest taken, or the smallest of all layers together."""
    module = network()
    got = operators.prune(module, 0.25)
    for index in (0, 4, 5):
        before, after = module[index].weight.detach().abs().flatten(), got[index].weight.detach().flatten()
        gone = after == 0
        assert int(gone.sum()) == round(0.25 * before.numel())
        assert before[gone].max() <= before[~gone].min()


def test_the_last_layer_is_the_one_with_as_many_rows_as_outputs():
    """Catches: the layer that was registered last taken for the last, as where a head stands before the body."""
    module = nn.ModuleDict({"head": nn.Linear(5, 7), "body": nn.Linear(3, 5)})
    got = operators.reinitialize_last_layer(module, 1.0, outputs=7)
    assert not torch.equal(got["head"].weight, module["head"].weight)
    assert not torch.equal(got["head"].bias, module["head"].bias)
    assert torch.equal(got["body"].weight, module["body"].weight)
    got = operators.reinitialize_last_layer(module, 1.0, outputs=9)
    assert not torch.equal(got["body"].weight, module["body"].weight)


def test_shifted_labels_are_so_many_and_off_by_one():
    """Catches: labels drawn anew, of which some stay right; a last class that runs over; images that change."""
    images = helpers.digits(per_class=10)
    for share in (0.0, 0.2, 1.0):
        got = training_data.mutate_training_data(images, Mutation("labels", share))
        moved = (got.labels - images.labels) % 10
        assert Counter(moved.tolist()) == +Counter({1: round(share * 100), 0: 100 - round(share * 100)})
        assert np.array_equal(got.batch(0, 100), images.batch(0, 100))
        assert (got.fingerprint == images.fingerprint) == (share == 0)


def test_fewer_images_are_of_every_class_alike():
    """Catches: a class that is lost, or the first images taken, which may be of one class."""
    images = helpers.digits(per_class=10)
    for share, per_class in ((0.3, 3), (0.001, 1)):
        fewer = training_data.mutate_training_data(images, Mutation("data", share))
        assert np.bincount(fewer.labels).tolist() == [per_class] * 10
    for nothing in (Mutation("data", 1.0), Mutation("noise", 1.0), None):
        assert training_data.mutate_training_data(images, nothing) is images


def test_an_exported_file_has_weights_or_says_that_it_has_none():
    """Catches: a frozen file whose weights are constants called damaged, though nothing in it has changed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript
        traced = torch.jit.trace(network(), batch())
        frozen = torch.jit.freeze(traced)
    assert not operators.not_applicable(traced, KINDS["noise"])
    with torch.inference_mode():
        assert not torch.equal(spoilt(traced, "layer", 1.0)(batch()), traced(batch()))
    for kind in KINDS.values():
        assert bool(operators.not_applicable(frozen, kind)) == (kind.target == "weights")
    with torch.inference_mode():
        assert torch.equal(spoilt(frozen, "classes", 4)(batch()), frozen(batch()).roll(1, dims=1))


def test_a_model_that_cannot_be_copied_says_so():
    """Catches: a traceback from copying, or damage done to the one that there is."""

    class Whole(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("there is one of me")

    with pytest.raises(ModelError, match="cannot be copied: RuntimeError: there is one of me"):
        operators.add_weight_noise(Whole(2, 2), 0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nois", r"damage must be one of noise, pruning, .*, got 'nois'; did you mean 'noise'\?"),
        ("", "damage must be one of"),
        ("noise=-0.1", "a level of noise must be a number from 0 to 100, got '-0.1'; it means: noise of LEVEL dev"),
        ("noise=much", "from 0 to 100, got 'much'"),
        ("noise=nan", "got 'nan'"),
        ("pruning=0.5,1.01", "from 0 to 1, got '1.01'"),
        ("rounding=7.5", "a whole number from 2 to 16, got '7.5'"),
        ("rounding=1", "a whole number from 2 to 16"),
        ("noise=all", "got 'all'"),
        ("data=0", "from 0.001 to 1, got '0'"),
        ("classes=0", "a whole number from 1 to all"),
        ("layer=", "got ''"),
    ],
)
def test_what_cannot_be_done_is_refused(text, said):
    """Catches: a level that is clipped or ignored, or an unknown kind that is passed over."""
    with pytest.raises(MutationError, match=said):
        kinds.parse_mutation(text)


def test_a_damaged_card_is_another_model_and_only_then(own_path, tmp_path):
    """Catches: evidence of a damaged model kept under the undamaged one's key, or one level's under another's."""
    card = found_models.card(tmp_path, 'factory = "net:net"', "seed = 1", net=NET)
    of = found_models.open_workspace(tmp_path)
    damage = [Mutation("noise", 0.5), Mutation("noise", 0.7), Mutation("noise", 0.5, 1), Mutation("classes", math.inf)]
    keys = {of.key(card, "normal"), *(of.key(card.mutated(each), "normal") for each in damage)}
    assert len(keys) == 1 + len(damage)
    assert of.evidence(card).digest != of.evidence(card.mutated(damage[-1])).digest
    right = of.evidence(card).predictions[0]
    assert np.array_equal(of.evidence(card.mutated(damage[-1])).predictions[0], (right + 1) % 10)


NET = "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
