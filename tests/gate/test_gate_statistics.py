"""The gate's statistics against scipy, statsmodels, numerical optimisation, and outcomes that are counted out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from benchmarks import gate as simulated
from robustness import claims
from robustness.gate import differences, paired_gate, paired_stats, power, retraining_stats
from robustness.gate.differences import GateCell, GateError, PairedDifference
from robustness.metrics.evidence import Evidence
from robustness.metrics.intervals import wilson

COUNTS = st.integers(0, 80)


def changes(losses, gains, n):
    return np.repeat(np.array([1, -1, 0], np.int8), [losses, gains, n - losses - gains])


def decided(predictions, labels, classes=3, **more):
    """Evidence of one cell."""
    predictions = np.asarray(predictions, np.int32)[None]
    blank = np.zeros(predictions.shape, np.float32)
    return Evidence(
        np.asarray(labels, np.int32), tuple("abcdefghij"[:classes]), ("0.1",), predictions, blank, blank, blank, blank,
        ("ok",), {"decision": {"threshold": 0.5}}, **more,
    )  # fmt: skip


# ------------------------------------------------------------------ paired counts


def likeliest(losses, gains, n, drop):
    """Tango's score by numerical likelihood: no formula of ours."""

    def unlikely(gained):
        p = (gained + drop, gained, 1 - 2 * gained - drop)
        return -sum(k * math.log(max(q, 1e-300)) for k, q in zip((losses, gains, n - losses - gains), p, strict=True))

    low, high = max(0.0, -drop), (1 - drop) / 2
    found = optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    edges = min((low, high, found.x), key=unlikely)
    return (losses - gains - n * drop) / math.sqrt(n * (2 * edges + drop - drop**2))


@settings(deadline=None, max_examples=60)
@given(losses=COUNTS, gains=COUNTS, spare=st.integers(1, 500), drop=st.floats(0.005, 0.3) | st.floats(-0.3, -0.005))
def test_the_score_is_that_of_the_likeliest_discordance(losses, gains, spare, drop):
    """Catches: a wrong root of Tango's quadratic. Corrections are undone: continuity by side 0, skewness by hand."""
    n = losses + gains + spare
    z = simulated.plain(np.float64(losses), np.float64(gains), n, drop)
    expected = likeliest(losses, gains, n, drop)
    assert z == pytest.approx(expected, rel=1e-3, abs=1e-3)

    if abs(expected) < 1e-9:
        return
    ours = float(paired_stats.tango_score(losses, gains, n, drop, 0.0))
    variance = ((losses - gains - n * drop) / expected) ** 2 / n
    discordance = variance + drop**2
    skewness = (drop - 3 * drop * discordance + 2 * drop**3) / variance**1.5 / math.sqrt(n)
    undone = ours + skewness * (ours**2 - 1) / 6  # the quadratic that was solved for it
    if 1 + 2 * skewness / 3 * (expected + skewness / 6) > 0.01:
        assert undone == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_errors_counted_out_are_within_alpha():
    """Catches: an interval without either correction, which fails up to 3.9 times as many cells as it says."""
    for tests in (1, 1000):
        for n, drop, gained in [(200, 0.02, 0.002), (600, 0.005, 0.0005), (2000, 0.01, 0.0005), (2000, 0.02, 0.03)]:
            fails, passes, *_ = simulated.levels(n, drop, gained, 0.05 / tests)
            assert fails <= 0.05 / tests
            assert passes <= 0.05 / tests
    assert simulated.levels(600, 0.005, 0.0005, 0.05)[2] > 1.7 * 0.05


@settings(deadline=None, max_examples=60)
@given(losses=COUNTS, gains=COUNTS, spare=st.integers(1, 500), margin=st.floats(0.001, 0.2))
def test_interval_and_p_values_say_the_same(losses, gains, spare, margin):
    """Catches: a gate that passes by its bound and not by its test; a correction on the wrong side of one end."""
    n = losses + gains + spare
    (low,), (high,) = paired_stats.interval([losses], [gains], [n], 0.05)
    assert -1 <= low <= (losses - gains) / n <= high <= 1
    for p, outside, end in [
        (float(paired_stats.p_exceeds_margin(losses, gains, n, margin)), low > margin, low),
        (float(paired_stats.p_within_margin(losses, gains, n, margin)), high < margin, high),
    ]:
        if abs(end - margin) > 1e-9:
            assert (p < 0.05) is bool(outside)
    (mirrored_low,), (mirrored_high,) = paired_stats.interval([gains], [losses], [n], 0.05)
    assert (mirrored_low, mirrored_high) == pytest.approx((-high, -low), abs=1e-9)


