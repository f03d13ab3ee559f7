"""NULL and 2N: the formulas of their papers, written out in float64 from the exponentials themselves."""

import re

import helpers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from robustness import cards
from robustness.decisions import Argmax, Null, TwoN
from robustness.errors import CardError, ModelError
from robustness.metrics.evidence import OK
from robustness.perturbations import Clean, GaussianNoise
from robustness.sweep.runner import run_sweep

SETTINGS = settings(deadline=None, max_examples=60)
LOGITS = st.floats(-12, 12, width=32)
HUGE = st.sampled_from([-1e4, -9999.5, -1.0, 0.0, 0.5, 9999.5, 1e4])
BOTH = pytest.mark.parametrize("decision", [Null(), TwoN()], ids=repr)


def rows(values, outputs):
    return st.lists(st.lists(values, min_size=outputs, max_size=outputs), min_size=1, max_size=4)


def shares(logits):
    """Softmax in float64."""
    powers = np.exp(np.asarray(logits, float) - np.max(logits, axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def null(f):
    """F[N+1], and F[i] / (1 − F[N+1])."""
    return f[:, -1], f[:, :-1] / f[:, :-1].sum(axis=1, keepdims=True)


def two_n(f):
    """F[N+1] + … + F[2N], and F[i] + F[N+i]."""
    half = f.shape[1] // 2
    return f[:, half:].sum(axis=1), f[:, :half] + f[:, half:]


def told(decision, logits):
    """What a decision says: attack probability and class probabilities, float64."""
    logits = torch.tensor(logits, dtype=torch.float32)
    attacked = -torch.expm1(decision.log_passed(logits))
    return attacked.double().numpy(), decision.log_probabilities(logits).double().exp().numpy()


FORMULAS = {"null": null, "2n": two_n}


@BOTH
@SETTINGS
@given(logits=rows(LOGITS, 6))
def test_probabilities_against_softmax(decision, logits):
    """Catches: the first output taken for NULL, no division by the rest; outputs in pairs (0, 1), halves swapped."""
    attacked, classes = told(decision, logits)
    due, of_classes = FORMULAS[decision.kind](shares(logits))
    assert np.allclose(attacked, due, atol=2e-6)
    assert np.allclose(classes, of_classes, atol=2e-6)
    assert np.allclose(classes.sum(axis=1), 1, atol=1e-5)
    assert classes.shape == (len(logits), {"null": 5, "2n": 3}[decision.kind])


@BOTH
@SETTINGS
@given(logits=rows(HUGE, 6))
def test_logits_of_ten_thousand(decision, logits):
    """Catches: exp() of a logit, 1 − p that rounds to 0 before its logarithm, NaN of inf − inf."""
    attacked, classes = told(decision, logits)
    with np.errstate(invalid="ignore"):
        due, of_classes = FORMULAS[decision.kind](shares(logits))
    if isinstance(decision, Null):  # F[i] / (1 − F[N+1]) is 0/0 in float64 too: softmax of the other outputs
        of_classes = shares(np.asarray(logits)[:, :-1])
    assert np.allclose(attacked, due, atol=2e-3), "10,000 in float32 is known to 0.001"
    assert np.allclose(classes, of_classes, atol=2e-3)
    assert ((attacked >= 0) & (attacked <= 1)).all()
    passed = decision.log_passed(torch.tensor(logits))
    assert (torch.isfinite(passed) & (passed <= 0)).all()
    assert torch.isfinite(decision.log_probabilities(torch.tensor(logits))).all()


@BOTH
def test_the_gradient_of_logits_of_ten_thousand_is_finite(decision):
    """Catches: log(1 − p) by log1p(−exp()), whose gradient is 0/0 where p rounds to 1."""
    logits = torch.tensor([[1e4, -1e4, 0, 1e4], [-1e4, -1e4, -1e4, 1e4], [0.0, 0, 1e4, 1e4]], requires_grad=True)
    for value in (decision.log_passed(logits), decision.log_probabilities(logits)):
        (gradient,) = torch.autograd.grad(value.sum(), logits, retain_graph=True)
        assert gradient.isfinite().all()
    assert (torch.autograd.grad(decision.log_passed(logits).sum(), logits)[0][1, -1] == -1).all()


@SETTINGS
@given(logits=rows(LOGITS, 6))
def test_the_class_is_the_likeliest_by_the_decision_s_own_probabilities(logits):
    tensor = torch.tensor(logits)
    for decision in (Null(), TwoN()):
        _, classes = FORMULAS[decision.kind](shares(logits))
        chosen = decision.predictions(tensor).numpy()
        assert np.allclose(classes[np.arange(len(classes)), chosen], classes.max(axis=1), atol=1e-6)
    assert Argmax().predictions(tensor).tolist() == np.argmax(logits, axis=1).tolist()
    assert Argmax().log_passed(tensor) is None


def test_two_n_can_decide_otherwise_than_any_single_output():
    """F = .3 .0 .1 | .0 .29 .31: the largest output is the third's, and so is its sum; the first's alone loses."""
    logits = torch.tensor([[0.34, 0.2, 0.01, 0.01, 0.2, 0.24]]).log()
    assert TwoN().predictions(logits).item() == 1
    assert logits.argmax().item() == 0


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 1.5, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [Null, TwoN])
def test_a_threshold_lies_between_nothing_and_everything(kind, threshold):
    """Catches: a filter that discards all (and so is never misled), or none."""
    with pytest.raises(ValidationError, match="threshold"):
        kind(threshold=threshold)


@pytest.mark.parametrize(
    ("written", "decision"),
    [
        ('{ kind = "null" }', Null()),
        ('{ kind = "null", threshold = 0.25 }', Null(threshold=0.25)),
        ('{ kind = "2n", threshold = 0.9 }', TwoN(threshold=0.9)),
        ('{ kind = "argmax" }', Argmax()),
    ],
)
def test_cards_accept_them(tmp_path, written, decision):
    text = helpers.CARD.replace("[model]\n", f"[model]\ndecision = {{{written}}}\n")
    assert cards.load(helpers.project(tmp_path, card=text)).file.model.decision == decision


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{ kind = "nul" }', "model.decision.kind = 'nul': allowed: argmax, null, 2n, bin; did you mean 'null'?"),
        ('{ kind = "null", threshold = 1.0 }', "model.decision.threshold = 1.0: Input should be less than 1"),
        ('{ kind = "argmax", threshold = 0.5 }', "model.decision.threshold = 0.5: unknown key"),
    ],
)
def test_cards_say_what_is_wrong_with_one(tmp_path, written, said):
    text = helpers.CARD.replace("[model]\n", f"[model]\ndecision = {{{written}}}\n")
    with pytest.raises(CardError, match=re.escape(said)):
        cards.load(helpers.project(tmp_path, card=text))


