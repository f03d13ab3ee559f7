"""Sweeps without claims: a model without a card, or any card under a profile; and what candidates are judged by."""

import csv
import json
import math
import re
import tomllib

import numpy as np
import pytest
import safetensors.numpy
from plugin_project import CARD

HELD = ("suites", "--robustness-report=report.csv", "--robustness-report=report.md", "--robustness-report=report.json")


@pytest.fixture
def weights(project):
    """The tiny model's weights beside it, as a user has them; the store is filled."""
    project.fill()
    (file,) = (project.store / "weights").glob("??/*.safetensors")
    (project.root / "w.safetensors").write_bytes(file.read_bytes())
    return project.root / "w.safetensors"


@pytest.fixture
def draft(project, weights):
    given = ("--robustness-factory=tiny_net:net", "--robustness-weights=w.safetensors", "--robustness-dataset=digits")

    def run(*arguments):
        return project.run("suites", *given, "--robustness-profile=quick", "--robustness-images=100", *arguments)

    return run


def due_claim(successes, n):
    """Wilson's lower end by its textbook formula, less 0.01, down to three decimals."""
    z, p = 1.959963984540054, successes / n
    low = (p + z * z / (2 * n) - z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    return math.floor((low - 0.01) * 1000) / 1000


def test_a_model_without_a_card_is_measured(project, draft):
    """
    Catches: a green run that claims, a red one for want of claims, the hook's cards run too; suggestions that are off,
    or that guessing would keep.
    """
    run = draft()
    assert run.ret == 0
    assert (run.report["verdict"], run.report["counts"]["measured"], run.report["counts"]["claims"]) == (
        "measured",
        6,
        0,
    )
    (model,) = run.report["models"]
    assert (model["name"], model["data"]["n"], model["not_run"]) == ("w", 100, [])
    assert [sweep["name"] for sweep in model["sweeps"]] == ["clean", "normal", "fgsm", "pgd", "brightness", "blur"]
    claims = tomllib.loads(model["suggested"])["claims"]
    for sweep in model["sweeps"]:
        for i, cell in enumerate(sweep["cells"]):
            found = cell["metrics"]["accuracy"]
            due = due_claim(found["successes"], found["n"])
            if due <= 0.19:  # 0.1 by guessing, and three standard errors of 0.03
                assert sweep["name"] not in claims or claims[sweep["name"]]["accuracy"][i] == "no claim possible"
            else:
                assert claims[sweep["name"]]["accuracy"][i] == pytest.approx(due, abs=1e-9)
    assert "measured: 6 sweeps on 1 model; nothing was claimed" in run.summary
    assert all(line in run.summary for line in model["suggested"].splitlines())
    assert "tested on 100 images: the margin of error of a rate is at most ± 0.096" in run.summary


def test_workers_measure_the_same(project, draft):
    """Catches: sweeps that the controller knows nothing of, in a table or as never run."""
    alone, spread = draft(), draft("-n2")
    assert (spread.ret, spread.report["verdict"]) == (0, "measured")
    one, other = (
        {sweep["name"]: sweep["evidence"]["digest"] for sweep in run.report["models"][0]["sweeps"]}
        for run in (alone, spread)
    )
    assert one == other


def test_a_sweep_without_numbers_is_red(project, draft):
    """Catches: a crash that is measured, claims suggested of what is left of a sweep; green by absence."""
    assert draft().ret == 0
    project.on_forward("if noisy: raise ValueError('boom')")
    run = draft()
    assert (run.ret, run.report["verdict"]) == (1, "failed")
    assert "w under normal has no numbers at 0.1: raised ValueError: boom" in " ".join(run.out.split())
    assert re.search(r"\d of 6 sweeps have no numbers, for instance w:normal", run.report["run"]["problems"][0])
    assert "[claims.normal]" not in run.report["models"][0]["suggested"]
    run = draft("-k", "nothing")
    assert run.ret == 1
    assert "no claim ran. None of the selected tests" in " ".join(run.out.split())


def test_a_profile_runs_its_own_sweeps(project, weights):
    """Catches: a profile that runs the card's own sweeps or claims too."""
    claimed = project.run("suites", "--robustness-profile=quick")
    assert (claimed.ret, claimed.report["verdict"], claimed.outcomes) == (0, "measured", {})
    assert [sweep["name"] for sweep in claimed.report["models"][0]["sweeps"]][1:] == [
        "normal", "fgsm", "pgd", "brightness", "blur",
    ]  # fmt: skip


NONE = '"no claim possible"'
NOTHING = f"[claims.clean]\naccuracy = {NONE}\n\n[claims.normal]\naccuracy = [{NONE}, {NONE}]\n"


@pytest.mark.parametrize("claims", ["", NOTHING])
def test_a_card_that_claims_nothing_is_measured(project, weights, claims):
    """Catches: sweeps that a card asks for and nobody makes; a healthy model that is red for want of claims."""
    text = project.card.read_text().partition("[claims.clean]")[0]
    project.card.write_text(text + claims)
    run = project.run("suites")
    assert (run.ret, run.report["verdict"]) == (0, "measured")
    assert [sweep["name"] for sweep in run.report["models"][0]["sweeps"]] == ["clean", "normal", "uniform"]
    assert "measured: 3 sweeps on 1 model; nothing was claimed" in run.summary
    assert "[claims.clean]" in run.report["models"][0]["suggested"]
    assert "next: put the suggested claims into a card" in run.summary
    strict = project.run("suites", "--robustness-strict")
    assert strict.ret == 1
    assert "failed: tiny has neither claims nor a gate: --robustness-strict fails it" in strict.summary
    assert "next: `pytest suites/` measures its sweeps and prints suggested claims" in strict.summary
    noise = project.run("suites/test_noise.py")
    assert noise.ret == 1
    assert "no claim ran. The cards of tiny have no claims, and no selected test measures their sweeps" in noise.summary
    project.on_forward("if noisy: raise ValueError('boom')")
    broken = project.run("suites")
    assert (broken.ret, broken.report["verdict"]) == (1, "failed")
    assert "next: fix the cells without numbers" in broken.summary


def test_a_card_with_neither_sweeps_nor_claims_is_red(project, weights):
    """Catches: green by absence."""
    project.card.write_text(project.card.read_text().partition("[sweeps.normal]")[0])
    run = project.run("suites")
    assert run.ret == 1
    assert "no claim ran. The cards of tiny have no claims and no sweeps" in " ".join(run.out.split())
    assert "next: `robustness init --claims` writes a card" in run.out
    project.write("models/other.toml", CARD.replace('"tiny"', '"other"', 1))
    both = project.run("suites")
    assert both.ret == 0
    assert "tiny: its card has neither sweeps nor claims, so nothing was tested" in both.summary


def test_a_sweep_of_which_no_claim_is_possible_is_measured_beside_the_others(project, weights):
    """Catches: a sweep left out of the run because its card says honestly that nothing can be claimed of it."""
    project.edit(project.card, ("accuracy = [0.7, 0.5]", 'accuracy = ["no claim possible", "no claim possible"]'),
                 ("precision = [0.7,", 'precision = ["no claim possible",'))  # fmt: skip
    run = project.run("suites", "--robustness-strict")
    assert (run.ret, run.report["verdict"]) == (0, "passed")
    assert (run.report["counts"]["measured"], run.report["models"][0]["not_run"]) == (1, [])
    assert "passed: all 4 claims on 1 model; 1 sweep measured without claims" in run.summary


@pytest.mark.parametrize("quiet", ["-q", "-qq"])
def test_quiet_runs_say_the_verdict(project, quiet):
    """Catches: a run of which -q tells nothing but dots, green, measured and red, or tables too."""
    project.fill()
    run = project.run("suites", quiet)
    assert "passed: all 7 claims on 1 model" in run.out
    assert "accuracy [95 %]" not in run.out
    assert "partial: 7 claims" in project.run("suites/test_clean.py", quiet).out
    assert "measured: 6 sweeps" in project.run("suites", quiet, "--robustness-profile=quick").out
    assert "failed: no claim ran" in project.run("suites", quiet, "-k", "nothing").out
    project.edit(project.card, ("accuracy = 0.8", "accuracy = 0.999"))
    assert "FAILED: 7 claims on 1 model: 6 passed, 1 failed" in project.run("suites", quiet).out


# ------------------------------------------------------------------ candidates


def test_a_candidate_is_judged_and_every_report_says_so(project, weights):
    """Catches: the card's own weights judged; a report that does not say whose numbers it shows; an edited card."""
    state = safetensors.numpy.load(weights.read_bytes())
    state["1.weight"] = np.zeros_like(state["1.weight"])
    safetensors.numpy.save_file(state, project.root / "worse.safetensors")
    text = project.card.read_text()
    run = project.run(*HELD, "--robustness-weights=tiny=worse.safetensors")
    assert run.ret == 1
    assert run.outcomes["tiny:clean:0:accuracy"] == "failed"
    (model,) = run.report["models"]
    assert model["candidate"].endswith("worse.safetensors")
    assert "weights worse.safetensors" in run.summary
    assert re.search(r"robustness: models tiny \(.*worse\.safetensors\)", run.out)
    assert "worse.safetensors" in (project.root / "report.md").read_text()
    rows = list(csv.DictReader((project.root / "report.csv").read_text().splitlines()))
    assert {row["candidate"] for row in rows} == {model["candidate"]}
    assert project.card.read_text() == text
    assert project.logged("trainings") == []
    run = project.run(*HELD, "--robustness-weights=w.safetensors")
    assert (run.ret, set(run.outcomes.values())) == (0, {"passed"})
    assert project.run(*HELD).report["models"][0]["candidate"] is None


# ------------------------------------------------------------------ a project's cards, and its own tests


def test_cards_that_the_project_names(project):
    """Catches: a need for the hook or an option; a table beside which the plugin stays silent."""
    (project.root / "conftest.py").unlink()
    project.fill().write("pyproject.toml", '[tool.robustness]\nmodels = ["models/*.toml"]\n')
    run = project.run("suites")
    assert (run.ret, set(run.outcomes.values())) == (0, {"passed"})
    project.write("pyproject.toml", '[tool.robustness]\nmodels = ["cards/*.toml"]\n')
    run = project.run("suites")
    assert run.ret != 0
    assert "'cards/*.toml' names no file below" in run.out + run.err


MINE = """
def test_mine(sweep):
    evidence = sweep({"kind": "gaussian", "bound": 1.0, "strengths": [0.05, 0.3]})
    assert evidence.strengths == ("0.05", "0.3")
    assert evidence.provenance["perturbation"]["bound"] == 1.0
"""


def test_a_sweep_of_a_table(project):
    """Catches: a table swept as a name, mistakes told by a traceback, evidence that is not kept."""
    run = project.fill().write("test_mine.py", MINE).plain("test_mine.py")
    assert run.ret == 0
    assert len(project.entries()) == len(project.entries(of=project.warm)) + 1
    run = project.write("test_mine.py", MINE.replace("bound", "bund", 1)).plain("test_mine.py")
    assert run.ret == 1
    assert (
        "unknown key 'bund'; allowed: kind, clip, accumulate, source, bound, strengths, unit, early_stop; "
        "did you mean 'bound'?" in run.out
    )
    assert "Traceback" not in run.out


CROSSED = """
import pytest

@pytest.mark.parametrize("name", ["clean", "normal"])
def test_mine(claim, sweep, name):
    claim.check(sweep(name))
"""


def test_a_claim_is_held_to_its_own_sweep_alone(project):
    """Catches: a claim on noise held by clean images; a strength that the other sweep lacks told by a traceback."""
    run = project.fill().write("test_mine.py", CROSSED).run("test_mine.py")
    assert run.ret == 1
    said = "tiny:normal:0.3:accuracy: `check` must get the claim's evidence, sweep(claim.sweep), got that of "
    assert f"{said}tiny:clean" in run.out
    assert "KeyError" not in run.out
    assert "9 failed, 5 passed" in run.out


def test_the_report_is_json_with_a_list_of_claims_for_each_model(project, draft):
    """Catches: names that break the page: a sweep's name may hold what Markdown reads."""
    project.write(
        "pyproject.toml", '[tool.robustness.profiles.odd."a|b <i> ```"]\nkind = "gaussian"\nstrengths = [0.1]\n'
    )
    run = draft("--robustness-profile=odd", "--robustness-report=report.md")
    assert run.ret == 0
    page = (project.root / "report.md").read_text()
    assert '    [claims."a|b <i> ```"]' in page
    assert json.loads((project.root / "report.json").read_text())["verdict"] == "measured"
