"""Gates that are run many times on one test set: levels against simulation and sums, and the count of a project."""

import json

import numpy as np
import pytest
from plugin_project import Run
from scipy import special

from benchmarks import gate_sequential as simulated
from robustness.cli.main import main
from robustness.gate import sequential_stats
from robustness.gate.sequential_stats import look_level

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
