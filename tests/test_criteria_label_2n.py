"""The claims of label-2n decided on made-up rows: as the paper says, with the defences permuted, and at random."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from reports.comparing import compared
from reports.label_2n import protocol
from reports.label_2n.beyond import survivals, too_weak
from reports.label_2n.criteria import CLAIMS, DEFENCES
from reports.label_2n.numbers import Measured

PAPER = {
    # system: accuracy without and with the filter, how much it falls over ε, filtered transferability, gain at random
    "adv+bin": (0.80, 0.83, 0.20, 0.30),
    "null": (0.70, 0.91, 0.04, 0.06),
    "2n": (0.71, 0.93, 0.02, 0.01),
    "cdaec+bin": (0.60, 0.75, 0.30, 0.40),
    "distill+bin": (0.62, 0.80, 0.25, 0.05),
}


def rows(source="gtsrb", table=PAPER, folds=5, seed=0):
    """Rows of every system; accuracy falls by its share of the way over ε, folds differ by 0.002 or so."""
    draws = np.random.default_rng(seed)
    for fold, (system, (plain, kept, fall, transfer)) in itertools.product(range(folds), table.items()):
        about = {"source": source, "fold": fold, "system": system, "images": "fold"}
        noise = 0.002 * draws.standard_normal()
        yield {
            **about,
            "sweep": "mixed",
            "strength": "mixed",
            "accuracy": plain + noise,
            "accuracy_filtered": kept + noise,
        }
        yield {**about, "sweep": "clean", "strength": "0", "attack_probability": 0.05}
        for i, size in enumerate(protocol.CURVE):
            share = i / (len(protocol.CURVE) - 1)
            yield {
                **about, "sweep": "curve", "strength": f"{size:g}",
                "half_accuracy_filtered": kept - fall * share + noise,
                "attack_probability": 0.1 + 0.08 * i, "transferability_filtered": transfer,
            }  # fmt: skip
        shapes = {"sensitivity_filtered": 3 * fall, "deviation_filtered": fall / 3, "range_filtered": fall}
        yield {**about, "sweep": "shape", "strength": "0.5", **shapes}


def outcomes(source="gtsrb", **made):
    measured = Measured(source, list(rows(source, **made)))
    return [decide(measured).outcome for decide in CLAIMS]


def test_what_the_paper_says_is_reproduced_where_it_is_so():
    assert outcomes() == ["reproduced"] * len(CLAIMS)
    ahead = {**PAPER, "null": (0.70, 0.931, 0.03, 0.06), "2n": (0.71, 0.93, 0.02, 0.01)}
    assert outcomes("cifar10", table=ahead) == ["reproduced"] * len(CLAIMS)


@pytest.mark.parametrize("order", [order for order in itertools.permutations(range(5)) if order[2] != 2][::7])
def test_permuted_defences_do_not_reproduce_it(order):
    """Catches: criteria that look at the best defence, whichever it is, instead of 2N."""
    values = list(PAPER.values())
    found = outcomes(table=dict(zip(PAPER, (values[i] for i in order), strict=True)))
    assert "not reproduced" in found
    assert found[4:10].count("not reproduced") >= 4  # the three shapes, two accuracies and the transfer are 2N's own


@pytest.mark.parametrize("seed", range(10))
def test_random_evidence_does_not_reproduce_it(seed):
    draws = np.random.default_rng(seed)
    table = {system: tuple(draws.random(4)) for system in PAPER}
    found = outcomes(table=table, seed=seed)
    assert found.count("not reproduced") >= 4


def test_rows_that_are_missing_do_not_reproduce_it():
    """Catches: NaN taken for a number that is lower than all others."""
    left = [
        row for row in rows() if not (row["system"] == "cdaec+bin" and row["fold"] == 1 and row["sweep"] == "shape")
    ]
    lost = {"accuracy_filtered": None, "half_accuracy_filtered": None}
    broken = [{**row, **lost} if row["system"] == "adv+bin" else row for row in left]
    found = [decide(Measured("gtsrb", broken)).outcome for decide in CLAIMS]
    assert found[0] == found[7] == "not reproduced"
    assert [decide(Measured("gtsrb", [])).outcome for decide in CLAIMS].count("reproduced") == 0


def test_few_folds_decide_no_differences():
    """Three folds have little power: the last claim is said to be not testable, whatever came out."""
    assert outcomes(folds=3)[-1] == "not testable here"


def test_tests_are_scipy_s():
    one, other = [0.90, 0.93, 0.92, 0.95, 0.9], [0.80, 0.82, 0.81, 0.8, 0.83]
    found = compared(one, other)
    assert found.means == pytest.approx(scipy.stats.ttest_ind(one, other, equal_var=False).pvalue)
    ratio = np.var(one, ddof=1) / np.var(other, ddof=1)
    assert found.variances == pytest.approx(2 * scipy.stats.f.sf(ratio, 4, 4))
    assert compared(other, one) == pytest.approx(found)
    assert all(math.isnan(p) for p in compared([0.5], one))
    assert all(math.isnan(p) for p in compared([0.5, 0.5, 0.5], one))


def test_every_defence_is_one_of_the_protocol():
    assert set(DEFENCES) <= set(protocol.SYSTEMS)


ATTACKS = {"fgsm": 0.02, "pgd": 0.3, "adaptive-1": 0.03, "adaptive": 0.4}


def white(wrong=ATTACKS, systems=("2n", "null"), best="2n"):
    """Attacks on the systems themselves: how many more are undetected and wrong, for all but the best twice as many."""
    for fold, system in itertools.product(range(3), systems):
        about = {"source": "gtsrb", "fold": fold, "system": system, "images": "few"}
        yield {**about, "sweep": "clean", "strength": "0", "kept": 1.0, "accuracy_filtered": 0.95}
        for sweep, more in wrong.items():
            for strength in ("0.0078", "0.0314"):
                value = 0.05 + more * (1 if system == best else 2)
                filtered = 0.95 - value / 2
                yield {
                    **about, "sweep": sweep, "strength": strength, "undetected_wrong": value,
                    "half_accuracy_filtered": filtered,
                }  # fmt: skip


def test_what_survives():
    """Catches: clean errors that count as the attack's, a range without the clean images, the worst taken for best."""
    found = {(s.claim[:20], s.attack): s.outcome == "survives" for s in survivals(Measured("gtsrb", list(white())))}
    for name, due in {
        "2N's accuracy with f": {"fgsm": True, "pgd": False, "adaptive-1": True, "adaptive": False},
        "almost no attacked i": {"fgsm": True, "pgd": False, "adaptive-1": False, "adaptive": False},
        "2N is misled least o": dict.fromkeys(ATTACKS, True),
    }.items():
        assert {attack: found[name, attack] for attack in ATTACKS} == due
    other = list(survivals(Measured("gtsrb", list(white(best="null")))))
    assert [s.outcome for s in other if "least of all" in s.claim] == ["falls"] * 4
    alike = survivals(Measured("gtsrb", list(white(dict.fromkeys(ATTACKS, 0.019)))))
    assert [s.outcome for s in alike if "least of all" in s.claim] == ["falls"] * 4


