"""The suites must go red: every kind of damage is caught from some step on, and the docs say which."""

import json
from pathlib import Path

import pytest
import torch

from reports import damage as report
from robustness import cards, classifiers, damage
from robustness.errors import DataMissing
from robustness.harness import Harness, data_root
from robustness.store import Store

ROOT = Path(__file__).parents[1]
CARD = cards.load(ROOT / "models" / "digits-mlp.toml")
MEASURED = json.loads((ROOT / "reports" / "measured" / "digits_mlp_damage.json").read_text())


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    return Harness(Store(tmp_path_factory.mktemp("store")), data_root())


@pytest.fixture(scope="module")
def module(harness):
    return harness.classifier(CARD).module


def verdicts(harness, module):
    return report.judged(CARD, report.evidence_of(harness, CARD, module))


def test_the_shipped_weights_keep_every_claim(harness, module):
    assert all(verdict.held for verdict in verdicts(harness, module))


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(lambda m: damage.noised(m, 1.2), id="noise of 1.2 deviations"),
        pytest.param(lambda m: damage.pruned(m, 0.9), id="pruned to a tenth"),
        pytest.param(lambda m: damage.shifted_labels(m, 10), id="labels shifted"),
        pytest.param(lambda m: damage.wrong_normalisation(m, 0.5, 0.5), id="normalised wrongly"),
        pytest.param(damage.reinitialised, id="re-initialised"),
    ],
)
def test_damage_turns_every_group_red(harness, module, step):
    """A group whose thresholds are too low to fail would stay green under any of these."""
    found = verdicts(harness, step(module))
    groups = {(v.claim.sweep, v.claim.metric) for v in found}
    red = {(v.claim.sweep, v.claim.metric) for v in found if v.outcome == "failed"}
    assert red == groups


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_card_goes_red_in_every_group_without_training(harness, path):
    card = cards.load(path)
    try:
        harness.images(card)
    except DataMissing as error:
        pytest.skip(str(error))

    untrained = damage.reinitialised(classifiers.built(card).eval())
    found = report.judged(card, report.evidence_of(harness, card, untrained))

    groups = {(v.claim.sweep, v.claim.metric) for v in found}
    assert {(v.claim.sweep, v.claim.metric) for v in found if v.outcome == "failed"} == groups
    assert len(groups) == len({(claim.sweep, claim.metric) for claim in card.claims()} - generated(card)) >= 1


def generated(card):
    """The groups of sweeps by a generator, which are not made for a damaged network."""
    return {(c.sweep, c.metric) for c in card.claims() if card.perturbation(c.sweep).family == "gan"}


def test_a_red_claim_says_what_was_measured_and_how_much_is_missing(harness, module):
    shifted = damage.shifted_labels(module, 10)
    verdict = next(v for v in verdicts(harness, shifted) if v.claim.id == "digits-mlp:clean:0:accuracy")
    images = harness.images(CARD)
    with torch.inference_mode():
        right = int((shifted(torch.from_numpy(images.batch(0, 600))).argmax(1).numpy() == images.labels).sum())
    threshold = verdict.claim.threshold

    assert verdict.message.startswith(f"digits-mlp under clean at 0: accuracy is {right / 600:.4f} [")
    assert f"({right} of 600 images, 95 % Wilson), but its card claims at least {threshold:g}: " in verdict.message
    missing = int(verdict.message.rsplit(": ", 1)[1].split()[0])
    assert (right + missing - 1) / 600 < threshold <= (right + missing) / 600


def test_small_damage_is_let_through(harness, module):
    """Thresholds allow for retraining: a tenth of a deviation is less than what another seed does."""
    assert all(v.held for v in verdicts(harness, damage.noised(module, 0.1)))
    assert all(v.held for v in verdicts(harness, damage.pruned(module, 0.5)))


def test_damage_leaves_the_module_as_it_was(module):
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for step in damage.ladder(10):
        step.apply(module)(torch.rand(2, 1, 28, 28))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_the_docs_show_what_was_measured_with_the_thresholds_of_the_card():
    assert (ROOT / "docs" / "caught.md").read_text() == report.markdown(MEASURED)
    assert MEASURED["thresholds"] == dict(CARD.file.thresholds)
    assert MEASURED["rows"][0]["red"] == 0
    last = {row["damage"]: len(row["red_groups"]) for row in MEASURED["rows"][1:]}
    assert set(last.values()) == {MEASURED["rows"][0]["groups"]}


def test_at_most_two_of_twenty_fresh_seeds_are_red():
    red, _, total, _ = CARD.file.thresholds["fresh_red"].split(maxsplit=3)
    assert int(total) == 20
    assert int(red) <= 2
