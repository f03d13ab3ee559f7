"""Gates that are run many times on one test set: levels against simulation and sums, and the count of a project."""

import json

import numpy as np
import pytest
from plugin_project import Run
from scipy import special, stats

from benchmarks import gate_sequential as simulated
from robustness.cli.main import main
from robustness.gate import paired_stats, sequential_stats
from robustness.gate.sequential_stats import decide_in_parts, look_level, spending_bounds, spent

LOOKS = '\n[gate]\nkind = "paired"\nmargin = 0.05\nlooks = "unlimited"\n'


def test_levels_of_looks_that_never_reject_add_up_to_alpha():
    """Catches: shares that add up to more than α after many looks; a wrong ζ; a level that comes back after a reset."""
    assert special.zeta(sequential_stats.DECAY) == pytest.approx(sequential_stats.ZETA)
    spent = [look_level([False] * k, 0.05) for k in range(3000)]
    rest = 0.05 * special.zeta(sequential_stats.DECAY, 3001) / sequential_stats.ZETA
    assert sum(spent) + rest == pytest.approx(0.05)
    assert look_level([True] * 2999, 0.05) == pytest.approx(sum(spent))
    assert look_level([True] * 9 + [False], 0.05) == look_level([False] * 10, 0.05)


@pytest.mark.parametrize("true_between", [0, 1, 3])
def test_any_false_rejection_has_probability_alpha_at_most(true_between):
    """Catches: a level that is handed on and kept too, or handed on by looks that did not reject."""
    p = np.random.default_rng(true_between).random((2000, 200))
    false = np.arange(200) % (true_between + 1) > 0  # these always reject
    p[:, false] = 0
    judged = simulated.rejected(p)[1]
    assert judged[:, false].all()
    rate = judged[:, ~false].any(axis=1).mean()
    assert rate < 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5


@pytest.mark.parametrize(
    "published",
    [(2.963, 1.969), (3.710, 2.511, 1.993), (4.333, 2.963, 2.359, 2.014), (4.877, 3.357, 2.680, 2.290, 2.031)],
)
def test_bounds_are_the_published_ones(published):
    """Catches: the bounds of two-sided tests, of other spending functions, or on the scale of the sum."""
    parts = len(published)
    assert spending_bounds([(k + 1) / parts for k in range(parts)], 0.025) == pytest.approx(published, abs=0.001)


@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_parts_of_any_size_spend_what_is_allowed(alpha):
    """Catches: a recursion that holds for equal parts only; a part too early for a bound that loses its share."""
    times = np.array([0.001, 0.31, 0.4, 0.75, 1.0])
    bounds = spending_bounds(times, alpha)
    assert np.isinf(bounds[0])
    finite, z = times[1:], bounds[1:]
    covariance = np.sqrt(np.minimum.outer(finite, finite) / np.maximum.outer(finite, finite))
    for part in range(1, 5):
        inside = stats.multivariate_normal.cdf(
            z[:part], cov=covariance[:part, :part], abseps=1e-7, maxpts=2_000_000, rng=np.random.default_rng(0)
        )
        assert 1 - inside == pytest.approx(spent(times, alpha)[part], rel=5e-3)


@pytest.mark.parametrize("times", [[], [0.5, 0.5], [0.0, 1.0], [0.5, 1.1]])
def test_fractions_that_are_none_are_refused(times):
    """Catches: bounds of parts that are empty, repeated, or more than all."""
    with pytest.raises(ValueError, match="must increase from above 0 to at most 1"):
        spending_bounds(times, 0.05)


def test_one_part_is_the_plain_gate():
    """Catches: another side, correction or level than the gate's own; a pass for some of the cells."""
    losses, gains = np.random.default_rng(0).integers(0, 60, (2, 500, 1, 3))
    verdicts, looked = decide_in_parts(losses, gains, [600], 0.02)
    fails = (paired_stats.p_exceeds_margin(losses, gains, 600, 0.02) <= 0.05 / 3).any(axis=(1, 2))
    passes = (paired_stats.p_within_margin(losses, gains, 600, 0.02) <= 0.05).all(axis=(1, 2))
    assert verdicts.tolist() == np.where(fails, -1, np.where(passes, 1, 0)).tolist()
    assert {-1, 0, 1} == set(verdicts.tolist())
    assert (looked == 1).all()


