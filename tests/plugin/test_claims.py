"""Verdicts: on evidence made by hand, where the right answer can be counted."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustness import claims
from robustness.cards import Claim
from robustness.metrics.evidence import Evidence

CLASSES = ("cat", "dog", "eel, and more")


def evidence(labels, predictions, *, loss=0.5, status="ok", strength="0.3") -> Evidence:
    labels = np.asarray(labels, np.int32)
    floats = np.full((1, len(labels)), loss, np.float32)
    return Evidence(
        labels=labels,
        classes=CLASSES,
        strengths=(strength,),
        predictions=np.asarray([predictions], np.int32),
        confidence=floats,
        true_probability=floats,
        loss=floats,
        snr=floats,
        status=(status,),
        provenance={"key": "k", "seed": 7, "device": "cpu-avx2", "images": {"name": "pets test"}},
    )


def claim(metric="accuracy", threshold=0.5, **other) -> Claim:
    given = {"model": "m, and n", "sweep": "normal", "strength": "0.3", "family": "noise"} | other
    return Claim(metric=metric, threshold=threshold, **given)


TEN = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
EIGHT_RIGHT = [0, 0, 0, 0, 1, 1, 0, 2, 2, 1]


def test_held_and_failed():
    """Catches: a threshold that itself fails, an interval compared instead of the value, a shortfall rounded down."""
    some = evidence(TEN, EIGHT_RIGHT)
    passed = claims.judge(claim(threshold=0.8), some)
    assert (passed.outcome, passed.passed, passed.measured.value) == ("passed", True, 0.8)
    assert passed.message == (
        "m, and n under normal at 0.3: accuracy is 0.8000 [0.490, 0.943] (8 of 10 images, 95 % Wilson), "
        "and its card claims at least 0.8 (the threshold lies inside the interval)"
    )
    failed = claims.judge(claim(threshold=0.81), some)
    assert (failed.outcome, failed.passed) == ("failed", False)
    assert failed.message == (
        "m, and n under normal at 0.3: accuracy is 0.8000 [0.490, 0.943] (8 of 10 images, 95 % Wilson), "
        "but its card claims at least 0.81 (the threshold lies inside the interval): 1 image short"
    )
    assert claims.judge(claim(threshold=1.0), some).message.endswith("at least 1: 2 images short")


@given(right=st.integers(0, 10), threshold=st.floats(0.41, 1))
def test_shortfall_is_what_it_takes(right, threshold):
    """Catches: one image too many or too few, at any threshold."""
    predictions = [label if i < right else (label + 1) % 3 for i, label in enumerate(TEN)]
    verdict = claims.judge(claim(threshold=threshold), evidence(TEN, predictions))
    assert verdict.passed == (right / 10 >= threshold)
    if not verdict.passed:
        short = int(re.search(r"(\d+) images? short", verdict.message).group(1))
        assert (right + short) / 10 >= threshold > (right + short - 1) / 10


ALL_WRONG = [(label + 1) % 3 for label in TEN]


@pytest.mark.parametrize(
    ("metric", "threshold", "predictions", "loss", "outcome", "said"),
    [
        # The share of the largest class, by accuracy; the entropy of the classes' shares, by loss.
        ("accuracy", 0.4, EIGHT_RIGHT, 0.5, "vacuous", "raise the threshold"),
        ("accuracy", 0.41, EIGHT_RIGHT, 0.5, "passed", "at least 0.41"),
        ("accuracy", 0.3, ALL_WRONG, 0.5, "vacuous", "raise the threshold"),
        ("recall", 1 / 3, EIGHT_RIGHT, 0.5, "vacuous", "raise the threshold"),
        ("recall", 0.34, EIGHT_RIGHT, 0.5, "passed", "at least 0.34"),
        ("loss", 1.0890, EIGHT_RIGHT, 0.5, "vacuous", "lower the threshold"),
        ("loss", 1.0888, EIGHT_RIGHT, 0.5, "passed", "at most 1.0888"),
        ("loss", 0.5, EIGHT_RIGHT, 0.5, "passed", "at most 0.5"),
        ("loss", 0.4, EIGHT_RIGHT, 0.5, "failed", "but its card claims at most 0.4"),
        ("loss", 0.5, EIGHT_RIGHT, math.inf, "failed", "but its card claims at most 0.5"),
    ],
)
def test_bounds_and_floors(metric, threshold, predictions, loss, outcome, said):
    """
    Catches: a bound in the wrong direction, infinity that no bound rules out, a bound at what guessing gets passed, or
    called failed, so that its author mends the model.
    """
    verdict = claims.judge(claim(metric, threshold), evidence(TEN, predictions, loss=loss))
    assert verdict.outcome == outcome
    assert verdict.message.endswith(said) if outcome == "failed" else said in verdict.message


@pytest.mark.parametrize(
    ("metric", "labels", "predictions"),
    [
        ("precision[dog]", [0, 0, 1, 1], [0, 0, 0, 2]),
        ("recall[eel, and more]", [0, 0, 1, 1], [0, 0, 1, 2]),
        ("f1[eel, and more]", [0, 0, 1, 1], [0, 0, 1, 1]),
    ],
)
def test_a_rate_of_nothing_fails(metric, labels, predictions):
    """Catches: 0/0 passed, vacuous with a floor of NaN, or shown as a number."""
    verdict = claims.judge(claim(metric, 0.5), evidence(labels, predictions))
    assert verdict.outcome == "failed"
    assert f"{metric} is — (" in verdict.message
    assert "nan" not in verdict.message
    assert verdict.message.endswith(", but its card claims at least 0.5")


def test_an_error_never_passes():
    """Catches: the numbers of a cell that has none; a floor or a threshold looked at first."""
    some = evidence(TEN, TEN, status="non-finite logits for 1 of 10 images (10.0%)")
    for threshold in (0.1, 0.5):
        verdict = claims.judge(claim(threshold=threshold), some)
        assert (verdict.outcome, verdict.measured) == ("error", None)
        assert verdict.message == (
            "m, and n under normal at 0.3: the cell has no numbers: non-finite logits for 1 of 10 images (10.0%)"
        )


def test_a_class_or_a_strength_that_is_not_there():
    """Catches: an exception instead of a verdict on a class; a strength taken for another."""
    verdict = claims.judge(claim("recall[cow]", 0.5), evidence(TEN, TEN))
    assert (verdict.outcome, verdict.measured) == ("error", None)
    assert "recall[cow]" in verdict.message
    with pytest.raises(KeyError, match=r"must be one of 0\.3, got 0\.4"):
        claims.judge(claim(strength="0.4"), evidence(TEN, TEN))


def test_one_matrix_for_all_metrics_of_a_cell_but_not_for_two():
    """Catches: a cache that takes one evidence, or one strength, for another."""
    some = evidence(TEN, EIGHT_RIGHT)
    two = replace(
        some,
        strengths=("0.3", "0.6"),
        status=("ok", "ok"),
        **{
            name: np.repeat(getattr(some, name), 2, axis=0)
            for name in ("confidence", "true_probability", "loss", "snr")
        },
        predictions=np.array([EIGHT_RIGHT, [0] * 10], np.int32),
    )
    assert claims.measure(some, "0.3", "accuracy").value == 0.8
    assert claims.measure(two, "0.3", "accuracy").value == 0.8
    assert claims.measure(two, "0.6", "accuracy").value == 0.4
    assert claims.measure(two, "0.6", "recall[dog]").value == 0


def test_properties_travel():
    """Catches: NumPy's numbers, which execnet refuses; None, which XML would spell out; a number left at home."""
    some = evidence(TEN, EIGHT_RIGHT)
    for metric in ("accuracy", "precision", "recall[dog]", "f1", "loss", "balanced_accuracy"):
        found = claims.properties(claims.judge(claim(metric, 0.5), some), some)
        assert {type(value) for value in found.values()} <= {str, int, float}, found
        assert found["outcome"] in ("passed", "failed")
        assert (found["seed"], found["device"], found["data"], found["evidence"]) == (7, "cpu-avx2", "pets test", "k")
        assert found["low"] <= found["value"] <= found["high"]
        assert ("successes" in found) == (metric in ("accuracy", "recall[dog]"))
    errored = evidence(TEN, TEN, status="raised")
    found = claims.properties(claims.judge(claim(), errored), errored)
    assert found["outcome"] == "error"
    assert "value" not in found


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_claim_that_fails_with_another_one_is_one_line(project, workers):
    """Catches: one cause said as often as claims depend on it; a line that names a claim nobody ran; a green test."""
    project.edit(
        project.card,
        ("[claims.clean]\naccuracy = 0.8", "[claims.clean]\naccuracy = 0.99"),
        ("precision = [0.7", "attack_success_rate = [0.5, 0.6]\nprecision = [0.7"),
    )
    fallen = ["tiny:normal:0.3:attack_success_rate", "tiny:normal:0.6:attack_success_rate"]
    why = "but that counts only with a clean accuracy of at least 0.99, and it is 0.9000"
    run = project.fill().run("suites", workers, "-rN")
    failures = run.out.partition(" FAILURES ==")[2].partition(" robustness ==")[0]
    assert run.ret == 1
    assert [run.outcomes[name] for name in fallen] == ["failed", "failed"]
    for name in fallen:
        assert f"\n{name} fails with tiny:clean:0:accuracy, on which it depends\n" in failures
    assert why not in failures
    assert failures.count("but its card claims at least 0.99") == 1
    assert sum(why in message for message in run.messages) == 2  # the report has every message

    alone = project.run("suites", "-k", "attack_success_rate", workers, "-rN")
    failures = alone.out.partition(" FAILURES ==")[2].partition(" robustness ==")[0]
    assert alone.ret == 1
    assert failures.count(why) == 1
    assert "fails for the same reason as tiny:normal:0." in failures
    assert sum(why in message for message in alone.messages) == 2
