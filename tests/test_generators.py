"""AdvGAN: what a fitted generator gives, to whom it belongs, and that fitting it is repeatable and leaves no trace."""

import numpy as np
import pytest
import torch
from torch import nn

from robustness import generators
from robustness.datasets.images import from_arrays
from robustness.errors import ModelError, TrainingError
from robustness.evidence import OK
from robustness.modules import state_hash
from robustness.perturbations import AdvGAN
from robustness.recipes import Job
from robustness.store import Store
from robustness.sweep import sweep

SHORT = AdvGAN(steps=60, batch_size=20, width=4)


def images(shape=(8, 8), count=60):
    random = np.random.default_rng(0)
    return from_arrays(random.integers(0, 256, (count, *shape), dtype=np.uint8), np.arange(count) % 3)


def linear(features=64, classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(features, classes)).eval()


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_it_reaches_most_of_what_the_best_direction_could():
    """Of two classes of a linear model, k·sign(w1 − w0) is best: the margin falls by k·‖w1 − w0‖₁ if nothing clips."""
    random = np.random.default_rng(1)
    grey = from_arrays(random.integers(100, 156, (60, 8, 8), dtype=np.uint8), np.zeros(60, int), ("a", "b"))
    model = linear(classes=2)
    fitted = generators.fit(model, grey, AdvGAN(steps=150, batch_size=20, width=8, bound=0.2, realism=0.0), Job(0))
    inputs = torch.from_numpy(grey.batch(0, 60))
    with torch.no_grad():
        before, after = model(inputs), model(inputs + 0.2 * fitted(inputs))
    fall = ((before[:, 0] - before[:, 1]) - (after[:, 0] - after[:, 1])).mean()
    best = 0.2 * (model[1].weight[1] - model[1].weight[0]).abs().sum()
    assert fall > 0.5 * best


@pytest.mark.parametrize("shape", [(8, 8), (9, 13), (28, 28, 3)], ids=["small", "odd", "colour"])
def test_any_size_stays_within_k(shape):
    some = images(shape, 30)
    model = linear(int(np.prod(shape)))
    fitted = generators.fit(model, some, AdvGAN(steps=3, batch_size=10, width=4), Job(0))
    evidence = sweep(model, some, AdvGAN(), [0.0, 0.1], generator=fitted)
    assert evidence.status == (OK, OK)
    for count in (1, 30):
        made = fitted(torch.from_numpy(some.batch(0, count)))
        assert made.shape == (count, *some.shape)
        assert made.abs().max() <= 1


def test_the_seed_decides_and_nothing_else():
    some, model = images(), linear()
    torch.manual_seed(5)
    first = generators.fit(model, some, SHORT, Job(0))
    torch.manual_seed(6)
    assert same(first, generators.fit(model, some, SHORT, Job(0)))
    assert not same(first, generators.fit(model, some, SHORT, Job(1)))


def test_an_interrupted_fit_goes_on_to_the_same_generator(tmp_path):
    some, model, store = images(), linear(), Store(tmp_path)
    whole = generators.fit(model, some, SHORT, Job(0))

    class Stop(Exception):
        pass

    def stopping(done, total):
        if done >= 50:
            raise Stop

    job = Job(0, tmp_path / "checkpoint.pt", None, [], store)
    saved, job.save = job.save, lambda state: (saved(state), stopping(50, 60))
    with pytest.raises(Stop):
        generators.fit(model, some, SHORT, job)
    again = Job(0, tmp_path / "checkpoint.pt", None, [], store)
    assert same(generators.fit(model, some, SHORT, again), whole)
    assert again.resumed


def test_the_target_is_left_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(108, 3))
    model[1].eval()
    before, modes = state_hash(model), [m.training for m in model.modules()]
    generators.fit(model, images(), SHORT, Job(0))
    assert state_hash(model) == before
    assert [m.training for m in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_a_generator_of_another_model_is_refused(tmp_path):
    model, other = linear(), linear(seed=1)
    path = tmp_path / "generator.safetensors"
    fitted = generators.fit(model, images(), AdvGAN(steps=2, batch_size=10, width=4), Job(0))
    path.write_bytes(generators.save(fitted, state_hash(model)))
    about = AdvGAN(width=4)
    assert same(generators.load(path, about, 1, state_hash(model)), fitted)
    with pytest.raises(ModelError, match="fitted to another model"):
        generators.load(path, about, 1, state_hash(other))
    with pytest.raises(ModelError, match="another architecture"):
        generators.load(path, about, 3, state_hash(model))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelError):
        generators.load(path, about, 1, state_hash(model))


def test_no_generator_is_said():
    with pytest.raises(ModelError, match="needs a generator that was fitted to the model, got None"):
        sweep(linear(), images(), AdvGAN(), [0.1])


def test_a_generator_that_gives_no_numbers_is_an_error_of_every_cell():
    class Broken(nn.Module):
        def forward(self, inputs):
            return inputs * torch.nan

    evidence = sweep(linear(), images(), AdvGAN(), [0.1, 0.2], generator=Broken())
    assert all(status.startswith("the generator gives no numbers for 60 of 60") for status in evidence.status)


def test_a_target_that_gives_no_numbers_ends_the_fit():
    class Broken(nn.Module):
        def forward(self, inputs):
            return inputs.flatten(1)[:, :3] * torch.nan

    with pytest.raises(TrainingError, match="loss became nan"):
        generators.fit(Broken(), images(), SHORT, Job(0))
