"""Randomised smoothing: bounds against statsmodels, linear classifiers whose radius is known, honest counts."""

import math

import helpers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binom, norm
from statsmodels.stats.proportion import proportion_confint
from torch import nn

from robustness import cards, claims
from robustness.data.images import from_arrays
from robustness.decisions import Null
from robustness.perturbations import Smoothing
from robustness.perturbations.smoothing import certified_radius, certify
from robustness.search import contracts
from robustness.sweep.runner import run_sweep

QUICK = {"selection_samples": 20, "samples": 200}
RADII = [0.05, 0.1, 0.2, 0.4]


def plane(pixels, slope=1.0):
    """Class 0 if the mean of the pixels exceeds a half: the boundary is |mean − ½|·√pixels away."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 2))
    with torch.no_grad():
        module[1].weight.copy_(torch.stack([torch.full((pixels,), slope / pixels), torch.zeros(pixels)]))
        module[1].bias.copy_(torch.tensor([0.0, slope / 2]))
    return module.eval()


def greys(levels, side=4):
    """One grey image per level."""
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 1, side, side).contiguous()


def pictures(levels, labels, side=4):
    return from_arrays(np.float32(greys(levels, side)[:, 0]), labels)


class Where(nn.Module):
    """The class that a function of the images chooses, of two."""

    def __init__(self, chooses):
        super().__init__()
        self.chooses = chooses

    def forward(self, inputs):
        return nn.functional.one_hot(self.chooses(inputs).long(), 2).float()


# ------------------------------------------------------------------ the bound


@given(st.integers(1, 5000), st.floats(0, 1), st.sampled_from([0.001, 0.05, 0.2]), st.floats(0.01, 2))
def test_the_radius_is_that_of_statsmodels_bound(n, share, alpha, sigma):
    """Catches: a two-sided bound, Wilson's, a rate without a bound, −∞ for a class that is barely certified."""
    k = round(share * n)
    bound, _ = proportion_confint(k, n, alpha=2 * alpha, method="beta")  # both sides together
    radius = float(certified_radius(k, n, sigma, alpha))
    if bound <= 0.5:
        assert radius == -math.inf
    else:
        assert radius == pytest.approx(sigma * norm.ppf(bound), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("probability", [0.51, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_a_radius_is_too_large_in_alpha_of_the_cases_at_most(probability, alpha):
    """Exactly, over all outcomes. Catches: a bound of the confidence 1 − 2·alpha or of alpha."""
    n, k = 3000, np.arange(3001)
    too_large = certified_radius(k, n, 0.25, alpha) > 0.25 * norm.ppf(probability)
    risk = float(binom.pmf(k, n, probability)[too_large].sum())
    assert 0.3 * alpha < risk <= alpha


def test_the_largest_radius_is_that_of_unanimous_votes():
    """Catches: strengths allowed that nothing can reach."""
    for settings in (Smoothing(), Smoothing(sigma=1.0, samples=50, alpha=0.05)):
        due = certified_radius(settings.samples, settings.samples, settings.sigma, settings.alpha)
        assert settings.largest_radius == pytest.approx(float(due), rel=1e-9)
        high = settings.strength_range[1]
        assert 0.999 * due < high <= due
        assert float(np.float32(high)) == high  # strengths are drawn in float32


# ------------------------------------------------------------------ certificates of known classifiers


def test_a_linear_classifier_has_the_distance_to_its_boundary():
    """Catches: σ forgotten or squared, noise of another deviation, a radius by the sup norm, clipped noise."""
    levels = [0.55, 0.6, 0.45, 0.52, 0.98]
    distance = np.abs(np.array(levels) - 0.5) * 4
    found = certify(plane(16), greys(levels), sigma=0.5, samples=20_000)
    assert found.predictions.tolist() == [0, 0, 1, 0, 0]
    assert (found.radii.numpy() <= distance).all()
    inside = distance < 1.2  # further away all votes agree, and the number of samples limits the radius
    assert found.radii.numpy()[inside] == pytest.approx(distance[inside], abs=0.06)
    assert found.radii[4] == pytest.approx(Smoothing(sigma=0.5, samples=20_000).largest_radius, rel=0.05)


def test_radii_do_not_depend_on_the_scale_of_the_logits_or_on_other_images():
    """Catches: probabilities averaged for votes, noise that depends on the batch."""
    levels = [0.55, 0.6, 0.45]
    one, steep = (certify(plane(16, slope), greys(levels), **QUICK) for slope in (1.0, 100.0))
    assert torch.equal(one.radii, steep.radii)
    assert torch.equal(certify(plane(16), greys(levels[:2]), **QUICK).radii, one.radii[:2])
    assert not torch.equal(certify(plane(16), greys(levels), **QUICK, seed=1).radii, one.radii)


def test_the_model_gets_the_image_under_unclipped_noise():
    """Catches: noise in [0, 1] units of another scale, clipped copies, selection and estimation on the same copies."""
    seen = []
    model = Where(lambda inputs: seen.append(inputs.clone()) or torch.zeros(len(inputs)))
    certify(model, greys([0.9], side=8), sigma=0.5, selection_samples=150, samples=1000)
    copies = torch.cat(seen) - 0.9
    assert copies.shape == (1150, 1, 8, 8)
    assert copies.std() == pytest.approx(0.5, rel=0.01)
    assert copies.mean() == pytest.approx(0, abs=0.01)
    assert copies.max() > 0.5
    assert len(copies.flatten(1).unique(dim=0)) == 1150


# ------------------------------------------------------------------ sweeps


def swept(model, images, strengths=RADII, **settings):
    settings = QUICK | {"sigma": 0.25} | settings
    return run_sweep(model, images, Smoothing(**settings), strengths, threads=1)


def test_certified_accuracy_counts_right_images_with_such_a_radius():
    """Catches: a smaller radius that counts as right, wrong classes with a large radius, abstentions as right."""
    random = np.random.default_rng(0)
    levels, labels = random.uniform(0.4, 0.6, 40).astype(np.float32), random.integers(0, 2, 40)
    images = pictures(levels, labels)
    evidence = swept(plane(16), images)
    found = certify(plane(16), torch.from_numpy(images.batch(0, 40)), **QUICK)
    right, radii = found.predictions.numpy() == labels, found.radii.numpy()
    assert evidence.status == ("ok",) * 4
    for row, radius in enumerate(RADII):
        due = right & (radii >= radius)
        assert np.array_equal(evidence.predictions[row] == labels, due)
        measured = claims.measure(evidence, str(radius), "accuracy")
        assert measured.successes == due.sum()
        assert evidence.provenance["notes"][str(radius)].startswith(
            f"the smoothed classifier abstains on {np.isinf(radii).sum()} of 40 images"
        )
    assert 0 < right.sum() < 40
    assert np.isinf(radii).any()
    assert np.isinf(evidence.snr).all()


def test_no_certified_image_changes_its_class_within_its_radius():
    """
    The smoothed probability of a moved image is known exactly for a linear classifier.

    Catches: accuracy at a radius at which an attack succeeds.
    """
    levels = np.linspace(0.3, 0.7, 41).astype(np.float32)
    labels = (levels < 0.5).astype(int)
    evidence = swept(plane(16), pictures(levels, labels))
    for row, radius in enumerate(RADII):
        attacked = levels + radius / 4 * np.where(labels == 0, -1, 1)  # towards the boundary, of length `radius`
        certain = evidence.predictions[row] == labels
        assert ((attacked[certain] > 0.5) == (labels[certain] == 0)).all()


def test_the_smoothed_classifier_counts_and_not_the_model():
    """Catches: the model's own prediction certified: right on the image alone, or wrong on it alone."""
    spike = Where(lambda inputs: (inputs - inputs.mean((1, 2, 3), keepdim=True)).abs().amax((1, 2, 3)) < 1e-3)
    images = pictures([0.5, 0.5], [1, 0])
    clean = run_sweep(spike, images, Smoothing(**QUICK), [0.1], threads=1)
    with torch.no_grad():
        assert spike(torch.from_numpy(images.batch(0, 2))).argmax(1).tolist() == [1, 1]
    assert clean.predictions.tolist() == [[0, 0]]


def test_an_image_between_two_classes_is_wrong_whatever_its_label():
    """Catches: a tie that falls to the label, an abstention that repeats the model's prediction."""
    images = pictures([0.5] * 20, [0, 1] * 10)
    evidence = swept(plane(16), images, strengths=[0.001])
    assert (evidence.predictions[0] != images.labels).all()
    assert np.isfinite(evidence.loss).all()


def test_batches_and_threads_do_not_change_it():
    """Catches: noise by the position in the batch, padding that is counted."""
    images = pictures(np.linspace(0.4, 0.6, 23).astype(np.float32), np.arange(23) % 2)
    one, other = (
        run_sweep(plane(16), images, Smoothing(**QUICK), RADII, batch_size=size, threads=threads)
        for size, threads in ((23, 1), (4, 2))
    )
    assert one.digest == other.digest
    assert one.provenance["notes"] == other.provenance["notes"]


def test_a_logit_that_is_no_number_is_no_vote():
    """Catches: NaN of a noisy copy taken for a class, or for an abstention alone."""

    class Breaks(nn.Module):
        def forward(self, inputs):
            logits = torch.stack([torch.ones(len(inputs)), torch.zeros(len(inputs))], 1)
            return logits.where(inputs.amax((1, 2, 3)).view(-1, 1) < 1.2, torch.nan)

    images = pictures([0.9, 0.1], [0, 1])
    evidence = swept(Breaks(), images)
    assert all(status == "non-finite logits for 1 of 2 images (50.0%)" for status in evidence.status)
    with pytest.raises(ValueError, match="finite logits under noise, got others for 1 images"):
        certify(Breaks(), greys([0.9, 0.1]), **QUICK)


def test_a_model_that_raises_under_noise_has_no_numbers():
    """Catches: a crash that counts as robust."""

    def raises(inputs):
        if inputs.max() > 1:
            raise RuntimeError("outside")
        return inputs.mean((1, 2, 3)) < 0.5

    evidence = swept(Where(raises), pictures([0.9, 0.1], [0, 1]))
    assert all(status.startswith("raised") for status in evidence.status)


def test_a_detector_is_not_certified():
    """Catches: a certificate of the class alone, for a decision that an attacker can make discard."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    images = pictures([0.9, 0.1], [0, 1])
    evidence = run_sweep(model, images, Smoothing(**QUICK), [0.1], decision=Null(), threads=1)
    assert "a certificate says nothing of a detector" in evidence.status[0]


@pytest.mark.usefixtures("own_path")
def test_a_card_claims_certified_accuracy(tmp_path):
    """Catches: a kind that cards do not know, clean evidence served for a radius."""
    sweep = '\n[sweeps.certified]\nkind = "smoothing"\nsigma = 0.05\nsamples = 100\nselection_samples = 10\n'
    text = "strengths = [0.01, 0.05]\n\n[claims.certified]\naccuracy = [0.2, 0.15]\n"
    path = helpers.project(tmp_path / "project")
    path.write_text(path.read_text() + sweep + text)
    card = cards.load(path)
    evidence = helpers.open_workspace(path).evidence(card, "certified")
    assert evidence.status == ("ok", "ok")
    near, far = (claims.measure(evidence, radius, "accuracy").value for radius in ("0.01", "0.05"))
    assert near >= far
    assert near > 0
    assert contracts.find_violations(helpers.open_workspace(path), card, "certified") == {}
    path.write_text(
        path.read_text().replace("strengths = [0.01, 0.05]\n\n[claims.c", "strengths = [0, 0.05]\n\n[claims.c")
    )
    with pytest.raises(Exception, match="must be above 0, got 0"):
        cards.load(path)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: certified_radius(11, 10, 0.5), "whole numbers from 0 to n = 10"),
        (lambda: certified_radius(0.5, 10, 0.5), "whole numbers"),
        (lambda: certified_radius(5, 10, 0.0), "`sigma` must be above 0"),
        (lambda: certified_radius(5, 10, 0.5, alpha=1.0), "`alpha` in"),
        (lambda: Smoothing(samples=9), "`samples` must be at least 10 for an alpha of 0.001"),
        (lambda: Smoothing(sigma=0), "sigma"),
        (lambda: swept(plane(16), pictures([0.5, 0.5], [0, 1]), [0.0]), "must be above 0, got 0"),
        (
            lambda: swept(plane(16), pictures([0.5, 0.5], [0, 1]), [0.9]),
            r"must lie in \[0, 0\.4\d+\], got 0\.9; r is a radius",
        ),
    ],
)
def test_what_cannot_be_certified_is_refused(call, complaint):
    """Catches: a radius that is never reached, shown as an accuracy of 0; too few samples to certify anything."""
    with pytest.raises((ValueError, ValidationError), match=complaint):
        call()


def test_one_class_alone_is_not_certified():
    """Catches: an image without a certificate that counts as right, because no class is wrong."""
    evidence = swept(nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), pictures([0.5], [0]))
    assert all("must be at least 2 for a certificate" in status for status in evidence.status)
