"""Early stop: the verdict of all images from the first ones, and no number that looks like one of all images."""

from dataclasses import replace

import helpers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustness import claims
from robustness.cards import Claim
from robustness.metrics.evidence import DECIDED, OK, Evidence
from robustness.perturbations import GaussianNoise
from robustness.sweep.early_stop import EarlyStop
from robustness.sweep.recorder import OutcomeRecorder
from robustness.sweep.runner import run_sweep

METRICS = ("accuracy", "balanced_accuracy", "recall", "recall[1]", "recall_micro", "attack_success_rate")


def recorded(images, predictions, flagged=()):
    """Return a recorder with these predictions; -1 stands for logits that are not finite."""
    recorder = OutcomeRecorder(images, ("1",), drawn=None, probabilities=False)
    rows = predictions[None]
    floats = {name: np.zeros(rows.shape, np.float32) for name in recorder.floats}
    recorder.record([0], slice(0, len(images)), rows, rows >= 0, floats)
    for start, name, count in flagged:
        recorder.add_counts(0, start, {name: count})
    return recorder


def clean_evidence(images, predictions):
    evidence = recorded(images, predictions).evidence({})
    return replace(evidence, strengths=("0",))


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    metric=st.sampled_from(METRICS),
    threshold=st.one_of(st.floats(0.01, 1), st.integers(1, 40).map(lambda k: k / 40)),
    size=st.integers(1, 17),
    rate=st.floats(0, 1),
    faults=st.integers(0, 2),
    prerequisite=st.sampled_from([0.3, 0.6, 0.95]),
)
def test_verdict_of_all_images(seed, metric, threshold, size, rate, faults, prerequisite):
    """
    Catches: < for ≤ at the threshold, a count of images in place of the metric, a decision without the clean claim,
    untried or faulty images that count as right, a fault among the first images that is overlooked.
    """
    numbers, n = np.random.default_rng(seed), 40
    images = helpers.images(n, shape=(2, 2))
    wrong = (images.labels + 1) % len(images.classes)
    predictions = np.where(numbers.random(n) < rate, images.labels, wrong)
    clean = clean_evidence(images, np.where(numbers.random(n) < 0.8, images.labels, wrong))
    predictions[numbers.integers(0, n, faults)] = -1
    claim = Claim("m", "s", "1", metric, threshold, "noise", (("accuracy", prerequisite),))
    recorder = recorded(images, predictions)
    full = claims.judge(claim, replace(recorder.evidence({}), clean=clean))
    early = EarlyStop(lambda evidence: claims.decide([claim], replace(evidence, clean=clean)), recorder)
    for start in range(0, n, size):
        early.add(start, min(start + size, n))
    if early.tried is None:
        return
    part = replace(recorder.prefix(early.tried), clean=clean)
    verdict = claims.judge(claim, part)
    assert (predictions[: early.tried] >= 0).all()
    if (predictions < 0).any():  # a fault that was not tried: it did not count as right
        assert full.outcome == "error"
        decided = np.where(predictions < 0, wrong, predictions)[None]
        worst = replace(recorder.evidence({}), clean=clean, status=(OK,), predictions=decided)
        assert verdict.outcome == claims.judge(claim, worst).outcome
        return
    assert (verdict.outcome, verdict.prerequisite) == (full.outcome, full.prerequisite)
    assert (verdict.measured is None) == (full.measured is None)
    if verdict.measured is not None:
        assert np.isnan(verdict.measured.value)
        low, high = verdict.measured.interval
        assert np.isnan(full.measured.value) or low <= full.measured.value <= high
        assert f"{DECIDED}{early.tried} of {n} images" in verdict.message or verdict.outcome == "vacuous"
        assert f"{full.measured.value:.4f} [" not in verdict.message