def test_what_was_not_measured_neither_survives_nor_falls():
    assert {s.outcome for s in survivals(Measured("gtsrb", []))} == {"not measured"}
    broken = [{**row, "undetected_wrong": None, "half_accuracy_filtered": None} for row in white()]
    assert {s.outcome for s in survivals(Measured("gtsrb", broken))} == {"not measured"}


def test_an_adaptive_attack_that_does_worse_than_the_plain_one_is_said():
    assert too_weak(Measured("gtsrb", list(white()))) == []
    weak = too_weak(Measured("gtsrb", list(white({**ATTACKS, "adaptive": 0.29}))))
    assert len(weak) == 2 * 2 * 3  # systems, strengths, folds
    assert weak[0] == "NULL: adaptive at ε 0.0078 0.6300, pgd at 0.0078 0.6500"


def test_an_adaptive_attack_that_does_worse_in_a_larger_ball_is_said():
    rows = list(white(systems=("2n",)))
    for row in rows:
        if (row["sweep"], row["strength"], row["fold"]) == ("adaptive", "0.0314", 1):
            row["undetected_wrong"] = 0.44
    assert too_weak(Measured("gtsrb", rows)) == ["2N: adaptive at ε 0.0314 0.4400, adaptive at 0.0078 0.4500"]


def test_nothing_survives_an_attack_that_is_known_to_be_too_weak():
    """What falls under it falls all the same; another system's weak attack says nothing of 2N."""
    rows = list(white({**ATTACKS, "adaptive": 0.02}))
    found = {s.outcome for s in survivals(Measured("gtsrb", rows)) if s.attack == "adaptive"}
    assert found == {"not shown"}
    for row in rows:
        if row["system"] == "2n" and row["sweep"] == "pgd":
            row["undetected_wrong"] = 0.05
    assert {s.outcome for s in survivals(Measured("gtsrb", rows)) if s.attack == "adaptive"} == {"survives"}
    assert "survives" in {s.outcome for s in survivals(Measured("gtsrb", rows)) if s.attack == "fgsm"}
