"""The gate in a run of the suites: accept, retrain, gate; what is red, what is undecided, what is waived."""

import json

import numpy as np
import pytest

from robustness.cli.main import main
from robustness.metrics.evidence import Evidence
from robustness.reporting.gate_report import GateNumbers, PairedCell
from robustness.reporting.report_types import UNDECIDED
from robustness.workspace.store import Store

GATE = "suites/test_regression.py"
PAIRED = '\n[gate]\nkind = "paired"\nmargin = 0.05\n'
TIGHT = '\n[gate]\nkind = "paired"\nmargin = 0.001\n'
WAIVER = '\n[[waivers]]\n{what} = "{named}"\nowner = "eve"\nreason = "known since May"\nexpires = {day}\n'


@pytest.fixture
def gated(project):
    """The tiny project with a run that is accepted as its baseline; `ask` puts a gate in the card."""
    project.fill()
    project.run("suites")
    assert main(["baseline", "accept", "report.json", "--model", "tiny"]) == 0
    return project


def ask(project, text=PAIRED):
    project.write("models/tiny.toml", project.card.read_text() + text)
    return project


def damage(project, code):
    """Change what the model computes: its evidence is then made anew."""
    return project.edit(project.net, ("logits = super().forward(inputs)", f"logits = super().forward({code})"))


def clean_predictions(project):
    """Read the clean evidence that the last report names."""
    found = json.loads((project.root / "report.json").read_text())["models"][0]["sweeps"][0]["evidence"]
    return Evidence.from_bytes(Store(project.store).path("evidence", found["key"]).read_bytes())


def gate_of(run):
    return run.report["models"][0]["gate"]


def test_a_model_against_itself_passes(gated):
    """Catches: a gate that no model passes; a table whose counts are not the evidence's."""
    run = ask(gated).run("suites")

    assert run.ret == 0
    assert run.report["verdict"] == "passed"
    gate = gate_of(run)
    assert gate["outcome"] == "passed"
    assert [cell["cell"] for cell in gate["table"]["cells"]] == [
        "clean:0:accuracy", "normal:0.3:accuracy", "normal:0.6:accuracy", "uniform:0.5:accuracy"
    ]  # fmt: skip
    assert {(cell["losses"], cell["gains"], cell["drop"], cell["mcnemar"]) for cell in gate["table"]["cells"]} == {
        (0, 0, 0.0, 1.0)
    }
    assert gate["table"]["notes"] == ["its weights equal those of an accepted model"]
    assert "1 gate: 1 passed" in run.summary


@pytest.mark.parametrize("kind", [TIGHT, '\n[gate]\nkind = "retraining"\n'])
def test_an_accepted_model_passes_by_identity_on_forty_images(project, kind):
    """Catches: the accepted file itself called inconclusive, exit code 10, because the images are few."""
    project.edit(project.card, ("per_class = 20", "per_class = 4"))
    project.run("suites")
    assert main(["baseline", "accept", "report.json", "--model", "tiny"]) == 0
    run = ask(project, kind).run(GATE, "--robustness-strict")
    assert run.ret == 0, run.out
    assert "passed by identity" in gate_of(run)["message"]
    assert {cell["verdict"] for cell in gate_of(run)["table"]["cells"]} <= {"passed", "within"}


def test_the_same_weights_in_other_code_are_no_identity(gated):
    """Catches: a damaged model that passes because its file of weights is the accepted one."""
    run = damage(ask(gated), "inputs * 0.2 + 0.6").run(GATE)
    weights = [one["weights"] for one in gate_of(run)["table"]["baseline"]["models"]]
    assert run.report["models"][0]["weights"] in weights
    assert gate_of(run)["outcome"] == "failed"
    assert "predictions differ" in gate_of(run)["table"]["notes"][0]