def test_stops_as_soon_as_possible():
    """Catches: a loss that is noticed at the last image only, one image too early or too late."""
    images = helpers.images(40, shape=(2, 2))
    wrong = (images.labels + 1) % len(images.classes)
    claim = Claim("m", "s", "1", "accuracy", 0.75, "noise", ())
    for predictions, tried in ((wrong, 11), (images.labels, 30)):  # 11 of 40 lost is more than a quarter
        recorder = recorded(images, predictions)
        early = EarlyStop(lambda evidence: claims.decide([claim], evidence), recorder)
        for start in range(40):
            early.add(start, start + 1)
        assert early.tried == tried


def test_order_of_batches_does_not_count():
    """Catches: a number of images that depends on which batch was finished first."""
    images = helpers.images(40, shape=(2, 2))
    claim = Claim("m", "s", "1", "accuracy", 0.75, "noise", ())
    for order in ([3, 2, 1, 0], [0, 1, 2, 3], [1, 3, 0, 2]):
        early = EarlyStop(lambda evidence: claims.decide([claim], evidence), recorded(images, images.labels))
        for batch in order:
            early.add(10 * batch, 10 * batch + 10)
        assert early.tried == 30


@pytest.mark.parametrize(("start", "decided"), [(0, False), (20, True)])
def test_flagged_images_keep_a_claim_open(start, decided):
    """Catches: a claim decided though a count may still fail the strength; a count of images behind the first."""
    images = helpers.images(40, shape=(2, 2))
    claim = Claim("m", "s", "1", "accuracy", 0.3, "noise", ())
    recorder = recorded(images, images.labels, [(start, "zero gradients, stuck", 1)])
    assert claims.decide([claim], recorder.prefix(20)) == decided


class Bright(nn.Module):
    """Three classes by the sum of the pixels."""

    def forward(self, inputs):
        total = inputs.flatten(1).sum(1, keepdim=True)
        return torch.cat([total, 2.0 - total, 1.5 - total / 2], 1)


def test_same_images_with_more_threads():
    """Catches: decisions that depend on threads, results of batches behind the last one that counts."""
    images = helpers.images(2345, shape=(2, 2))
    full = run_sweep(Bright(), images, GaussianNoise(), [0.3], batch_size=100)
    right = (full.predictions[0] == full.labels).mean()
    claim = Claim("m", "s", "0.3", "accuracy", right / 2, "noise", ())
    parts = [
        run_sweep(
            Bright(), images, GaussianNoise(), [0.3], batch_size=100, threads=threads,
            decided=lambda evidence: claims.decide([claim], evidence),
        )
        for threads in (1, 2, 4)
    ]  # fmt: skip
    tried = parts[0].provenance["tried"]
    assert parts[0].status == (f"{DECIDED}{tried} of 2345 images",)
    assert tried < 2345
    assert tried % 100 == 0
    assert {part.digest for part in parts} == {parts[0].digest}
    assert np.array_equal(parts[0].predictions[:, :tried], full.predictions[:, :tried])
    assert (parts[0].predictions[:, tried:] == -1).all()
    assert np.isnan(parts[0].confidence[:, tried:]).all()


def test_open_claims_need_all_images():
    """Catches: a sweep that stops though its claim is open, and other evidence than that of an ordinary sweep."""
    images = helpers.images(345, shape=(2, 2))
    full = run_sweep(Bright(), images, GaussianNoise(), [0.3], batch_size=100)
    same = run_sweep(Bright(), images, GaussianNoise(), [0.3], batch_size=100, decided=lambda evidence: False)
    assert same.digest == full.digest
    assert not same.stopped


def test_part_has_no_numbers_elsewhere():
    """Catches: a judgement of another claim by the part of the images that decided the first."""
    images = helpers.images(40, shape=(2, 2))
    part = recorded(images, images.labels).prefix(20)
    assert part.stopped
    assert Evidence.from_bytes(part.to_bytes()).stopped
    for metric, threshold in (("accuracy", 0.9), ("precision", 0.4)):
        verdict = claims.judge(Claim("m", "s", "1", metric, threshold, "noise", ()), part)
        assert verdict.outcome == "error", metric
        assert "run it on all images" in verdict.message
