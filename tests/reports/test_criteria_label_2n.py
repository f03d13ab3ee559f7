"""The claims of label-2n decided on made-up rows: as the paper says, with the defences permuted, and at random."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from reports.comparing import compare
from reports.label_2n import protocol
from reports.label_2n.criteria import CLAIMS, DEFENCES, criteria
from reports.label_2n.numbers import Measured
from reports.label_2n.theory import after, constant_ratio, stays, steps
from reports.label_2n.whitebox import survivals, too_weak
from reports.verdicts import judge

EPSILONS = [f"{size:g}" for size in protocol.CURVE]
NAMES = ("alone", "kept", "fall", "transfer")
SAID = {
    "adv+bin": (0.80, 0.83, 0.20, 0.30),
    "null": (0.70, 0.91, 0.04, 0.06),
    "2n": (0.71, 0.93, 0.02, 0.01),
    "cdaec+bin": (0.60, 0.75, 0.30, 0.40),
    "distill+bin": (0.62, 0.80, 0.25, 0.05),
}
PAPER = {name: {system: numbers[i] for system, numbers in SAID.items()} for i, name in enumerate(NAMES)}
"""What the paper says of each system: accuracy alone and filtered, its fall over ε, and what transfers."""


def rows(source="gtsrb", folds=5, **changed):
    """
    Rows as the paper says: accuracy falls by its share of the way over ε, folds differ by 0.002 or so.

    ``changed`` replaces numbers of systems by name: alone, kept, fall, transfer; a curve by a list, one number an ε.
    On CIFAR-10 NULL is ahead of 2N, less and less so, and behind it at high ε.
    """
    table = {name: {**values, **changed.get(name, {})} for name, values in PAPER.items()}
    if source == "cifar10":
        table["kept"] = {**table["kept"], "null": 0.938, **changed.get("kept", {})}
    draws = np.random.default_rng(0)
    for fold, system in itertools.product(range(folds), DEFENCES):
        about = {"source": source, "fold": fold, "system": system, "images": "fold"}
        noise, kept, fall = 0.002 * draws.standard_normal(), table["kept"][system], table["fall"][system]
        curve = changed.get("curve", {}).get(system)
        curve = curve or [kept + 0.015 - (fall + 0.015) * i / (len(EPSILONS) - 1) for i in range(len(EPSILONS))]
        probability = changed.get("probability", [0.1 + 0.08 * i for i in range(len(EPSILONS))])
        moved = table["transfer"][system]
        moved = moved if isinstance(moved, list) else [moved] * len(EPSILONS)
        alone = {"accuracy": table["alone"][system] + noise, "selective_accuracy": kept + noise}
        yield {**about, "sweep": "mixed", "strength": "mixed", **alone}
        yield {**about, "sweep": "clean", "strength": "0", "attack_probability": 0.05}
        for i, strength in enumerate(EPSILONS):
            yield {
                **about, "sweep": "curve", "strength": strength,
                "half_selective_accuracy": curve[i] + noise,
                "accuracy": 0.6 - 0.02 * i,
                "coverage": changed.get("passed", {}).get(system, [0.5**i for i in range(len(EPSILONS))])[i],
                "attack_probability": probability[i],
                "selective_transferability": moved[i] + abs(noise) / 10,
            }  # fmt: skip
        shapes = {
            "selective_max_accuracy_slope": 3 * fall,
            "selective_accuracy_std": fall / 3,
            "selective_accuracy_range": fall,
        }
        yield {**about, "sweep": "shape", "strength": "0.5", **shapes}


def outcome(name, source="gtsrb", **changed):
    """The outcome of one criterion on rows that are otherwise the paper's."""
    return judge(CLAIMS[name].criterion(Measured(source, list(rows(source, **changed)))), "full").outcome


def verdicts(measured):
    return [judge(criterion, measured.scale) for criterion in criteria(measured)]


RISING = [0.8 + 0.01 * i for i in range(len(EPSILONS))]
"""An accuracy that never falls: the detector reaches r_X at every step."""


def flat(value):
    return [value] * len(EPSILONS)