def test_a_hopeless_model_fails_however_few_differ_by_the_margin():
    """Catches: a skewness correction that turns round, and calls a drop of one half no drop."""
    assert paired_stats.p_exceeds_margin(100, 0, 200, 0.001) < 1e-12
    assert paired_stats.p_within_margin(100, 0, 200, 0.001) > 0.999


@settings(deadline=None, max_examples=60)
@given(losses=st.integers(0, 400), gains=st.integers(0, 400))
def test_mcnemar_is_statsmodels(losses, gains):
    expected = mcnemar([[0, losses], [gains, 0]], exact=True).pvalue if losses + gains else 1.0
    assert paired_stats.mcnemar([losses], [gains])[0] == pytest.approx(min(expected, 1), rel=1e-9)


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_holm_is_statsmodels(count):
    p = np.random.default_rng(count).random(count).round(2) ** 3  # with ties, and some small
    assert paired_stats.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


@settings(deadline=None, max_examples=60)
@given(freedom=st.integers(1, 60), alpha=st.floats(1e-4, 0.5))
def test_tails_and_quantiles_are_scipys(freedom, alpha):
    z = np.linspace(-6, 8, 29)
    assert paired_stats.upper_tail(z) == pytest.approx(stats.norm.sf(z), rel=1e-12)
    assert paired_stats.normal_quantile(alpha) == pytest.approx(stats.norm.isf(alpha), abs=1e-9)
    assert paired_stats.normal_quantile(5e-5) == pytest.approx(stats.norm.isf(5e-5))
    assert retraining_stats.t_quantile(alpha, freedom) == pytest.approx(stats.t.isf(alpha, freedom), rel=1e-6, abs=1e-9)
    assert retraining_stats.t_tail(1.3, freedom) == pytest.approx(stats.t.sf(1.3, freedom), rel=1e-9)


# ------------------------------------------------------------------ power


SAMPLES = 3000
MISS = 4 * math.sqrt(0.8 * 0.2 / SAMPLES)
"""Four standard errors of a simulated rate of 80 %."""


