"""The gate on critical strengths: its bound against scipy and by simulation, its ranks, and gates of tiny projects."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_gate_baseline import accepted, card, gated, swept, trained, workspace  # noqa: F401 (fixtures)
from test_gate_plugin import GATE, WAIVER, ask, damage, gate_of
from test_gate_plugin import gated as project_with_baseline  # noqa: F401 (fixture)

from benchmarks import critical
from robustness.cards.gate import GateTable
from robustness.gate import baseline, ladder_power, ladder_stats, paired_gate
from robustness.gate.decide import decide
from robustness.gate.differences import GateCell, PairedDifference, critical_difference
from robustness.gate.mutation import results
from robustness.metrics.critical_strength import critical_strengths, strengths_resisted
from robustness.metrics.evidence import Evidence

CRITICAL = '\n[gate]\nkind = "paired"\nmargin = 0.05\nstatistic = "critical-strength"\n'
TALLY = st.lists(st.integers(0, 60), min_size=7, max_size=7).filter(any)


def attacked(predictions, classes=3, unit="default"):
    """Evidence of an attack at strengths 0.1, 0.2, …, on images that are all of class 0."""
    predictions = np.asarray(predictions, np.int32)
    blank = np.zeros(predictions.shape, np.float32)
    names = tuple(f"0.{row + 1}" for row in range(len(predictions)))
    about = {"decision": {"threshold": 0.5}, "subject": {"unit": unit}}
    return Evidence(
        np.zeros(predictions.shape[1], np.int32), tuple("abcdefg"[:classes]), names, predictions, blank, blank, blank,
        blank, ("ok",) * len(names), about,
    )  # fmt: skip


# ------------------------------------------------------------------ the bound


@settings(deadline=None, max_examples=60)
@given(lost=st.integers(0, 60), spare=st.integers(0, 800), margin=st.floats(0.002, 0.5))
def test_of_losses_alone_the_bound_is_clopper_and_pearsons(lost, spare, margin):
    """Catches: a saddlepoint of another distribution; a forgotten image at the worst value; a wrong limit."""
    if lost + spare:
        expected = stats.beta.sf(margin, lost + 1, spare) if spare else 1.0
        p = float(ladder_stats.p_within_margin([0, spare, lost], [-1, 0, 1], margin))
        assert p == pytest.approx(expected, rel=0.05, abs=2e-3)


@pytest.mark.parametrize("n", [40, 600])
def test_the_p_value_is_that_of_random_weights(n):
    """Catches: gamma numbers that are not the images' weights, on a ladder of several strengths."""
    draws, values = np.random.default_rng(n), ladder_stats.ladder(5)
    tally = draws.multinomial(n, [0.01] * 5 + [0.85] + [0.02] * 5)
    weighted = draws.dirichlet(np.append(tally[tally > 0], 1), 100_000) @ np.append(values[tally > 0], 1)
    for margin in (0.02, 0.05, 0.1):
        p = float(ladder_stats.p_within_margin(tally, values, margin))
        assert p == pytest.approx((weighted >= margin).mean(), abs=0.01)


def test_of_many_images_the_p_values_are_student_ts():
    """Catches: a test of something other than the mean; a bound that is too wide however many images there are."""
    tally, values = np.array([1000, 2000, 190_000, 4000, 3000]), ladder_stats.ladder(2)
    drops = np.repeat(values, tally)
    for margin in (0.0085, 0.0095, 0.0103):
        less = stats.ttest_1samp(drops, margin, alternative="less").pvalue
        assert float(ladder_stats.p_within_margin(tally, values, margin)) == pytest.approx(less, abs=0.005)
        assert float(ladder_stats.p_exceeds_margin(tally, values, margin)) == pytest.approx(1 - less, abs=0.005)


