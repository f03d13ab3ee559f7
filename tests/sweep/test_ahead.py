"""Reading and drawing ahead of a device: the same evidence, bit for bit, and the device is not held up."""

import threading

import helpers
import numpy as np
import pytest
import torch
from torch import nn

from robustness.data.images import Images
from robustness.perturbations import FGSM, PGD, Clean, GaussianNoise
from robustness.perturbations.strength import StrengthDistribution
from robustness.sweep.batch import SweepBatches
from robustness.sweep.batching import Prefetcher
from robustness.sweep.runner import directions, run_sweep


@pytest.fixture
def reads_ahead(monkeypatch):
    """Have sweeps on this CPU do as they do on a GPU; give a switch."""

    def switch(on):
        monkeypatch.setattr(SweepBatches, "prefetches", property(lambda cells: on))

    return switch


@pytest.mark.parametrize("perturbation", [Clean(), GaussianNoise(), FGSM(), PGD(steps=2, restarts=2)], ids=repr)
@pytest.mark.parametrize("threads", [1, 2])
def test_evidence_is_the_same(reads_ahead, perturbation, threads):
    """2,345 images, no multiple of the batch. Catches: draws in another order, rows of another batch, padding lost."""
    images = helpers.images(2345)
    strengths = [0] if isinstance(perturbation, Clean) else [0.1, StrengthDistribution(uniform=(0.2, 0.4))]
    model, digests = helpers.linear(images), set()
    for on in (False, True):
        reads_ahead(on)
        digests.add(run_sweep(model, images, perturbation, strengths, batch_size=130, threads=threads).digest)
    assert len(digests) == 1


def test_directions_made_before_are_the_same(reads_ahead):
    """Catches: directions of another batch, or that are no floats when they are used."""
    images, found = helpers.images(300), []
    model, other = helpers.linear(images), helpers.linear(images, seed=1)
    for on in (False, True):
        reads_ahead(on)
        signs, _ = directions(other, images, FGSM(), batch_size=70, threads=1)
        given = {"source": other, "directions": signs, "batch_size": 70}
        found.append((signs.tobytes(), run_sweep(model, images, FGSM(), [0.1], **given).digest))
    assert found[0] == found[1]


def test_the_next_batch_is_drawn_while_the_device_is_busy(reads_ahead):
    """A model that goes on only once more has been drawn. Catches: draws that begin when the device is free."""
    reads_ahead(True)
    drawn, seen = threading.Semaphore(0), []

    class Told(GaussianNoise):
        def draw(self, generator, shape):
            drawn.release()
            return super().draw(generator, shape)

    class Waits(nn.Linear):
        def forward(self, inputs):
            if len(inputs) == 50 and len(seen) < 5:
                seen.append(all(drawn.acquire(timeout=20) for _ in range(1 if seen else 2)))
            return super().forward(inputs.flatten(1))

    images = helpers.images(300)
    evidence = run_sweep(Waits(16, 3), images, Told(), [0.1], batch_size=50, threads=1)
    assert evidence.status == ("ok",)
    assert seen == [True] * 5


def test_what_reading_raises_is_raised(reads_ahead, monkeypatch):
    """Catches: an error that stays in the thread that read, and a sweep that waits for it."""
    reads_ahead(True)

    def torn(self, start, stop):
        if start >= 100:
            raise OSError("torn")
        return np.zeros((stop - start, *self.shape), np.float32)

    images = helpers.images(300)
    monkeypatch.setattr(Images, "batch", torn)
    with pytest.raises(OSError, match="torn"):
        run_sweep(helpers.linear(images), images, Clean(), [0], batch_size=50)


def test_a_batch_that_nobody_needs_is_let_go(reads_ahead, monkeypatch):
    """Of a cell that failed, later batches are not swept. Catches: memory that fills with them."""
    reads_ahead(True)
    kept = []

    class Fails(nn.Linear):
        def forward(self, inputs):
            if not torch.is_grad_enabled() and len(inputs) == 50:
                raise ValueError("no")
            return super().forward(inputs.flatten(1))

    begin = Prefetcher.begin

    def noted(self, start, stop):
        kept.append(self._pending)
        begin(self, start, stop)

    monkeypatch.setattr(Prefetcher, "begin", noted)
    evidence = run_sweep(Fails(16, 3), helpers.images(300), Clean(), [0], batch_size=50, threads=1)
    assert evidence.failed
    assert len(kept) == 6
    assert kept[-1] == {}