def test_a_damaged_model_fails(gated):
    """Catches: a gate that reads the baseline's numbers twice, or the signs the wrong way round; images not lost."""
    was = clean_predictions(gated)
    run = damage(ask(gated), "inputs * 0.2 + 0.6").run(GATE)
    now = clean_predictions(gated)

    assert run.ret == 1
    gate = gate_of(run)
    assert gate["outcome"] == "failed"
    worst = max(gate["table"]["cells"], key=lambda cell: cell["drop"])
    assert worst["losses"] > worst["gains"]
    assert worst["drop"] == pytest.approx((worst["losses"] - worst["gains"]) / worst["n"])
    assert f"at worst {worst['cell']}" in gate["message"]
    clean = gate["table"]["cells"][0]
    labels = was.labels
    right, wrong = was.predictions[0] == labels, now.predictions[0] == labels
    assert clean["losses"] == (right & ~wrong).sum() > len(clean["lost"])
    assert clean["lost"] == np.flatnonzero(right & ~wrong)[: len(clean["lost"])].tolist()
    assert clean["gained"] == np.flatnonzero(~right & wrong).tolist()[: len(clean["gained"])]
    assert f"Gate: lost in {worst['cell']}: images {worst['lost'][0]}, " in run.out
    assert {sweep["name"] for sweep in run.report["models"][0]["sweeps"]} == {"clean", "normal", "uniform"}


@pytest.mark.parametrize(
    ("options", "code", "verdict"),
    [
        ([], 0, "partial"),
        (["--robustness-strict"], UNDECIDED, "failed"),
        (["--robustness-inconclusive=red"], UNDECIDED, "failed"),
        (["--robustness-strict", "--robustness-inconclusive=warning"], 0, "partial"),
    ],
)
def test_inconclusive_is_a_setting(gated, options, code, verdict):
    """Catches: a test set too small to say anything that is called green, or red like a failure."""
    run = damage(ask(gated, TIGHT), "inputs * 0.9").run(GATE, *options)  # two or three images are decided otherwise

    assert run.ret == code
    assert gate_of(run)["outcome"] == "inconclusive"
    assert run.report["verdict"] == verdict
    assert "a model as good passes in 0% of cases" in gate_of(run)["message"]
    needed = gate_of(run)["table"]["cells"][0]["images_needed"]
    assert needed > 200  # more than there are


def test_a_failure_beside_an_undecided_gate_is_a_failure(gated):
    """Catches: the gate's exit code over a failed claim."""
    gated.edit(gated.card, ("accuracy = 0.8", "accuracy = 0.999"))
    assert ask(gated, TIGHT).run("suites", "--robustness-strict").ret == 1


def test_a_fate_that_is_none_is_refused(gated):
    assert "must be red or warning, got 'green'" in ask(gated).run("suites", "--robustness-inconclusive=green").err


def test_a_gate_without_a_baseline_fails_and_says_how_to_make_one(project):
    """Catches: green by absence."""
    run = ask(project.fill()).run("suites")

    assert run.ret == 1
    assert gate_of(run)["outcome"] == "error"
    assert "robustness baseline accept run.json --model tiny" in gate_of(run)["message"]


def test_what_a_gate_reads_is_swept_before_it_can_be_red(project):
    """Catches: a gate of sweeps that nothing claims, whose baseline lacks them however often a run is accepted."""
    text = project.card.read_text().partition("[claims.normal]")[0]
    ask(project.fill()).write("models/tiny.toml", text + PAIRED)
    first = project.run("suites")
    assert first.ret == 1
    assert "is missing; create it: robustness baseline accept" in gate_of(first)["message"]
    assert "next: follow the gate's message" in first.summary
    assert main(["baseline", "accept", "report.json", "--model", "tiny"]) == 0
    second = project.run("suites")
    assert (second.ret, gate_of(second)["outcome"]) == (0, "passed")
    assert {cell["sweep"] for cell in gate_of(second)["table"]["cells"]} == {"clean", "normal", "uniform"}


def test_a_baseline_without_a_gated_sweep_is_replaced_by_the_run_that_says_so(gated):
    """Catches: run, accept, run for ever: the run that is refused must hold what is to be accepted."""
    ask(gated)
    gated.edit(gated.card, ("[claims.clean]", '[sweeps.new]\nkind = "uniform"\nstrengths = [0.2]\n\n[claims.clean]'))
    run = gated.run("suites")
    assert "sweeps.new" in gate_of(run)["message"]
    assert main(["baseline", "accept", "report.json", "--model", "tiny"]) == 0
    assert gated.run("suites").ret == 0


