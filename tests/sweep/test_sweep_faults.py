"""Models that fail: a crash or a NaN is never robustness, and leaves no trace on the model."""

import re
import time
from contextlib import nullcontext

import helpers
import numpy as np
import pytest
import torch
from torch import nn

from robustness.classifiers.modules import state_hash
from robustness.data import from_arrays
from robustness.errors import ModelError
from robustness.metrics.evidence import OK
from robustness.perturbations import Clean, GaussianNoise
from robustness.sweep.batching import run_batches
from robustness.sweep.runner import run_sweep
from robustness.util.rng import Purpose, generator

STRENGTHS = [0.1, 0.5, 1.0]


class Spoils(nn.Module):
    """Linear, until the top left pixel of an image is white; then ``how`` decides what becomes of that image."""

    def __init__(self, how, features=16, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.how = nn.Linear(features, classes), how

    def forward(self, inputs):
        logits = self.linear(inputs.flatten(1))
        white = inputs[:, 0, 0, 0] >= 1
        return self.how(logits, white) if white.any() else logits


def dark(count=200):
    """Images whose top left pixel is 0.65: noise of 0.1 hardly ever makes it white."""
    images = helpers.images(count)
    pixels = images.pixels.copy()
    pixels[:, 0, 0] = 166
    return from_arrays(pixels, images.labels, images.classes)


def white_at(images, strength):
    """Which images that noise makes white."""
    drawn = GaussianNoise().draw(generator(0, Purpose.NOISE), (len(images), *images.shape))[:, 0, 0, 0]
    return np.float32(166 / 255) + np.float32(strength) * drawn >= 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("which", ["one logit", "every logit"])
def test_logits_that_are_no_numbers_fail_their_cells_alone(value, which):
    def spoil(logits, white):
        logits = logits.clone()
        logits[white, 0 if which == "one logit" else slice(None)] = value
        return logits

    images = dark()
    healthy = run_sweep(Spoils(lambda logits, white: logits), images, GaussianNoise(), STRENGTHS, batch_size=60)
    evidence = run_sweep(Spoils(spoil), images, GaussianNoise(), STRENGTHS, batch_size=60, probabilities=True)

    assert not evidence.failed, "no code failed: the evidence may be kept"
    for row, strength in enumerate(STRENGTHS):
        white = white_at(images, strength)
        assert np.array_equal(evidence.predictions[row], np.where(white, -1, healthy.predictions[row]))
        for name in ("loss", "confidence", "true_probability"):
            array = getattr(evidence, name)[row]
            assert np.isnan(array[white]).all()
            assert np.array_equal(array[~white], getattr(healthy, name)[row][~white])
        assert np.isnan(evidence.probabilities[row][white]).all()
        assert np.isfinite(evidence.probabilities[row][~white]).all()
        due = f"non-finite logits for {white.sum()} of 200 images ({white.mean():.1%})" if white.any() else OK
        assert evidence.status[row] == due
    assert evidence.status[0] == OK != evidence.status[2]


def test_a_model_that_always_gives_nan_is_no_doubt_of_its_determinism():
    images = helpers.images(10)
    model = nn.Sequential(helpers.linear(images), nn.Threshold(torch.inf, torch.nan))
    evidence = run_sweep(model, images, Clean(), [0])
    assert evidence.status == ("non-finite logits for 10 of 10 images (100.0%)",)
    assert evidence.provenance["doubts"] == []


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_model_that_raises_fails_its_cells_alone_and_says_the_same_in_any_order(threads):
    def raises(logits, white):
        raise RuntimeError(f"{int(white.sum())} white images\nand a second line")

    images = dark(1500)
    evidence = run_sweep(Spoils(raises), images, GaussianNoise(), [0.01, 0.13], batch_size=40, threads=threads)

    parts = np.split(white_at(images.select(np.arange(1000), ""), 0.13), range(40, 1000, 40))
    white = [int(part.sum()) for part in parts]
    first = next(batch for batch, count in enumerate(white) if count)
    assert 0 < first < 12 < 20 < len(white)
    assert any(count not in (0, white[first]) for count in white), "else the order would not show"
    assert evidence.status == (OK, f"raised RuntimeError: {white[first]} white images")
    assert evidence.failed
    assert (evidence.predictions[1] == -1).all()
    assert all(np.isnan(getattr(evidence, name)[1]).all() for name in ("loss", "confidence", "true_probability", "snr"))
    healthy = run_sweep(Spoils(lambda logits, white: logits), images, GaussianNoise(), [0.01], batch_size=40)
    assert np.array_equal(evidence.loss[0], healthy.loss[0])


@pytest.mark.parametrize("perturbation", [Clean(), GaussianNoise()], ids=repr)
def test_a_model_that_always_raises_is_not_asked_for_every_batch(perturbation):
    asked = []

    class Raises(nn.Module):
        def forward(self, inputs):
            asked.append(len(inputs))
            raise ZeroDivisionError

    strengths = [0.0] if isinstance(perturbation, Clean) else STRENGTHS
    evidence = run_sweep(Raises(), helpers.images(1000), perturbation, strengths, batch_size=10, threads=1)
    assert evidence.status == ("raised ZeroDivisionError: no message",) * len(strengths)
    assert len(asked) <= 3 + len(strengths)
    assert evidence.provenance["doubts"] == []


def test_a_perturbation_that_raises_fails_every_cell():
    class Broken(GaussianNoise):
        def direction(self, batch):
            raise LookupError("no direction")

    images = helpers.images(30)
    evidence = run_sweep(helpers.linear(images), images, Broken(), STRENGTHS, batch_size=10)
    assert evidence.status == ("raised LookupError: no direction",) * 3


@pytest.mark.parametrize(
    ("outputs", "got"),
    [
        (lambda inputs: torch.zeros(len(inputs), 4), "(8, 4)"),
        (lambda inputs: torch.zeros(len(inputs)), "(8,)"),
        (lambda inputs: torch.zeros(1, 3), "(1, 3)"),
        (lambda inputs: (torch.zeros(len(inputs), 3),), "tuple"),
        (lambda inputs: {"logits": torch.zeros(len(inputs), 3)}, "dict"),
        (lambda inputs: None, "NoneType"),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_that_do_not_fit_are_an_error_that_names_both(outputs, got, threads):
    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.BatchNorm1d(2)

        def forward(self, inputs):
            return outputs(inputs)

    model = Wrong().train()
    said = re.escape(f"(images, outputs) = (8, 3) for the 3 classes of images, got {got}")
    with pytest.raises(ModelError, match=said):
        run_sweep(model, helpers.images(128), GaussianNoise(), [0.1], batch_size=10, threads=threads)
    assert all(m.training for m in model.modules())


class Forgets(nn.Dropout):
    """Dropout that ignores evaluation mode."""

    def train(self, mode=True):
        return super().train(True)


class Counts(nn.Module):
    """Adds how often it was called."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls += 1
        return inputs * self.calls


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("make", [Forgets, Counts])
def test_a_forward_that_is_not_deterministic_is_a_doubt(make, threads):
    """Catches: numbers that cannot be had again shown without a word; a buffer that stays changed."""
    images = helpers.images(300)
    model = nn.Sequential(make(), helpers.linear(images))
    before = state_hash(model)
    doubts = run_sweep(model, images, Clean(), [0], batch_size=50, threads=threads).provenance["doubts"]
    assert doubts == ["non-deterministic forward"]
    assert state_hash(model) == before
    assert run_sweep(model[1], images, Clean(), [0], threads=threads).provenance["doubts"] == []


@pytest.mark.parametrize("threads", [1, 2])
def test_whatever_happens_the_model_leaves_as_it_came(threads):
    """What test_modules shows of `undisturbed`, through the sweep, when it returns, fails and raises."""

    class Marks(Spoils):
        def forward(self, inputs):
            self.seen = inputs
            return super().forward(inputs)

    def wrong(logits, white):
        return logits[:, :1]

    def raises(logits, white):
        raise RuntimeError

    before = torch.get_num_threads()
    for how in (lambda logits, white: logits, raises, wrong):
        model = Marks(how)
        model.linear.weight.requires_grad_(False)
        model.linear.bias.grad = gradient = torch.ones(3)
        with pytest.raises(ModelError, match="got") if how is wrong else nullcontext():
            run_sweep(model, dark(), GaussianNoise(), STRENGTHS, batch_size=60, threads=threads)
        assert torch.get_num_threads() == before
        assert model.training
        assert model.linear.training
        assert not model.linear.weight.requires_grad
        assert model.linear.bias.requires_grad
        assert model.linear.bias.grad is gradient
        assert torch.equal(gradient, torch.ones(3))
        assert not hasattr(model, "seen")


def test_progress_that_raises_ends_the_sweep_at_once():
    """The user interrupts: what is not begun is not done."""
    done = []

    def interrupted(*_):
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        run_batches(
            lambda model, start, stop: done.append(time.sleep(0.01)), [nn.Identity()], 100, 1, "cpu", interrupted
        )
    assert len(done) < 90
    assert torch.get_num_threads() == before


def test_threads_are_kept_and_a_forked_process_has_its_own():
    """Catches: a child that waits for ever for its parent's threads; threads that are begun for every sweep."""
    code = """
import os, sys, threading, warnings
sys.path.insert(0, "tests")
import helpers
from robustness.perturbations import GaussianNoise
from robustness.sweep.runner import run_sweep
images = helpers.images(2000)
model = helpers.linear(images)
def run():
    evidence = run_sweep(model, images, GaussianNoise(), [0.1], threads=2)
    return evidence, {thread.ident for thread in threading.enumerate()}
def differing(one, other):  # says where, for this has been seen once and not explained
    pairs = ((name, array, getattr(other, name)) for name, array in one._arrays().items())
    return [(name, (a != b).nonzero(), a[a != b], b[a != b]) for name, a, b in pairs if (a != b).any()]
first, *others = [run() for _ in range(5)]
last = others[-1]  # a thread begins when the others are at work: maybe in the second sweep
print([differing(first[0], each) for each, _ in others if each.digest != first[0].digest] or True)
print(first[1] <= last[1] and len(last[1]) <= 3)
sys.stdout.flush()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    child = os.fork()
if child == 0:
    os._exit(0 if run()[0].digest == first[0].digest else 9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert helpers.run(code).split() == ["True", "True", "0"]


def test_after_a_failure_the_threads_serve_the_next_sweep():
    """Catches: batches of a sweep that ended at once, still at work, or still to come, in the next."""
    seen = []

    def work(model, start, stop):
        seen.append(start)
        if start == 0:
            raise KeyError("ends all")
        time.sleep(0.01)

    with pytest.raises(KeyError):
        run_batches(work, ["a", "b"], 60, 1, "cpu")
    count = len(seen)
    time.sleep(0.05)
    assert len(seen) == count < 60
    run_batches(lambda *batch: seen.append(batch), ["a", "b"], 10, 1, "cpu")
    assert len(seen) == count + 10
