"""What every perturbation promises, for each kind and many images and strengths."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from robustness.classifiers.modules import state_hash
from robustness.decisions import Argmax, Null
from robustness.perturbations import (
    PERTURBATIONS,
    PGD,
    Batch,
    CommonCorruption,
    External,
    GaussianNoise,
    UniformNoise,
)
from robustness.perturbations.common_corruptions.severities import NAMES
from robustness.util.rng import Purpose, generator
from robustness.workspace import generators, patches

SETTINGS = settings(deadline=None, max_examples=20)
SHORT = {
    "apgd": {"steps": 10}, "apgd-t": {"steps": 3}, "autoattack": {"steps": 3, "queries": 5}, "fab": {"steps": 3},
    "square": {"queries": 5}, "corruption": {"name": "fog"}, "smoothing": {"selection_samples": 5, "samples": 20},
}  # fmt: skip
EXAMPLES = [
    *(kind(**SHORT.get(name, {})) for name, kind in PERTURBATIONS.items() if kind is not External),
    GaussianNoise(bound=1.0),
    GaussianNoise(bound=0.1),
    *(CommonCorruption(name=name) for name in NAMES if name != "fog"),
]
EVERY = pytest.mark.parametrize("perturbation", EXAMPLES, ids=repr)
NOISES = pytest.mark.parametrize("perturbation", [p for p in EXAMPLES if p.family == "noise"], ids=repr)
SEEDS = st.integers(0, 2**32 - 1)


def batch_of(perturbation, seed, count=5):
    """A batch with black, white and grey pixels, as sweep() makes it."""
    random = np.random.default_rng(seed)
    inputs = np.clip(random.uniform(-0.5, 1.5, (count, 2, 3, 4)), 0, 1).astype(np.float32)
    drawn = perturbation.draw(generator(seed, Purpose.NOISE), inputs.shape)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(24), nn.Linear(24, 4)).eval()
        classes = 4 if getattr(perturbation, "conditional", False) else 0
        patch = perturbation.kind == "patch"
        network = patches.PatchPixels(2, [1, 2]) if patch else generators.Generator(2, 2, classes).eval()
    return Batch(
        classifier,
        torch.from_numpy(inputs),
        torch.from_numpy(random.integers(0, 2, count)),
        None if drawn is None else torch.from_numpy(drawn),
        decision=Null() if perturbation.kind == "adaptive-pgd" else Argmax(),
        generator=network if perturbation.needs_fitting else None,
    )


def strength_of(perturbation, share):
    low, high = perturbation.strength_range
    strength = low + share * (min(high, 24) - low)
    return float(round(strength)) if perturbation.whole or perturbation.kind == "stg" else strength


@EVERY
@SETTINGS
@given(seed=SEEDS, share=st.floats(0, 1))
def test_the_result_is_an_image_and_nothing_else_changes(perturbation, seed, share):
    batch = batch_of(perturbation, seed)
    inputs, drawn = batch.inputs.clone(), None if batch.drawn is None else batch.drawn.clone()
    state, out = state_hash(batch.classifier), torch.full_like(batch.inputs, torch.nan)

    perturbed = perturbation.prepare(batch)(strength_of(perturbation, share), out)

    assert perturbed.shape == inputs.shape
    assert perturbed.dtype == torch.float32
    assert ((perturbed >= 0) & (perturbed <= 1)).all()
    assert perturbed.data_ptr() == out.data_ptr() != batch.inputs.data_ptr(), "an edit in place must not reach the data"
    assert torch.equal(batch.inputs, inputs)
    assert drawn is None or torch.equal(batch.drawn, drawn)
    assert state_hash(batch.classifier) == state
    assert not any(module.training for module in batch.classifier.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in batch.classifier.parameters())


@EVERY
@SETTINGS
@given(seed=SEEDS)
def test_strength_zero_is_the_image_bit_for_bit(perturbation, seed):
    batch = batch_of(perturbation, seed)
    perturb = perturbation.prepare(batch)
    for strength in (0.0, torch.zeros(5, 1, 1, 1)):
        assert torch.equal(perturb(strength, torch.empty_like(batch.inputs)), batch.inputs)


@EVERY
@SETTINGS
@given(seed=SEEDS, shares=st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_the_seed_decides_and_the_order_of_strengths_does_not(perturbation, seed, shares):
    first, again = (perturbation.prepare(batch_of(perturbation, seed)) for _ in range(2))
    strengths = [strength_of(perturbation, share) for share in shares]
    empty = torch.empty(5, 2, 3, 4)
    forth = [first(strength, empty).clone() for strength in strengths]
    back = [again(strength, empty).clone() for strength in reversed(strengths)]
    assert all(torch.equal(a, b) for a, b in zip(forth, reversed(back), strict=True))


@NOISES
@SETTINGS
@given(seed=SEEDS, one=st.floats(0.05, 1), other=st.floats(0.05, 1))
def test_the_direction_is_the_same_for_every_strength(perturbation, seed, one, other):
    batch = batch_of(perturbation, seed)
    perturb = perturbation.prepare(batch)
    directions, free = [], torch.ones(batch.inputs.shape, dtype=torch.bool)
    for strength in (one, other):
        perturbed = perturb(strength, torch.empty_like(batch.inputs))
        free &= (perturbed > 0) & (perturbed < 1)
        directions.append((perturbed - batch.inputs) / strength)
    assert torch.allclose(directions[0][free], directions[1][free], atol=1e-5)
    assert torch.allclose(directions[0][free], batch.drawn[free], atol=1e-5)


@pytest.mark.parametrize("perturbation", [p for p in EXAMPLES if p.family in ("noise", "natural")], ids=repr)
@SETTINGS
@given(seed=SEEDS, drawn=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_a_strength_an_image_is_each_image_at_its_strength(perturbation, seed, drawn):
    """Catches: one image's strength used for all; strength 0 inside a batch of others that is not the identity."""
    batch, strengths = batch_of(perturbation, seed), [0.0, *drawn]
    perturb = perturbation.prepare(batch)
    together = perturb(torch.tensor(strengths).view(5, 1, 1, 1), torch.empty_like(batch.inputs)).clone()
    assert torch.equal(together[0], batch.inputs[0])
    for row, strength in enumerate(strengths):
        alone = perturb(strength, torch.empty_like(batch.inputs))[row]
        assert torch.allclose(together[row], alone, atol=1e-6)