@BOTH
def test_a_sweep_records_what_the_formulas_say(decision):
    """Catches: probabilities of outputs recorded for those of classes, an attack probability of the clean images."""
    images = helpers.images(60)
    model = helpers.linear(helpers.images(1, classes=decision.outputs(3)))
    noise, settings = GaussianNoise(), {"probabilities": True, "batch_size": 25}
    evidence = run_sweep(model, images, noise, [0.1, 0.6], decision=decision, **settings)
    drawn = noise.draw(np.random.Generator(np.random.Philox(np.random.SeedSequence([0, 1, 0]))), (60, 1, 4, 4))
    for row, strength in enumerate((0.1, 0.6)):
        perturbed = np.clip(images.pixels.reshape(60, 1, 4, 4) / 255 + strength * drawn, 0, 1).astype(np.float32)
        with torch.no_grad():
            attacked, classes = FORMULAS[decision.kind](shares(model(torch.from_numpy(perturbed)).numpy()))
        assert np.allclose(evidence.attack_probability[row], attacked, atol=1e-5)
        assert np.allclose(evidence.probabilities[row], classes, atol=1e-5)
        assert np.allclose(evidence.true_probability[row], classes[np.arange(60), images.labels], atol=1e-5)
        assert np.array_equal(evidence.predictions[row], classes.argmax(axis=1))
    assert evidence.status == (OK, OK)


@BOTH
def test_a_model_without_the_outputs_that_its_decision_needs_is_an_error(decision):
    images = helpers.images(10)
    due = decision.outputs(3)
    with pytest.raises(ModelError, match=rf"logits of shape \(images, outputs\) = \((\d+), {due}\).*got \(\1, 3\)"):
        run_sweep(helpers.linear(images), images, Clean(), [0], decision=decision, batch_size=10)