@settings(deadline=None, max_examples=40)
@given(tally=TALLY, margin=st.floats(0.001, 0.4))
def test_interval_and_p_values_say_the_same_also_mirrored(tally, margin):
    """Catches: ends exchanged, a side with another image added, a mean outside of its own interval."""
    values = ladder_stats.ladder(3)
    low, high = (float(end) for end in ladder_stats.interval(tally, values))
    assert -1 <= low <= float(np.average(values, weights=tally)) <= high <= 1
    for p, outside, end in [
        (ladder_stats.p_exceeds_margin(tally, values, margin), low > margin, low),
        (ladder_stats.p_within_margin(tally, values, margin), high < margin, high),
    ]:
        if abs(end - margin) > 1e-6:
            assert (float(p) <= 0.05) is bool(outside)
    assert [float(end) for end in ladder_stats.interval(tally[::-1], values)] == pytest.approx([-high, -low], abs=1e-9)


@pytest.mark.parametrize(
    ("n", "margin", "steps"),
    [(40, 0.1, {9: 0.1}), (150, 0.05, {9: 0.05}), (600, 0.02, {-1: 0.2, 1: 0.2, 9: 0.02}), (600, 0.02, {1: 0.18})],
)
def test_errors_are_within_alpha_where_students_are_not(n, margin, steps):
    """Catches: a bound of few, tied and skewed drops by their spread alone. The true drop equals the margin."""
    share = np.zeros(19)
    for step, chance in steps.items():
        share[9 + step] = chance
    share[9] = 1 - share.sum()
    values, draws = ladder_stats.ladder(9), np.random.default_rng(5)
    tallies = draws.multinomial(n, share, size=4000)
    assert share @ values == pytest.approx(margin)
    for p in (ladder_stats.p_within_margin, ladder_stats.p_exceeds_margin):
        errors = int((p(tallies, values, margin) <= 0.05).sum())
        assert stats.binomtest(errors, 4000).proportion_ci(method="wilson").low <= 0.05
    if max(steps) == 9:
        mean = tallies @ values / n
        spread = np.sqrt((tallies @ values**2 / n - mean**2) / (n - 1))
        assert (mean + stats.t.isf(0.05, n - 1) * spread <= margin).mean() > 0.06


@pytest.mark.parametrize("steps", [1, 9])
@pytest.mark.parametrize(("worse", "better"), [(0.05, 0.05), (0.1, 0.02)])
def test_the_images_that_are_said_decide_in_80_of_100_cases(steps, worse, better):
    """Catches: a number of images for another test, another α, or another side of the margin."""
    share = np.repeat([better / steps, 1 - worse - better, worse / steps], [steps, 1, steps])
    values = ladder_stats.ladder(steps)
    n = ladder_power.required_sample_size(600 * share, values, 0.02)
    tallies = np.random.default_rng(1).multinomial(int(n), share, size=3000)
    p = ladder_stats.p_exceeds_margin if share @ values > 0.02 else ladder_stats.p_within_margin
    assert 0.77 < (p(tallies, values, 0.02) <= 0.05).mean() < 0.87
    assert ladder_power.required_sample_size([0, 97, 3], [-1, 0, 1], 0.03) == np.inf


def test_the_benchmark_reads_its_outcomes():
    """Catches: outcomes and benchmark that differ in models or strengths; a decision that more images make rarer."""
    assert critical.levels(50).count("\n") == 29
    name, was, now = critical.pairs()[1][3]
    assert name.startswith("noise of 0.8")
    drops, ranks = critical.changes("digits-cnn", "fgsm", was, now)
    assert drops.shape == (9, 600)
    few, many = (critical.decisions(np.random.default_rng(0), n, drops, ranks, 200, equal=False) for n in (20, 60))
    assert all(a < b for a, b in zip(few, many, strict=True))


