"""Metrics of decisions that discard: against counts by hand, scikit-learn, a bootstrap, and the paper's formulas."""

import math
from dataclasses import replace

import helpers
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from transfer_pairs import evidence

from reports.label_2n import theory
from robustness import cards, claims
from robustness.cards import Claim
from robustness.errors import CardError
from robustness.metrics.evidence import Evidence
from robustness.metrics.metric import MetricError
from robustness.metrics.registry import measure_cell

LABELS = [0, 0, 0, 1, 1, 1, 2, 2]
CLEAN = [0, 0, 0, 1, 1, 1, 2, 0]
UNDER = [0, 1, 1, 1, 0, 0, 2, 0]
ATTACK = [0.1, 0.9, 0.2, 0.6, 0.7, 0.5, 0.8, 0.3]
#         right wrong wrong right wrong wrong right wrong; above 0.5: images 1, 3, 4, 6
CLEAN_ATTACK = [0.0, 0.0, 0.6, 0.0, 0.1, 0.2, 0.7, 0.3]


def filtered(attack=ATTACK, clean_attack=CLEAN_ATTACK, **more) -> Evidence:
    made = evidence(LABELS, CLEAN, UNDER, attack=attack, **more)
    told = None if clean_attack is None else np.asarray([clean_attack], np.float32)
    clean = replace(made.clean, attack_probability=told, provenance=made.provenance)
    return replace(made, clean=clean)


COUNTED = {
    "selective_accuracy": (1, 4),  # kept: 0, 2, 5, 7; of them right: 0
    "coverage": (4, 8),
    "rejection_rate": (4, 8),
    "undetected_error_rate": (3, 8),
    "detection_precision": (4, 6),  # and two of the clean ones
}


@pytest.mark.parametrize("metric", COUNTED)
def test_counts(metric):
    """Catches: the threshold itself discarded, wrong ones counted for right, a denominator of all images."""
    found, (successes, n) = measure_cell(filtered(), 0, metric), COUNTED[metric]
    assert (found.successes, found.n, found.value) == (successes, n, successes / n)


def test_nothing_kept_is_no_number():
    """Catches: a division by zero; an accuracy of 1, or of 0, where nothing was classified."""
    found = measure_cell(filtered(attack=[0.9] * 8), 0, "selective_accuracy")
    assert math.isnan(found.value)
    assert found.n == 0
    assert "discards every image" in found.note
    assert math.isnan(measure_cell(filtered(attack=[0.0] * 8, clean_attack=[0.0] * 8), 0, "detection_precision").value)


@pytest.mark.parametrize("metric", [*COUNTED, "detection_auc"])
def test_without_an_attack_probability(metric):
    with pytest.raises(MetricError, match=r"needs a decision with an attack probability"):
        measure_cell(filtered(attack=None, clean_attack=None), 0, metric)


def test_auc_of_evidence():
    found = measure_cell(filtered(), 0, "detection_auc")
    assert found.value == pytest.approx(roc_auc_score([1] * 8 + [0] * 8, ATTACK + CLEAN_ATTACK))
    assert found.interval.low < found.value < found.interval.high


def curve(right, sizes, kept=None) -> Evidence:
    """Evidence of a binary task: ``right`` (strengths, N) begins with the clean pass."""
    right = np.asarray(right, bool)
    kept = np.ones_like(right) if kept is None else np.asarray(kept, bool)
    count = right.shape[1]

    def of(rows, names):
        floats = np.full((len(names), count), 0.5, np.float32)
        return Evidence(
            labels=np.zeros(count, np.int32), classes=("a", "b"), strengths=names,
            predictions=(~right[rows]).astype(np.int32), confidence=floats, true_probability=floats, loss=floats,
            snr=floats, status=("ok",) * len(names), attack_probability=(~kept[rows]).astype(np.float32),
            provenance={"decision": {"kind": "null", "threshold": 0.5}},
        )  # fmt: skip

    return replace(of(slice(1, None), tuple(f"{size:g}" for size in sizes)), clean=of(slice(0, 1), ("0",)))


def test_shapes_of_a_curve():
    """Accuracies 1, .75, .5, .75 at 0, .1, .3, .35. Catches: steps taken as equal, strength 0 left out, signs."""
    right = [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 1]]
    made = curve(right, [0.1, 0.3, 0.35])
    assert measure_cell(made, 2, "max_accuracy_slope").value == pytest.approx(0.25 / 0.05)
    assert measure_cell(made, 1, "max_accuracy_slope").value == pytest.approx(0.25 / 0.1)
    assert measure_cell(made, 2, "accuracy_range").value == pytest.approx(0.5)
    assert measure_cell(made, 2, "accuracy_std").value == pytest.approx(np.std([1, 0.75, 0.5, 0.75]))
    shuffled = curve([right[0], right[3], right[1], right[2]], [0.35, 0.1, 0.3])
    assert measure_cell(shuffled, 0, "max_accuracy_slope").value == pytest.approx(5.0)


def test_shapes_after_filtering():
    right = [[1, 1, 1, 1], [1, 1, 0, 0]]
    kept = [[1, 1, 1, 1], [1, 1, 1, 0]]
    made = curve(right, [0.5], kept)
    assert measure_cell(made, 0, "selective_accuracy_range").value == pytest.approx(1 - 2 / 3)
    assert measure_cell(made, 0, "accuracy_range").value == pytest.approx(0.5)
    assert math.isnan(measure_cell(curve(right, [0.5], [[1] * 4, [0] * 4]), 0, "selective_accuracy_range").value)


