"""The gate in a run of the suites: accept, retrain, gate; what is red, what is undecided, what is waived."""

import json
import re

import numpy as np
import pytest

from robustness.cli.main import main
from robustness.metrics.evidence import Evidence
from robustness.reporting.gate_report import GateNumbers, PairedCell
from robustness.reporting.report_types import UNDECIDED
from robustness.workspace.store import Store

GATE = "suites/test_regression.py"
CELLS = ["clean:0:accuracy", "normal:0.3:accuracy", "normal:0.6:accuracy", "uniform:0.5:accuracy"]
PAIRED = '\n[gate]\nkind = "paired"\nmargin = 0.05\n'
TIGHT = '\n[gate]\nkind = "paired"\nmargin = 0.001\n'
WAIVER = '\n[[waivers]]\n{what} = "{named}"\nowner = "eve"\nreason = "known since May"\nexpires = {day}\n'
ACCEPT = ["baseline", "accept", "report.json", "--model", "tiny"]


@pytest.fixture
def gated(project):
    """The tiny project with a run that is accepted as its baseline; `ask` puts a gate in the card."""
    project.fill()
    project.run("suites")
    assert main(ACCEPT) == 0
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


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_model_against_itself_passes(gated, workers):
    """Catches: a gate that no model passes; a table that stays in the worker, or whose keys the schema lacks."""
    run = ask(gated).run("suites", workers)

    assert run.ret == 0, run.out
    assert run.report["verdict"] == "passed"
    gate = gate_of(run)
    assert gate["outcome"] == "passed"
    table = gate["table"]
    assert [cell["cell"] for cell in table["cells"]] == CELLS
    assert {tuple(cell[key] for key in ("losses", "gains", "drop", "mcnemar")) for cell in table["cells"]} == {
        (0, 0, 0.0, 1.0)
    }
    assert table["notes"][0] == "its weights equal those of an accepted model"
    assert re.fullmatch(r"the baseline was accepted on [\d-]+ \([01] days ago\)", table["notes"][1])
    assert "1 gate: 1 passed" in run.summary
    assert GateNumbers.model_fields.keys() == {*table, "rank_p", "decided_by", "k", "strengths", "look"}
    assert PairedCell.model_fields.keys() == table["cells"][0].keys()


@pytest.mark.parametrize("kind", [TIGHT, '\n[gate]\nkind = "retraining"\n'])
def test_an_accepted_model_passes_by_identity_on_forty_images(project, kind):
    """Catches: the accepted file itself called inconclusive, exit code 10, because the images are few."""
    project.edit(project.card, ("per_class = 20", "per_class = 4"))
    project.run("suites")
    assert main(ACCEPT) == 0
    run = ask(project, kind).run(GATE, "--robustness-strict")
    assert run.ret == 0, run.out
    assert "passed by identity" in gate_of(run)["message"]
    assert {cell["verdict"] for cell in gate_of(run)["table"]["cells"]} <= {"passed", "within"}


def test_a_damaged_model_fails(gated):
    """Catches: signs the wrong way round; images not lost; damage passed because the file of weights is accepted."""
    was = clean_predictions(gated)
    run = damage(ask(gated), "inputs * 0.2 + 0.6").run(GATE)
    now = clean_predictions(gated)

    assert run.ret == 1
    gate = gate_of(run)
    assert gate["outcome"] == "failed"
    assert run.report["models"][0]["weights"] in [one["weights"] for one in gate["table"]["baseline"]["models"]]
    assert "predictions differ" in gate["table"]["notes"][0]
    assert not any("retrained" in note for note in gate["table"]["notes"]), "its weights are the accepted ones"
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
    """Catches: the gate's exit code over a failed claim; a fate that is none taken for one of the two."""
    gated.edit(gated.card, ("accuracy = 0.8", "accuracy = 0.999"))
    assert ask(gated, TIGHT).run("suites", "--robustness-strict").ret == 1
    assert "must be red or warning, got 'green'" in gated.run("suites", "--robustness-inconclusive=green").err


def test_what_a_gate_reads_is_swept_before_it_can_be_red(project):
    """Catches: green without a baseline; a gate of sweeps that nothing claims, which every accepted run lacks."""
    text = project.card.read_text().partition("[claims.normal]")[0]
    ask(project.fill()).write("models/tiny.toml", text + PAIRED)
    first = project.run("suites")
    assert first.ret == 1
    assert gate_of(first)["outcome"] == "error"
    assert "is missing; create it: robustness baseline accept run.json --model tiny" in gate_of(first)["message"]
    assert "next: follow the gate's message" in first.summary
    assert main(ACCEPT) == 0
    second = project.run("suites")
    assert (second.ret, gate_of(second)["outcome"]) == (0, "passed")
    assert {cell["sweep"] for cell in gate_of(second)["table"]["cells"]} == {"clean", "normal", "uniform"}


def test_a_baseline_without_a_gated_sweep_is_replaced_by_the_run_that_says_so(gated):
    """Catches: run, accept, run for ever: the run that is refused must hold what is to be accepted."""
    ask(gated)
    gated.edit(gated.card, ("[claims.clean]", '[sweeps.new]\nkind = "uniform"\nstrengths = [0.2]\n\n[claims.clean]'))
    run = gated.run("suites")
    assert "sweeps.new" in gate_of(run)["message"]
    assert main(ACCEPT) == 0
    assert gated.run("suites").ret == 0