@pytest.mark.parametrize("margin", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("tests", [1, 30])
def test_what_is_promised_at_80_per_cent_is_decided_so_often(margin, tests):
    """
    Catches: a formula without continuity, skewness or the variance at the margin (it decided in 3 to 80 of 100).

    More often than promised is possible only where few images are discordant, so that counts are coarse.
    """
    draws = np.random.default_rng(3)

    def check(drop, discordance, n):
        lost = (discordance + drop) / 2
        b, c, _ = draws.multinomial(n, [lost, max(lost - drop, 0), 1 - max(discordance, drop)], SAMPLES).T
        if drop > margin:
            decided = paired_stats.p_exceeds_margin(b, c, n, margin) <= 0.05 / tests
        else:
            decided = paired_stats.p_within_margin(b, c, n, margin) <= 0.05
        most = power.POWER + MISS if n * discordance > 200 else 1
        assert power.POWER - MISS < decided.mean() <= most, (drop, discordance, n)

    for discordance in (0.002, 0.01, 0.03, 0.1, 0.3):
        for drop in (-0.01, 0.0, 0.3 * margin, 1.8 * margin, 5 * margin):
            if abs(drop) <= discordance:
                check(drop, discordance, int(power.required_sample_size(drop, margin, discordance, tests=tests)))
        for n in (100, 1000, 20_000):
            if (drop := float(power.detectable_drop(margin, discordance, n, 0.05, tests))) < 1:
                check(drop, max(discordance, drop), n)
    assert power.required_sample_size(margin, margin, 0.06) == math.inf


@pytest.mark.parametrize(
    ("counts", "n"),
    [
        ([(70, 60)], 1000),
        ([(60, 60), (62, 50), (40, 45), (90, 90)], 1000),
        ([(75, 25), (30, 30), (30, 30)], 2000),  # one beyond its margin
        ([(12, 10)] * 10, 300),
    ],
)
def test_the_images_that_are_said_decide_the_whole_gate(counts, n):
    """Catches: the number of one cell said of a gate that takes all its cells together, or Holm's steps left out."""
    margins, drops = (
        [0.02] * len(counts),
        [PairedDifference(0.9, 0.9 - (b - c) / n, 1, n, changes(b, c, n)) for b, c in counts],
    )
    assert "inconclusive" in judged(*counts, n=n)
    images = math.ceil(paired_gate.images_needed(margins, drops, 0.05, n))
    draws, decides, many = np.random.default_rng(5), 0, 400
    seen = [draws.multinomial(images, [b / n, c / n, 1 - (b + c) / n], many).T[:2] for b, c in counts]
    b, c = (np.stack([one[i] for one in seen], axis=1) for i in (0, 1))
    for i in range(many):
        failed = (paired_stats.holm(paired_stats.p_exceeds_margin(b[i], c[i], images, 0.02)) <= 0.05).any()
        decides += failed or (paired_stats.p_within_margin(b[i], c[i], images, 0.02) <= 0.05).all()
    assert decides / many > power.POWER - 4 * math.sqrt(0.16 / many)


@pytest.mark.parametrize("correlated", [True, False])
def test_an_equal_model_passes_so_often(correlated):
    """Catches: cells that are exchanged one by one, as if they were independent; eight that are one pass as one."""
    draws, n, cells = np.random.default_rng(2), 1500, 8
    rows = draws.choice(np.array([-1, 0, 1], np.int8), p=[0.04, 0.92, 0.04], size=(1 if correlated else cells, n))
    changes = np.repeat(rows, cells, axis=0) if correlated else rows
    one = stats.norm.cdf(0.02 * math.sqrt(n / 0.08) - 1.645)
    expected = one if correlated else one**cells
    found = power.pass_rate_if_equal(changes, np.full(cells, n), 0.02, 0.05, exchanges=4000)
    assert found == pytest.approx(expected, abs=0.05)


# ------------------------------------------------------------------ differences


def test_counted_metrics_are_counted_by_hand():
    labels = np.array([0, 0, 1, 1, 2, 2])
    was, now = decided([0, 0, 1, 1, 0, 0], labels), decided([0, 1, 1, 1, 2, 0], labels)
    accuracy = differences.paired_difference("accuracy", was, now, "0.1")
    assert accuracy.changes.tolist() == [0, 1, 0, 0, -1, 0]
    recall = differences.paired_difference("recall[0]", was, now, "0.1")
    assert (recall.n, recall.drop, recall.baseline, recall.candidate) == (2, 0.5, 1.0, 0.5)


def test_what_should_be_low_is_worse_where_it_is_higher():
    """Catches: a gate that fails a model for being misled less."""
    labels, told = np.zeros(4, int), np.zeros((1, 4), np.float32)
    was = decided([0, 0, 0, 1], labels, attack_probability=told)
    now = decided([0, 1, 1, 1], labels, attack_probability=told)
    worse = differences.paired_difference("undetected_error_rate", was, now, "0.1")
    assert (worse.drop, worse.baseline, worse.candidate) == (0.5, 0.25, 0.75)
    assert differences.paired_difference("coverage", was, now, "0.1").drop == 0


def scored(random, quality, hard):
    """Evidence of one cell whose scores know as much as `quality`, and are of images that are `hard` to tell."""
    labels = np.arange(len(hard)) % 3
    shares = np.exp(quality * np.eye(3)[labels] * (1 - hard)[:, None] + random.normal(size=(len(hard), 3)))
    attack = np.float32(np.round(quality * 0.2 + hard / 2 + random.normal(0, 0.3, len(hard)), 1))  # with ties
    clean = np.float32(np.round(hard / 2 + random.normal(0, 0.3, len(hard)), 1))
    told = np.float32(shares / shares.sum(axis=1, keepdims=True))
    predictions = told.argmax(axis=1)
    return decided(
        predictions, labels, probabilities=told[None], attack_probability=attack[None],
        clean=decided(predictions, labels, attack_probability=clean[None]),
    )  # fmt: skip


def resampled(evidence, rows):
    """The same evidence of other images."""
    clean = evidence.clean
    return decided(
        evidence.predictions[0, rows], evidence.labels[rows], probabilities=evidence.probabilities[:, rows],
        attack_probability=evidence.attack_probability[:, rows],
        clean=decided(
            clean.predictions[0, rows], clean.labels[rows], attack_probability=clean.attack_probability[:, rows]
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "method"),
    [
        *((name, "delta") for name in ("f1", "precision", "recall", "balanced_accuracy", "precision[1]", "f1[2]")),
        *(("detection_auc", "delong"), ("roc_auc", "delong"), ("detection_precision", "delta"), ("brier", "delta")),
    ],
)
def test_the_error_of_a_difference_is_the_bootstraps(metric, method):
    """Catches: two models, or an image's clean and perturbed score, taken for independent; an area upside down."""
    draws, n = np.random.default_rng(11), 600
    hard = draws.random(n)
    was, now = scored(draws, 2.0, hard), scored(draws, 1.5, hard)
    found = differences.paired_difference(metric, was, now, "0.1")
    value = {name: claims.measure(each, "0.1", metric).value for name, each in (("was", was), ("now", now))}
    assert (found.baseline, found.candidate) == (pytest.approx(value["was"]), pytest.approx(value["now"]))
    assert found.drop > 0
    assert (found.method, found.n, found.changes) == (method, n, None)
    samples = [draws.integers(0, n, n) for _ in range(300)]
    drops = [
        differences.paired_difference(metric, resampled(was, rows), resampled(now, rows), "0.1").drop
        for rows in samples
    ]
    assert found.error == pytest.approx(np.std(drops), rel=0.15)
    same = differences.paired_difference(metric, was, was, "0.1")
    assert same.drop == 0
    assert 0 < same.error < 3 / n


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("detection_precision", "the denominator is 0"),
        ("recall[1]", r"recall\[1\] at 0.1"),
        ("loss", "loss: follows from no predictions"),
    ],
)
def test_nothing_to_divide_by_is_no_comparison(metric, said):
    """Catches: 0/0 as a number, or a traceback: a detector that never fires, a class without images."""
    never = np.zeros((1, 2), np.float32)
    one = decided([0, 0], [0, 0], attack_probability=never)
    one = decided([0, 0], [0, 0], attack_probability=never, clean=one)
    with pytest.raises(GateError, match=said):
        differences.paired_difference(metric, one, one, "0.1")