def test_a_strength_that_is_drawn_has_no_curve():
    drawn = replace(curve([[1, 1], [1, 0]], [0.5]), strengths=("U(0,0.5)",))
    with pytest.raises(MetricError, match="strengths that are numbers"):
        measure_cell(drawn, 0, "max_accuracy_slope")


CLAIMED = (("accuracy", 0.6), ("coverage", 0.7))


def judged(metric, threshold, made, clean=CLAIMED):
    return claims.judge(Claim("m", "s", "0.1", metric, threshold, "transfer", clean), made)


def test_claims_that_count_only_with_what_is_kept():
    """Clean: 7 of 8 right, 6 of 8 kept. Catches: a defence that discards everything and so is never misled."""
    assert judged("rejection_rate", 0.4, filtered()).outcome == "passed"
    assert judged("undetected_error_rate", 0.5, filtered()).outcome == "passed"
    hoarder = filtered(attack=[0.9] * 8, clean_attack=[0.9] * 8)
    verdict = judged("rejection_rate", 0.4, hoarder)
    assert verdict.outcome == "failed"
    assert "counts only with a clean coverage of at least 0.7, and it is 0.0000" in verdict.message
    assert judged("selective_accuracy", 0.4, hoarder).outcome == "failed"
    alone = judged("rejection_rate", 0.4, filtered(), clean=CLAIMED[:1])
    assert "only together with a claim of clean coverage" in alone.message


def test_a_blind_detector_passes_no_claim():
    assert judged("detection_auc", 0.5, filtered()).outcome == "vacuous"
    assert judged("detection_precision", 0.45, filtered()).outcome == "vacuous"


CLEAN_CLAIM, REJECTS = "[claims.clean]\naccuracy = 0.5\n", "[claims.normal]\nrejection_rate = [0.5, 0.5]"


@pytest.mark.parametrize(
    ("decision", "tables", "said"),
    [
        ("argmax", CLEAN_CLAIM + "coverage = 0.5", "needs a decision that detects attacks, got argmax"),
        ("null", CLEAN_CLAIM + "coverage = 0.5", "alone, a decision that never discards meets it"),
        ("null", REJECTS, "counts only together with a claim of clean accuracy"),
        (
            "null",
            CLEAN_CLAIM + REJECTS,
            "with a claim of clean coverage, for a decision that discards everything is never",
        ),
    ],
)
def test_cards_say_what_a_filter_may_claim(tmp_path, decision, tables, said):
    text = helpers.CARD.replace("[model]\n", f'[model]\ndecision = {{{{ kind = "{decision}" }}}}\n') + tables
    with pytest.raises(CardError) as caught:
        cards.load(helpers.project(tmp_path, card=text))
    assert said in str(caught.value)


RATE = st.floats(0.01, 0.99)


@given(original=RATE, attacked=RATE, share=RATE, recall_clean=RATE, missed=RATE)
def test_filtering_gains_where_more_clean_than_perturbed_inputs_pass(original, attacked, share, recall_clean, missed):
    """acc_after > acc_before ⇔ R_ori > R̄, for acc_ori > acc_att and 0 < p < 1."""
    assume(original - attacked > 1e-3)
    assume(abs(recall_clean - missed) > 1e-6)
    gain = theory.after(original, attacked, share, recall_clean, missed) - theory.before(original, attacked, share)
    assert (gain > 0) == (recall_clean > missed)


@given(original=RATE, attacked=RATE, fallen=RATE, share=RATE, recall_clean=RATE, missed=RATE)
def test_the_ratio_that_keeps_accuracy_constant(original, attacked, fallen, share, recall_clean, missed):
    """Where R̄ falls by r_X while the accuracy on perturbed inputs falls by r_Z, accuracy after filtering stays."""
    assume(original - attacked > 1e-2)
    first = theory.after(original, attacked, share, recall_clean, missed)
    ratio = theory.constant_ratio(first, attacked, fallen * attacked)
    assert 0 < ratio <= 1
    second = theory.after(original, fallen * attacked, share, recall_clean, ratio * missed)
    assert second == pytest.approx(first, rel=1e-9)


COUNTS = st.integers(1, 20)


@given(right=COUNTS, wrong=COUNTS, hit=COUNTS, fooled=COUNTS, passed=st.integers(1, 5), missed=st.integers(1, 5))
def test_formulas_against_a_simulated_detector(right, wrong, hit, fooled, passed, missed):
    """Inputs made so that the detector passes the same share of right and wrong ones: the metrics are the formulas'."""
    groups = [(right, True, False), (wrong, False, False), (hit, True, True), (fooled, False, True)]
    rights, kepts = [], []
    for count, is_right, perturbed in groups:
        let = missed if perturbed else passed
        rights += [is_right] * 5 * count
        kepts += [i % 5 < let for i in range(5 * count)]
    made = curve([rights, rights], [0.1], [kepts, kepts])
    share = (hit + fooled) / (right + wrong + hit + fooled)
    original, attacked = right / (right + wrong), hit / (hit + fooled)
    assert claims.measure(made, "0.1", "accuracy").value == pytest.approx(theory.before(original, attacked, share))
    due = theory.after(original, attacked, share, passed / 5, missed / 5)
    assert measure_cell(made, 0, "selective_accuracy").value == pytest.approx(due)