HOLDS_AND_BREAKS = {
    # criterion: data set, what is changed so that it holds, and so that it breaks, each for one reason
    "filtering gains": ("gtsrb", {}, [{"alone": {"2n": 0.94}}, {"alone": {"adv+bin": 0.70}}]),
    "NULL is flat": ("gtsrb", {}, [{"fall": {"null": 0.09}}, {"curve": {"null": [0.9] * 10 + [0.8]}}]),
    "attack probability rises": (
        "gtsrb",
        {"probability": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.7, 0.7, 0.7, 0.7]},
        [{"probability": [0.1, 0.2] + [0.2] * 8 + [0.9]}, {"probability": flat(0.04)}],
    ),
    "constant after filtering": ("gtsrb", {}, [{"fall": {"2n": 0.11}}]),
    "NULL, then 2N": (
        "cifar10",
        {"curve": {"null": [0.94] * 3 + [0.9] * 8, "2n": [0.93] * 11}},
        [
            {"curve": {"null": [0.94, 0.92, 0.99] + [0.9] * 8, "2n": [0.93] * 11}},  # not at ε 0.05
            {"curve": {"null": [0.94] * 3 + [0.9] * 7 + [0.94], "2n": [0.93] * 11}},  # not at ε 0.5
            {"curve": {"null": [0.9] * 3 + [0.94] * 8, "2n": [0.93] * 11}},  # the other way round
        ],
    ),
    "lowest sensitivity": ("gtsrb", {}, [{"fall": {"null": 0.01}}, {"fall": {"2n": 0.29}}]),
    "lowest deviation": ("gtsrb", {}, [{"fall": {"adv+bin": 0.01}}]),
    "lowest range": ("gtsrb", {}, [{"fall": {"distill+bin": 0.01}}]),
    "best mean": ("gtsrb", {}, [{"kept": {"null": 0.94}}, {"kept": {"2n": 0.5}}]),
    "second mean": (
        "cifar10", {}, [{"kept": {"null": 0.925}}, {"kept": {"adv+bin": 0.935}}, {"kept": {"adv+bin": 0.95}}]
    ),
    "close behind": ("cifar10", {}, [{"kept": {"null": 0.96}}, {"kept": {"null": 0.925}}]),
    "best beyond training": (
        "gtsrb",
        {"curve": {"null": [0.99] * 7 + [0.5] * 4}},
        [{"curve": {"null": [0.5] * 7 + [0.99] * 4}}],
    ),
    "more accurate": (
        "gtsrb", {}, [{"kept": {"null": 0.93}}, {"kept": {"null": 0.96}}, {"kept": {"cdaec+bin": 0.99}}]
    ),
    "more accurate, but NULL": ("cifar10", {"kept": {"null": 0.9302}}, [{"kept": {"null": 0.95}}]),
    "transfers far less, CIFAR-10": ("cifar10", {}, [{"transfer": {"distill+bin": 0.01}}]),
    "hardly transfers": (
        "gtsrb",
        {"transfer": {"2n": flat(0.019)}},
        [{"transfer": {"2n": [0.021] + [0.0] * 10}}, {"transfer": {"2n": 0.3}}],
    ),
    "transfers least": ("gtsrb", {}, [{"transfer": {"distill+bin": 0.001}}]),
    "transfers far less": ("gtsrb", {}, [{"transfer": {"null": 0.02}}, {"transfer": {"null": 0.001}}]),
    "transfers less": ("gtsrb", {}, [{"transfer": {"null": 0.01}}, {"transfer": {"adv+bin": 0.0}}]),
    "ratio reached": (
        "gtsrb",
        {"passed": {"2n": [0.5**i for i in range(11)]}},
        [{"passed": {"2n": [0.5] * 11}}, {"passed": {"2n": [0.01 * 1.5**i for i in range(11)]}}],
    ),
    "formula": (
        "gtsrb",
        {"curve": dict.fromkeys(DEFENCES, RISING)},
        [{"curve": dict.fromkeys(DEFENCES, RISING[::-1])}, {"curve": dict.fromkeys(DEFENCES, flat(0.9))}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLAIMS)
def test_each_criterion_holds_and_breaks(name):
    """Hand-made curves. Catches: a criterion that cannot fail, one that looks at another number or another system."""
    source, holding, breaking = HOLDS_AND_BREAKS[name]
    assert outcome(name, source, **holding) == "reproduced"
    for changed in breaking:
        assert outcome(name, source, **changed) == "not reproduced", changed


def test_what_the_paper_says_is_reproduced_where_it_is_so():
    rising = {"curve": {s: [PAPER["kept"][s] + 0.002 * i for i in range(11)] for s in DEFENCES}}
    assert {v.outcome for v in verdicts(Measured("gtsrb", list(rows(**rising))))} == {"reproduced"}


def test_claims_are_judged_on_the_set_of_which_they_are_made():
    """Catches: "NULL is flat" asked of CIFAR-10, where the paper does not say it; ten pairs where it compares four."""
    found = {source: verdicts(Measured(source, list(rows(source)))) for source in ("gtsrb", "cifar10", "digits")}
    claims = {source: {v.claim for v in those} for source, those in found.items()}
    assert claims["gtsrb"] - claims["cifar10"] == {
        "NULL is flat over ε",
        "2N has the best mean accuracy",
        "filtered transferability of 2N is about 5 times below NULL's",
        "2N is significantly more accurate than each of the four others",
    }
    assert claims["cifar10"] - claims["gtsrb"] == {
        "NULL is ahead at low ε, 2N at high ε",
        "NULL has the best mean accuracy, 2N the second best",
        "NULL's mean accuracy is 1% above 2N's",
        "filtered transferability of 2N is about 3 times below DISTILL's",
        "2N is significantly more accurate than each of the four others, but NULL",
    }
    assert len(claims["digits"]) == len(CLAIMS) - 2
    for those in found.values():
        (pairs,) = (v.numbers for v in those if v.claim.startswith("2N is significantly"))
        assert [each.rpartition(" ")[0] for each in pairs.split(", ")] == [
            f"2N and {name}" for name in ("ADV", "NULL", "CDAEC", "DISTILL")
        ]


def test_levels_and_orderings_at_a_reduced_scale():
    """By the one rule. Catches: a size that is asked of a small network, an order that is not."""
    found = verdicts(Measured("digits", list(rows("digits")), "medium"))
    levels = {"flat over ε", "nearly constant over ε", "above 2N's", "at every ε", "times below NULL's"}
    for verdict in found:
        level = any(verdict.claim.endswith(end) for end in levels)
        assert verdict.kind == ("level" if level else "ordering"), verdict.claim
        assert (verdict.outcome == "not testable here") == level
    assert sum(verdict.kind == "level" for verdict in found) == len(levels)


@pytest.mark.parametrize("order", [order for order in itertools.permutations(range(5)) if order[2] != 2][::7])
def test_permuted_defences_do_not_reproduce_it(order):
    """Catches: criteria that look at the best defence, whichever it is, instead of 2N."""
    changed = {
        name: dict(zip(table, (list(table.values())[i] for i in order), strict=True)) for name, table in PAPER.items()
    }
    for name in CLAIMS:
        if name.partition(" ")[0] == "lowest" or name in ("best mean", "best beyond training", "transfers least"):
            assert outcome(name, **changed) == "not reproduced"


@pytest.mark.parametrize("seed", range(10))
def test_random_evidence_does_not_reproduce_it(seed):
    draws = np.random.default_rng(seed)
    changed = {name: dict(zip(DEFENCES, draws.random(5), strict=True)) for name in NAMES}
    found = [verdict.outcome for verdict in verdicts(Measured("gtsrb", list(rows(**changed))))]
    assert found.count("not reproduced") >= 4


def test_rows_that_are_missing_do_not_reproduce_it():
    """Catches: NaN taken for a number that is lower than all others, a claim about nothing."""
    left = [
        row for row in rows() if not (row["system"] == "cdaec+bin" and row["fold"] == 1 and row["sweep"] == "shape")
    ]
    lost = {"selective_accuracy": None, "half_selective_accuracy": None, "selective_transferability": None}
    broken = [{**row, **lost} if row["system"] == "adv+bin" else row for row in left]
    found = {v.claim: v.outcome for v in verdicts(Measured("gtsrb", broken))}
    said = ("filtering raises", "2N has the best mean", "for ε above", "2N is significantly", "significantly less")
    for words in said:
        assert [outcome for claim, outcome in found.items() if claim.startswith(words)] == ["not reproduced"]
    assert "reproduced" not in {verdict.outcome for verdict in verdicts(Measured("digits", []))}


def test_few_folds_decide_no_differences():
    """Three folds have little power: tests are not testable, whatever came out."""
    for claim in ("more accurate", "transfers less"):
        assert outcome(claim, folds=3) == "not testable here"
        assert outcome(claim, folds=5) == "reproduced"


def test_the_required_ratio_by_the_paper_s_formula():
    """
    Random detectors whose accuracy does not depend on what passes: exactly the theory's case.

    Catches: the ratio turned over, strengths exchanged, a step from which nothing passes.
    """
    draws = np.random.default_rng(0)
    for _ in range(500):
        original, recall, share = draws.uniform(0.5, 1), draws.uniform(0.5, 1), 0.5
        attacked, missed = draws.uniform(0, 0.5, 2), draws.uniform(0.01, 1, 2)
        accuracy = [after(original, a, share, recall, m) for a, m in zip(attacked, missed, strict=True)]
        reached = stays(accuracy[0], *attacked, *missed)
        assert reached == (accuracy[1] >= accuracy[0])
        if accuracy[0] > attacked[1]:  # else the ratio must be larger than required, not smaller
            assert reached == (missed[1] / missed[0] <= constant_ratio(accuracy[0], *attacked))
    assert stays(0.9, 0.5, 0.4, 0.0, 0.0)
    assert not stays(0.9, 0.5, 0.4, 0.0, 0.1)


def test_steps_are_those_of_the_measured_curve():
    """Against numbers made by hand. Catches: accuracy of the other ε, a step that lacks numbers and is shown."""

    def row(strength, accuracy, whole, kept):
        about = {"source": "gtsrb", "fold": 0, "system": "2n", "images": "fold", "sweep": "curve", "strength": strength}
        return {**about, "accuracy": accuracy, "half_selective_accuracy": whole, "coverage": kept}

    made = [row("0.02", 0.5, 0.8, 0.4), row("0.05", 0.4, 0.9, 0.1), row("0.1", 0.2, 0.85, 0.2)]
    made.append(row("0.15", 0.1, None, 0.1))
    first, second = steps(Measured("gtsrb", made), "2n")
    assert (first.strength, first.reached, second.strength, second.reached) == ("0.05", True, "0.1", False)
    assert first[1:4] == pytest.approx((0.8, 0.75, 0.25))
    assert second[1:4] == pytest.approx((0.5, 0.5 / 0.7, 2.0))
    assert (first.change, second.change) == pytest.approx((0.1, -0.05))


def test_tests_are_scipy_s():
    one, other = [0.90, 0.93, 0.92, 0.95, 0.9], [0.80, 0.82, 0.81, 0.8, 0.83]
    found = compare(one, other)
    assert found.means == pytest.approx(scipy.stats.ttest_ind(one, other, equal_var=False).pvalue)
    ratio = np.var(one, ddof=1) / np.var(other, ddof=1)
    assert found.variances == pytest.approx(2 * scipy.stats.f.sf(ratio, 4, 4))
    assert compare(other, one) == pytest.approx(found)
    assert all(math.isnan(p) for p in compare([0.5], one))
    assert all(math.isnan(p) for p in compare([0.5, 0.5, 0.5], one))


ATTACKS = {"fgsm": 0.02, "pgd": 0.3, "adaptive-1": 0.03, "adaptive": 0.4}


def white(wrong=ATTACKS, systems=("2n", "null"), best="2n"):
    """Attacks on the systems themselves: how many more are undetected and wrong, for all but the best twice as many."""
    for fold, system in itertools.product(range(3), systems):
        about = {"source": "gtsrb", "fold": fold, "system": system, "images": "few"}
        yield {**about, "sweep": "clean", "strength": "0", "coverage": 1.0, "selective_accuracy": 0.95}
        for sweep, more in wrong.items():
            for strength in ("0.0078", "0.0314"):
                value = 0.05 + more * (1 if system == best else 2)
                filtered = 0.95 - value / 2
                yield {
                    **about, "sweep": sweep, "strength": strength, "undetected_error_rate": value,
                    "half_selective_accuracy": filtered,
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
    broken = [{**row, "undetected_error_rate": None, "half_selective_accuracy": None} for row in white()]
    assert {s.outcome for s in survivals(Measured("gtsrb", broken))} == {"not measured"}


def test_an_adaptive_attack_that_does_worse_is_named():
    """Catches: one that does worse than the plain attack, or than itself in a smaller ball, taken for strong."""
    assert too_weak(Measured("gtsrb", list(white()))) == []
    weak = too_weak(Measured("gtsrb", list(white({**ATTACKS, "adaptive": 0.29}))))
    assert len(weak) == 2 * 2 * 3  # systems, strengths, folds
    assert weak[0] == "NULL: adaptive at ε 0.0078 0.6300, pgd at 0.0078 0.6500"
    rows = list(white(systems=("2n",)))
    for row in rows:
        if (row["sweep"], row["strength"], row["fold"]) == ("adaptive", "0.0314", 1):
            row["undetected_error_rate"] = 0.44
    assert too_weak(Measured("gtsrb", rows)) == ["2N: adaptive at ε 0.0314 0.4400, adaptive at 0.0078 0.4500"]


def test_nothing_survives_an_attack_that_is_known_to_be_too_weak():
    """What falls under it falls all the same; another system's weak attack says nothing of 2N."""
    rows = list(white({**ATTACKS, "adaptive": 0.02}))
    found = {s.outcome for s in survivals(Measured("gtsrb", rows)) if s.attack == "adaptive"}
    assert found == {"not shown"}
    for row in rows:
        if row["system"] == "2n" and row["sweep"] == "pgd":
            row["undetected_error_rate"] = 0.05
    assert {s.outcome for s in survivals(Measured("gtsrb", rows)) if s.attack == "adaptive"} == {"survives"}
    assert "survives" in {s.outcome for s in survivals(Measured("gtsrb", rows)) if s.attack == "fgsm"}