@pytest.mark.parametrize(("n", "discordance"), [(300, 0.03), (2000, 0.03)])
def test_parts_keep_alpha_and_equal_weights_end_early(n, discordance):
    """Catches: α spent at each part; bounds of the drop at 0; verdicts of a later part than the first that decides."""
    draws = np.random.default_rng(n)
    one = np.full(simulated.CELLS, 1e-9)
    one[0] = simulated.MARGIN
    for drops, wrong in ((np.full(simulated.CELLS, simulated.MARGIN), -1), (one, 1)):
        rate = (simulated.in_parts(draws, 1000, n, discordance, drops)[0] == wrong).mean()
        assert rate < 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5
    nothing = np.zeros((10, 2))
    verdict, parts = decide_in_parts(nothing, nothing, np.arange(1, 11) * n // 10, simulated.MARGIN)
    assert (verdict, parts < 10) == (1, True)
    assert decide_in_parts(nothing, nothing, np.arange(4, 44, 4), simulated.MARGIN)[0] == 0  # too few images


def look_of(run: Run):
    gate = run.report["models"][0]["gate"]
    return gate["outcome"], gate["table"].get("look")


def test_each_other_model_is_a_look_and_the_same_one_is_not(project):
    """Catches: accepted weights or a second run that cost α; changed code around the same weights that costs none;
    a damaged count that begins again in silence; a new baseline that pays for the looks at the old one."""
    project.fill()
    project.run("suites")
    assert main(["baseline", "accept", "report.json", "--model", "tiny"]) == 0
    project.write("models/tiny.toml", project.card.read_text() + LOOKS)
    counted = project.root / "models" / "baselines" / "tiny.looks.json"

    assert look_of(project.run("suites/test_regression.py")) == ("passed", None)
    assert not counted.exists()

    was = "logits = super().forward(inputs)"
    levels = [look_level(earlier, 0.05) for earlier in ([], [False])]
    for number, code in enumerate(["inputs * 0.2 + 0.6", "inputs * 0.9"]):
        now = f"logits = super().forward({code})"
        project.edit(project.net, (was, now))
        for _ in range(2):
            run = project.run("suites/test_regression.py")
            outcome, look = look_of(run)
            assert (outcome == "failed") is (number == 0)
            assert look["number"] == number + 1
            assert look["passing_level"] == pytest.approx(levels[number])
            assert look["failing_level"] == pytest.approx(look_level([True] * number, 0.05))
        was = now
    assert "look 2 at this baseline" in run.report["models"][0]["gate"]["table"]["notes"][-1]
    assert [one["outcome"] for one in json.loads(counted.read_text())["looks"]] == ["failed", outcome]

    counted.write_text(counted.read_text().replace(" ]\n", "<<<<<<<\n ]\n"))
    run = project.run("suites/test_regression.py")
    assert (run.ret, look_of(run)[0]) == (1, "error")
    assert "with the lines of both branches" in run.out

    project.run("suites")
    assert main(["baseline", "accept", "report.json", "--model", "tiny"]) == 0
    counted.write_text(counted.read_text().replace("<<<<<<<", ""))
    project.edit(project.net, (was, "logits = super().forward(inputs * 0.8)"))
    assert look_of(project.run("suites/test_regression.py"))[1]["number"] == 1  # at another accepted model


def test_a_look_that_cannot_be_counted_is_an_error(project):
    """Catches: a verdict that costs no α because its file may not be written."""
    project.fill()
    project.run("suites")
    outside = project.root.parent / f"{project.root.name}-outside.json"
    assert main(["baseline", "accept", "report.json", "--model", "tiny", "--to", str(outside)]) == 0
    project.write("models/tiny.toml", f"{project.card.read_text()}{LOOKS}baseline = '{outside}'\n")
    project.edit(project.net, ("super().forward(inputs)", "super().forward(inputs * 0.9)"))
    run = project.run("suites/test_regression.py")
    assert (run.ret, look_of(run)) == (1, ("error", None))
    assert "outside of its project" in run.out