def test_the_same_predictions_are_no_certainty():
    """Catches: an interval of no width, by which any margin passes on three images."""
    same = decided([0, 1, 2], [0, 1, 2])
    assert differences.paired_difference("f1", same, same, "0.1").error > 0.1


# ------------------------------------------------------------------ the decision


def judged(*counts, margin=0.02, n=2000, alpha=0.05, waived=None):
    drops = [PairedDifference(0.9, 0.9 - (b - c) / n, 1, n, changes(b, c, n)) for b, c in counts]
    cells = [GateCell("normal", str(i), "accuracy", margin) for i in range(len(counts))]
    return [row["verdict"] for row in paired_gate.judge(cells, drops, alpha, waived or {})]


def test_every_cell_must_show_it_and_one_cell_is_enough_to_fail():
    """Catches: a gate that averages its cells; a pass that is corrected, or a failure that is not."""
    assert judged((10, 10), (100, 20), (20, 20)) == ["passed", "failed", "passed"]
    fine = (78, 18)  # at p = 0.02: a failure alone, none among ten
    p = float(paired_stats.p_exceeds_margin(*fine, 2000, 0.02))
    assert 0.05 / 10 < p < 0.05
    assert judged(fine) == ["failed"]
    assert judged(fine, *[(10, 10)] * 9) == ["inconclusive"] + ["passed"] * 9
    assert judged(fine, *[(10, 10)] * 9, waived={f"normal:{i}:accuracy": "x" for i in range(1, 10)})[0] == "failed"


def test_simulated_gates_are_the_gate():
    """Catches: a benchmark that measures another rule than the one that ships."""
    draws = np.random.default_rng(4)
    losses, gains = simulated.counts(draws, 40, 600, np.full(3, 0.04), np.full(3, 0.02), 0.5)
    passed, failed = simulated.fates(losses, gains, 600)
    for i in range(40):
        verdicts = judged(*zip(losses[i], gains[i], strict=True), n=600)
        assert ("failed" in verdicts) == failed[i]
        if not failed[i]:
            assert (set(verdicts) == {"passed"}) == passed[i]
    assert 0 < failed.sum() + passed.sum() < 40