@pytest.mark.parametrize(
    ("now", "n", "verdict"),
    [
        ("1000", 40, "inconclusive"), ("1000", 600, "passed"),  # no image changed
        ("1001", 40, "inconclusive"), ("1001", 600, "passed"),  # another seed
        ("weights of 2 bits", 40, "failed"), ("weights of 2 bits", 600, "failed"),
    ],
)  # fmt: skip
def test_real_models_on_few_and_many_images(now, n, verdict):
    """Catches: forty images that pass because few changed; damage that forty miss; a healthy seed that fails."""
    ranks = critical.changes("digits-cnn", "fgsm", "1000", now)[1][:n].astype(np.int16)
    drop = PairedDifference(0.5, 0.5, 1, n, ranks, method="paired ladder", steps=9)
    cell = GateCell("fgsm", "all", "critical_strength", 0.05 if n == 40 else 0.03)
    row = paired_gate.judge([cell], [drop], 0.05, {})[0]
    assert row["verdict"] == verdict
    assert (row["images_needed"] > n) or verdict != "inconclusive"


# ------------------------------------------------------------------ ranks


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000))
def test_ranks_count_the_strengths_below_the_critical_one(seed):
    """Catches: an image that is right again at a larger strength; ranks in the order of the card, or of dB."""
    draws = np.random.default_rng(seed)
    attack = attacked(draws.integers(0, 2, (4, 30)))
    clean = attacked(draws.integers(0, 2, (1, 30)))
    critical = critical_strengths(attack, replace(clean, strengths=("0",)))
    below = (np.array([[0.1], [0.2], [0.3], [0.4]]) < critical).sum(axis=0)
    ranks = strengths_resisted(replace(attack, clean=clean), attack.strengths, clean=True)
    assert ranks.tolist() == below.tolist()

    other, order = attacked(draws.integers(0, 2, (4, 30))), draws.permutation(30)
    drop = critical_difference(attack, other, attack.strengths[::-1])
    shuffled = [replace(e, predictions=e.predictions[:, order]) for e in (attack, other)]
    assert critical_difference(*shuffled, attack.strengths).drop == pytest.approx(drop.drop)
    assert critical_difference(other, attack, attack.strengths).drop == pytest.approx(-drop.drop)
    louder = [replace(attacked(e.predictions[::-1], unit="snr"), clean=None) for e in (attack, other)]
    assert critical_difference(*louder, attack.strengths).drop == pytest.approx(drop.drop)


def test_a_ladder_of_one_strength_is_the_test_of_its_cell():
    """Catches: a second test of the same counts, which says something else."""
    was, now = attacked([[0] * 90 + [1] * 10]), attacked([[0] * 80 + [1] * 20])
    cell = GateCell("fgsm", "0.1", "accuracy", 0.02)
    ladder = cell._replace(strength="all", metric="critical_strength", strengths=("0.1",))
    one, other = (
        paired_gate.judge([each], [paired_gate.cell_drop(each, was, now)], 0.05, {})[0] for each in (cell, ladder)
    )
    names = {"cell", "strength", "metric"}
    assert {k: v for k, v in one.items() if k not in names} == {k: v for k, v in other.items() if k not in names}


# ------------------------------------------------------------------ the gate


def retrained(swept, share):  # noqa: F811
    """A model that is wrong on another share of the images, with its own clean evidence beside the noise."""
    found = trained(swept, share, 701)
    return {"clean": found["clean"], "normal": replace(found["normal"], clean=found["clean"])}


def test_one_test_per_sweep_of_models_with_more_and_fewer_errors(card, swept):  # noqa: F811
    """Catches: a cell per strength; a margin of one strength for all; a waiver that has no cell to name."""
    margins = "margin = 0.2\nmargins = { normal = [0.1, 0.3] }\nstatistic = 'critical-strength'\n"
    card = gated(card, "paired", margins)
    baseline.write(card.baseline, "tiny", accepted(swept, 1))
    for share, outcome in ((0.6, "failed"), (0.1, "passed")):
        decision = decide(card, retrained(swept, share).__getitem__)
        assert decision.outcome == outcome, decision.message
        clean, normal = decision.table["cells"]
        assert (clean["cell"], clean["method"]) == ("clean:0:accuracy", "paired score")
        assert (normal["cell"], normal["method"]) == ("normal:all:critical_strength", "paired ladder")
        assert normal["margin"] == pytest.approx(0.2)
        assert normal["drop"] == pytest.approx(normal["baseline"] - normal["candidate"])
        assert normal["low"] < normal["drop"] < normal["high"]
    assert "images misled at a smaller strength" in decide(card, retrained(swept, 0.6).__getitem__).message