def test_a_card_that_asks_for_none_is_not_gated(gated):
    run = gated.run("suites")
    assert run.ret == 0
    assert gate_of(run) is None
    alone = gated.run(GATE)
    assert alone.ret == 1  # nothing else was asked for, and nothing ran
    assert "No selected card has a [gate] table" in alone.summary


@pytest.mark.parametrize(
    ("body", "workers", "said"),
    [("import os; os._exit(3)", "-n2", "crashed"), ("pass", "-n0", "the gate of tiny did not run")],
    ids=["its worker died", "its test is silent"],
)
def test_a_gate_that_was_not_held_is_red(gated, body, workers, said):
    """Catches: a gate that nothing was heard of, its worker dead or its test silent, and a run that is green."""
    gated.write("suites/test_regression.py", f"def test_regression(gate):\n    {body}\n")
    run = ask(gated).run("suites", workers)
    assert run.ret == 1
    assert run.report["verdict"] == "failed"
    assert said in run.out


@pytest.mark.parametrize(
    ("old", "new", "options", "said"),
    [
        ("per_class = 20", "per_class = 19", [], "data.images: 200 and 190"),
        ("strengths = [0.3, 0.6]", "strengths = [0.3, 0.7]", [], "sweeps.normal.strengths: 0.3, 0.6 and 0.3, 0.7"),
        ('kind = "uniform"', 'kind = "gaussian"', [], "sweeps.uniform.perturbation.kind: uniform and gaussian"),
        ("", "", ["--robustness-seed=1"], "seed: 0 and 1"),
    ],
    ids=["images", "strengths", "perturbation", "seed"],
)
def test_unlike_protocols_are_refused(gated, old, new, options, said):
    """Catches: a comparison of other images, or other noise."""
    run = ask(gated.edit(gated.card, (old, new))).run(GATE, *options)
    assert run.ret == 1
    assert said in gate_of(run)["message"]
    assert ("data.labels" in gate_of(run)["message"]) == ("per_class" in old)


@pytest.mark.parametrize(
    ("code", "cells"),
    [("logits = logits / 0 if noisy else logits", 3), ("raise RuntimeError('broken')", 4)],
    ids=["in some cells", "in all"],
)
def test_cells_without_numbers_now_are_an_error(gated, code, cells):
    """Catches: a crash that counts as robust because it is not compared, in some cells or in all."""
    run = ask(gated.on_forward(code)).run(GATE)
    assert run.ret == 1
    assert gate_of(run)["outcome"] == "error"
    assert f"{cells} cell(s) have numbers in the baseline but not now" in gate_of(run)["message"]


def test_a_waived_cell_is_shown_and_not_held(gated):
    """Catches: a waiver that waives more than its cell."""
    waivers = [WAIVER.format(what="cell", named=cell, day="2999-01-01") for cell in CELLS]
    damage(ask(gated, PAIRED + "".join(waivers[:3])), "inputs * 0.2 + 0.6")
    run = gated.run(GATE)
    assert [cell["verdict"] for cell in gate_of(run)["table"]["cells"]][:3] == ["waived"] * 3
    assert "of 1 cells" in gate_of(run)["message"] or "all 1 cells" in gate_of(run)["message"]
    assert "Waiver (in force until 2999-01-01, eve)" in run.out
    ask(gated, waivers[3])
    assert "every cell is waived" in gate_of(gated.run(GATE))["message"]


def test_a_waived_claim_is_green_until_its_day(gated):
    """Catches: a waiver that outlives its day, hides what it waives, or stays in the card where the claim holds."""
    holds = gated.card.read_text()
    fails = holds.replace("accuracy = 0.8", "accuracy = 0.999")

    def run(text, day):
        gated.write("models/tiny.toml", text + WAIVER.format(what="claim", named="clean:0:accuracy", day=day))
        return gated.run("suites")

    waived = run(fails, "2999-01-01")
    assert waived.ret == 0
    assert waived.outcomes["tiny:clean:0:accuracy"] == "waived"
    assert waived.messages[0].endswith("waived by eve until 2999-01-01: known since May")
    assert waived.report["counts"]["waived"] == 1
    assert "6 passed, 1 waived" in waived.summary

    expired = run(fails, "2024-05-01")
    assert expired.ret == 1
    assert expired.outcomes["tiny:clean:0:accuracy"] == "failed"
    assert "is no longer waived by eve until 2024-05-01" in expired.summary

    needless = run(holds, "2024-05-01")
    assert needless.ret == 1
    assert set(needless.outcomes.values()) == {"passed"}


def test_a_warm_gate_needs_neither_torch_nor_scipy(gated):
    """Catches: statistics that make a run on stored evidence wait two seconds for an import."""
    ask(gated)
    code = "import sys\n\ndef test_zz():\n    assert not {'torch', 'scipy', 'sklearn'} & set(sys.modules)\n"
    gated.write("suites/test_zz.py", code)
    run = gated.plain(GATE, "suites/test_zz.py", "-p", "no:hypothesispytest", apart=True)
    assert run.ret == 0, run.out


def test_an_accepted_seed_is_a_retraining(gated, capsys):
    """Catches: seeds that all give the card's own weights. The tiny recipe does not depend on its seed."""
    command = ["baseline", "accept", "--model", "tiny", "--card", "models/tiny.toml", "--seeds"]
    assert main([*command, "1,2"]) == 2
    assert "each model counts once, so train with other seeds" in capsys.readouterr().err
    assert main([*command, "1"]) == 0
    assert len(json.loads((gated.root / "models/baselines/tiny.json").read_text())["accepted"]) == 1