def test_a_card_that_asks_for_none_is_not_gated(gated):
    run = gated.run("suites")
    assert run.ret == 0
    assert gate_of(run) is None
    assert gated.run(GATE).ret == 1  # nothing else was asked for, and nothing ran
    assert "No selected card has a [gate] table" in gated.run(GATE).summary


@pytest.mark.parametrize("arguments", [["-n2"], ["-n0"]])
def test_workers_tell_the_same(gated, arguments):
    """Catches: a table that stays in the worker."""
    run = ask(gated).run("suites", *arguments)
    assert run.ret == 0, run.out
    assert gate_of(run)["outcome"] == "passed"
    assert len(gate_of(run)["table"]["cells"]) == 4


def test_a_gate_whose_worker_died_is_red(gated):
    """Catches: a gate that nothing was heard of, and a run that is green all the same."""
    gated.write("suites/test_regression.py", "import os\n\ndef test_regression(gate):\n    os._exit(3)\n")
    run = ask(gated).run("suites", "-n2")
    assert run.ret == 1
    assert run.report["verdict"] == "failed"


def test_a_test_that_forgets_to_hold_its_gate_is_red(gated):
    gated.write("suites/test_regression.py", "def test_regression(gate):\n    pass\n")
    run = ask(gated).run("suites")
    assert run.ret == 1
    assert "the gate of tiny did not run" in run.summary


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("per_class = 20", "per_class = 19", "data.images: 200 and 190"),
        ("strengths = [0.3, 0.6]", "strengths = [0.3, 0.7]", "sweeps.normal.strengths: 0.3, 0.6 and 0.3, 0.7"),
        ('kind = "uniform"', 'kind = "gaussian"', "sweeps.uniform.perturbation.kind: uniform and gaussian"),
    ],
)
def test_unlike_protocols_are_refused(gated, old, new, said):
    """Catches: a comparison of other images, or other noise."""
    message = gate_of(ask(gated.edit(gated.card, (old, new))).run(GATE))["message"]
    assert said in message
    assert ("data.labels" in message) == ("per_class" in old)


def test_another_seed_is_refused(gated):
    run = ask(gated).run(GATE, "--robustness-seed=1")
    assert "seed: 0 and 1" in gate_of(run)["message"]
    assert run.ret == 1


def test_cells_without_numbers_now_are_an_error(gated):
    """Catches: a crash that counts as robust because it is not compared."""
    gated.edit(gated.net, ("pass  # here", "logits = logits / 0 if noisy else logits"))
    run = ask(gated).run(GATE)
    assert gate_of(run)["outcome"] == "error"
    assert "3 cell(s) have numbers in the baseline but not now" in gate_of(run)["message"]


def test_errors_in_all_cells_are_never_green(gated):
    gated.edit(gated.net, ("pass  # here", "raise RuntimeError('broken')"))
    run = ask(gated).run(GATE)
    assert run.ret == 1
    assert gate_of(run)["outcome"] == "error"


def test_a_waived_cell_is_shown_and_not_held(gated):
    """Catches: a waiver that waives more than its cell."""
    cells = ["clean:0:accuracy", "normal:0.3:accuracy", "normal:0.6:accuracy", "uniform:0.5:accuracy"]
    waivers = [WAIVER.format(what="cell", named=cell, day="2999-01-01") for cell in cells]
    damage(ask(gated, PAIRED + "".join(waivers[:3])), "inputs * 0.2 + 0.6")
    run = gated.run(GATE)
    assert [cell["verdict"] for cell in gate_of(run)["table"]["cells"]][:3] == ["waived"] * 3
    assert "of 1 cells" in gate_of(run)["message"] or "all 1 cells" in gate_of(run)["message"]
    assert "Waiver (in force until 2999-01-01, eve)" in run.out
    ask(gated, waivers[3])
    assert "every cell is waived" in gate_of(gated.run(GATE))["message"]