def test_the_benchmark_prints_its_tables(capsys):
    assert simulated.main(["paired", "retraining", "--pairs", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("P(fail") >= 3
    with pytest.raises(SystemExit):
        simulated.main(["piared"])


# ------------------------------------------------------------------ recipes


def test_the_t_bound_is_the_prediction_interval():
    """Catches: a confidence bound of the mean, which more and more healthy retrainings fall below."""
    values = np.array([0.91, 0.93, 0.9, 0.94, 0.92, 0.915])
    described = DescrStatsW(values)
    half = described.mean - described.tconfint_mean(0.1)[0]  # t · s / √k
    expected = described.mean - half * math.sqrt(len(values) + 1)  # t · s · √(1 + 1/k)
    assert retraining_stats.prediction_bounds(values[:, None], 0.05, widening=1)[0] == pytest.approx(expected)
    widened = retraining_stats.prediction_bounds(values[:, None], 0.05)[0]
    assert described.mean - widened == pytest.approx(retraining_stats.WIDENING * (described.mean - expected))
    both = retraining_stats.prediction_bounds(np.stack([values, values], axis=1), 0.05)
    assert both[0] == pytest.approx(retraining_stats.prediction_bounds(values[:, None], 0.025)[0])  # Bonferroni


@pytest.mark.parametrize("k", [5, 10, 18])
@pytest.mark.parametrize("seeds", ["normal", "with outliers", "skewed"])
def test_few_accepted_retrainings_keep_their_level(k, seeds):
    """4,000 healthy candidates, eight independent summaries. Catches: Student's t alone, which fails 17 % if skewed."""
    draws, pairs = np.random.default_rng(8), 4000
    values = np.stack([simulated.retrainings(draws, k, 8, 0.0, seeds) for _ in range(pairs)])
    bounds = [retraining_stats.prediction_bounds(each[1:], 0.05) for each in values]
    failed = int((values[:, 0] < np.array(bounds)).any(axis=1).sum())
    assert wilson(failed, pairs).low <= 0.05
    if seeds == "skewed":
        narrow = [retraining_stats.prediction_bounds(each[1:], 0.05, widening=1) for each in values]
        assert (values[:, 0] < np.array(narrow)).any(axis=1).mean() > 0.1


def test_ranks_are_exchangeable():
    """
    Each of k + 1 is the candidate in turn: at most α of them fail, whatever the numbers are.

    Catches: standardising by the accepted alone, which gave 6 to 14 % at a nominal 5.
    """
    draws = np.random.default_rng(5)
    for _ in range(20):
        values = draws.standard_t(2, size=(20, 6))
        p = [retraining_stats.rank_p_value(np.delete(values, i, axis=0), values[i]) for i in range(20)]
        assert (np.array(p) <= 0.05 + 1e-12).sum() <= 1
        assert sorted(np.round(np.array(p) * 20).astype(int)) == list(range(1, 21))  # without ties: each rank once


def test_only_what_is_worse_is_an_alarm():
    """Catches: a two-sided rank, by which an improvement fails; an alarm at what is accepted, or never varies."""
    accepted = np.random.default_rng(6).normal(size=(19, 4))
    assert all(retraining_stats.rank_p_value(accepted, row) >= 0.1 for row in accepted)
    assert retraining_stats.rank_p_value(accepted, np.full(4, 50.0)) > 0.05
    assert retraining_stats.rank_p_value(np.full((19, 2), 0.9), np.full(2, 0.9)) == 1
    bounds = retraining_stats.prediction_bounds(np.full((5, 1), 0.98), 0.05, least=1 / 600)
    assert bounds[0] < 0.98 - 1 / 600  # one image less is no alarm


@pytest.mark.parametrize(
    ("k", "alpha", "enough"), [(19, 0.05, True), (18, 0.05, False), (9, 0.1, True), (99, 0.01, True)]
)
def test_which_k_carries_alpha(k, alpha, enough):
    assert retraining_stats.rank_test_possible(k, alpha) is enough


def test_the_drop_that_a_rank_catches_is_the_one_it_catches():
    accepted = np.random.default_rng(8).normal(0.9, 0.01, size=(19, 3))
    for summary, drop in enumerate(retraining_stats.detectable_drop_by_rank(accepted, 0.05)):
        only = np.arange(3) == summary
        assert retraining_stats.rank_p_value(accepted, accepted.mean(0) - only * (drop + 1e-6)) <= 0.05
        assert retraining_stats.rank_p_value(accepted, accepted.mean(0) - only * (drop - 1e-4)) > 0.05