def test_a_class_that_is_absent_or_lost(card, swept):  # noqa: F811
    """Catches: a division by a class without images; a class that is lost as a whole and passes."""
    card = gated(card, "paired", "margin = 0.04\nsweeps = ['normal']\nstatistic = 'critical-strength'\n")
    without = {name: replace(e, labels=np.where(e.labels == 9, 8, e.labels), clean=None) for name, e in swept.items()}
    baseline.write(card.baseline, "tiny", accepted(without, 1, share=0.0))
    assert decide(card, trained(without, 0.0, 701).__getitem__).outcome == "passed"
    lost = trained(without, 0.0, 701)["normal"]
    lost = replace(lost, predictions=np.where(lost.labels == 8, 3, lost.predictions))
    assert decide(card, {"normal": lost}.__getitem__).outcome == "failed"


def test_a_run_shows_one_row_per_sweep(project_with_baseline):  # noqa: F811
    """Catches: accepted weights that do not pass; a row that the report's schema lacks; damage that passes."""
    project = ask(project_with_baseline, CRITICAL)
    same = gate_of(project.run(GATE, "--robustness-strict"))
    assert "passed by identity" in same["message"]
    rows = ["clean:0:accuracy", "normal:all:critical_strength", "uniform:all:critical_strength"]
    assert [row["cell"] for row in same["table"]["cells"]] == rows

    run = damage(project, "inputs * 0.2 + 0.6").run(GATE)
    assert (run.ret, gate_of(run)["outcome"]) == (1, "failed")
    assert "normal:all:critical_strength" in run.out
    waived = "".join(WAIVER.format(what="cell", named=row, day="2999-01-01") for row in rows[:2])
    ask(project, waived)
    assert [row["verdict"] for row in gate_of(project.run(GATE))["table"]["cells"]][:2] == ["waived"] * 2


def test_strengths_without_numbers_are_an_error(project_with_baseline):  # noqa: F811
    """Catches: a NaN that shortens the ladder and counts as robust."""
    run = ask(project_with_baseline.on_forward("logits = logits / 0 if noisy else logits"), CRITICAL).run(GATE)
    assert (run.ret, gate_of(run)["outcome"]) == (1, "error")
    assert "3 cell(s) have numbers in the baseline but not now" in gate_of(run)["message"]


def test_few_images_are_inconclusive(project_with_baseline):  # noqa: F811
    """Catches: too few images that pass because none of them changed; a row without the images that would decide."""
    run = damage(ask(project_with_baseline, CRITICAL.replace("0.05", "0.001")), "inputs * 0.9").run(GATE)
    assert gate_of(run)["outcome"] == "inconclusive"
    assert all(row["images_needed"] > 200 for row in gate_of(run)["table"]["cells"] if row["verdict"] == "inconclusive")
    assert gate_of(run)["table"]["passes_if_equal"] == 0


def test_wrong_settings_are_named():
    """Catches: a statistic that is ignored by a gate that has another one."""
    for more in ({"kind": "retraining"}, {"kind": "paired", "margin": 0.02, "metrics": ("f1",)}):
        with pytest.raises(ValueError, match="needs a paired gate of accuracy alone"):
            GateTable(statistic="critical-strength", **more)


def test_results_of_mutations_keep_their_key(card, monkeypatch):  # noqa: F811
    """Catches: results of `robustness mutate` that the default of a new setting makes stale."""
    hashed = []
    monkeypatch.setattr(results, "sha256_json", hashed.append)
    for more in ("", "statistic = 'critical-strength'\n"):
        results.result_key(gated(card, "paired", f"margin = 0.02\n{more}"), "w", "i", 0)
        card.path.write_text(card.path.read_text().partition("\n[gate]")[0])
    assert ["statistic" in fields["gate"] for fields in hashed] == [False, True]