def test_a_waived_claim_is_green_until_its_day(gated):
    """Catches: a waiver that outlives its day, or that hides what it waives."""
    gated.edit(gated.card, ("accuracy = 0.8", "accuracy = 0.999"))
    before = gated.card.read_text()
    ask(gated, WAIVER.format(what="claim", named="clean:0:accuracy", day="2999-01-01"))
    run = gated.run("suites")
    assert run.ret == 0
    assert run.outcomes["tiny:clean:0:accuracy"] == "waived"
    assert run.messages[0].endswith("waived by eve until 2999-01-01: known since May")
    assert run.report["counts"]["waived"] == 1
    assert "6 passed, 1 waived" in run.summary

    gated.write("models/tiny.toml", before)
    ask(gated, WAIVER.format(what="claim", named="clean:0:accuracy", day="2024-05-01"))
    run = gated.run("suites")
    assert run.ret == 1
    assert run.outcomes["tiny:clean:0:accuracy"] == "failed"
    assert "is no longer waived by eve until 2024-05-01" in run.summary


def test_an_expired_waiver_is_red_where_the_claim_holds(gated):
    """Catches: waivers that nobody ever takes out of the card."""
    run = ask(gated, WAIVER.format(what="claim", named="clean:0:accuracy", day="2024-05-01")).run("suites")
    assert run.ret == 1
    assert set(run.outcomes.values()) == {"passed"}


def test_every_key_of_a_gate_is_described(gated):
    """Catches: keys of the JSON that the report's schema does not know, or knows and are not there."""
    table = gate_of(ask(gated).run(GATE))["table"]
    recipe = {"rank_p", "decided_by", "k", "strengths"}
    assert GateNumbers.model_fields.keys() == {*table, *recipe}
    assert PairedCell.model_fields.keys() == table["cells"][0].keys()


def test_compare_shows_two_runs(gated, capsys):
    """Catches: flips the wrong way round; unlike runs shown side by side."""
    (gated.root / "report.json").rename(gated.root / "first.json")
    gated.edit(gated.net, ("-(means**2).sum(1) / 2", "-(means**2).sum(1) / 4")).run("suites")  # other weights
    capsys.readouterr()
    assert main(["compare", "first.json", "report.json"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("clean:0:accuracy"))
    _, was, now, difference, *_, lost, gained, _ = row.split()
    assert float(now) - float(was) == pytest.approx(float(difference), abs=1e-4)
    assert (int(gained) - int(lost)) / 200 == pytest.approx(float(difference), abs=1e-4)

    other = json.loads((gated.root / "first.json").read_text())
    del other["checksum"]  # as reports of before there was one
    other["models"][0]["seed"], other["models"][0]["data"]["n"] = 7, 12
    (gated.root / "other.json").write_text(json.dumps(other))
    assert main(["compare", "first.json", "other.json"]) == 2
    said = capsys.readouterr().err
    assert "seed: 0 and 7" in said
    assert "data.images: 200 and 12" in said


def test_a_warm_gate_needs_neither_torch_nor_scipy(gated):
    """Catches: statistics that make a run on stored evidence wait two seconds for an import."""
    ask(gated)
    gated.write(
        "suites/test_zz.py",
        "import sys\n\ndef test_zz():\n    assert not {'torch', 'scipy', 'sklearn'} & set(sys.modules)\n",
    )
    run = gated.plain(GATE, "suites/test_zz.py", "-p", "no:hypothesispytest", apart=True)
    assert run.ret == 0, run.out


def test_an_accepted_seed_is_a_retraining(gated, capsys):
    """Catches: seeds that all give the card's own weights. The tiny recipe does not depend on its seed."""
    assert main(["baseline", "accept", "--model", "tiny", "--seeds", "1,2", "--card", "models/tiny.toml"]) == 2
    assert "each model counts once, so train with other seeds" in capsys.readouterr().err
    assert main(["baseline", "accept", "--model", "tiny", "--seeds", "1", "--card", "models/tiny.toml"]) == 0
    assert len(np.atleast_1d(json.loads((gated.root / "models/baselines/tiny.json").read_text())["accepted"])) == 1