@NOISES
@SETTINGS
@given(seed=SEEDS, strength=st.floats(0, 1), row=st.integers(0, 4))
def test_an_image_does_not_depend_on_its_neighbours(perturbation, seed, strength, row):
    batch = batch_of(perturbation, seed)
    alone = Batch(batch.classifier, *(t[row : row + 1] for t in (batch.inputs, batch.labels, batch.drawn)))
    perturbed = perturbation.prepare(batch)(strength, torch.empty_like(batch.inputs))
    assert torch.equal(perturbation.prepare(alone)(strength, torch.empty_like(alone.inputs))[0], perturbed[row])


@SETTINGS
@given(seed=SEEDS, strength=st.floats(0, 1))
def test_uniform_and_bounded_noise_stay_in_their_ball(seed, strength):
    for perturbation, radius in ((UniformNoise(), 1), (GaussianNoise(bound=1.0), 1), (GaussianNoise(bound=0.1), 0.1)):
        batch = batch_of(perturbation, seed)
        delta = perturbation.prepare(batch)(strength, torch.empty_like(batch.inputs)) - batch.inputs
        assert delta.abs().max() <= strength * radius + 1e-6


def test_noise_moves_nearly_every_pixel():
    """An identity would keep every promise above."""
    for perturbation in (GaussianNoise(), GaussianNoise(bound=1.0), UniformNoise()):
        batch = batch_of(perturbation, 0, count=200)
        moved = perturbation.prepare(batch)(0.5, torch.empty_like(batch.inputs)) != batch.inputs
        grey = (batch.inputs > 0) & (batch.inputs < 1)
        assert moved[grey].float().mean() > 0.99
        assert 0.4 < moved[~grey].float().mean() < 0.6, "half the noise on black and white is clipped away"


@pytest.mark.parametrize(("perturbation", "lacking"), [(GaussianNoise(), "the noise"), (PGD(), "the random starts")])
def test_what_was_not_drawn_is_said(perturbation, lacking):
    batch = Batch(nn.Identity(), torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.long), None)
    with pytest.raises(ValueError, match=rf"`batch\.drawn` must hold {lacking}.*, got None"):
        perturbation.prepare(batch)


def test_kinds_are_listed_by_their_own_name():
    assert {name: kind.model_fields["kind"].default for name, kind in PERTURBATIONS.items()} == {
        name: name for name in PERTURBATIONS
    }
    for perturbation in EXAMPLES:
        low, high = perturbation.strength_range
        assert low <= 0 <= high
        assert perturbation.strength_name
    assert PERTURBATIONS["clean"]().strength_range == (0, 0)


@pytest.mark.parametrize(
    ("perturbation", "default", "changed"),
    [
        (GaussianNoise, {"kind": "gaussian", "bound": None}, {"clip": False, "accumulate": True, "source": "a.toml"}),
        (PGD, PGD().model_dump(), {"schedule": "linear"}),
    ],
)
def test_fields_of_later_versions_are_in_the_key_of_evidence_only_where_they_are_set(perturbation, default, changed):
    """Catches: other keys, and other protocols of baselines, for the perturbations that were there before."""
    assert perturbation().model_dump() == default
    assert not default.keys() & changed.keys()
    table = perturbation(**changed).model_dump()
    assert table == default | changed
    assert perturbation(**table) == perturbation(**changed)
    assert PGD(schedule="constant").model_dump() == PGD().model_dump()


@EVERY
def test_parameters_survive_the_way_through_a_card(perturbation):
    assert type(perturbation).model_validate(perturbation.model_dump()) == perturbation
    assert copy.deepcopy(perturbation) == perturbation
    with pytest.raises(ValidationError, match="extra_forbidden"):
        type(perturbation).model_validate({"bounds": 1.0})


@pytest.mark.parametrize("bound", [0, -1, float("inf"), float("nan")])
def test_a_bound_is_a_positive_number(bound):
    with pytest.raises(ValidationError, match="bound"):
        GaussianNoise(bound=bound)
