"""The report: its numbers against scikit-learn, what is never shown, and what text from elsewhere cannot do to it."""

import csv
import errno
import io
import json
import math
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from report_runs import (
    CLAIMS,
    CLASSES,
    CLEAN,
    NORMAL,
    RUN,
    STRENGTHS,
    built,
    evidence,
    judged,
    load_card_of,
    outcome,
    report,
)
from sklearn import metrics as sklearn

from robustness.errors import RobustnessError
from robustness.reporting import advice, terminal, writers
from robustness.reporting.report import verdict
from robustness.reporting.report_file import read_report
from robustness.reporting.report_types import OUTCOMES, RED, ReportPart
from robustness.reporting.results import GateOutcome, ModelResult
from robustness.reporting.run_info import Counts, RunInfo, Skip
from robustness.util.hashing import sha256_json
from robustness.util.text import one_line

PAGE = Path(__file__).parents[2] / "docs" / "report.md"
ROOT = Path(__file__).parents[2] / "robustness"


@pytest.fixture
def load_card(tmp_path):
    return partial(load_card_of, tmp_path)


def cells(document, sweep="normal"):
    [found] = [s.cells for s in document.models[0].sweeps if s.name == sweep]
    return found


def rows(document):
    """The words of every row of the terminal's tables, by the row's first word."""
    lines = terminal.terminal(document, verbose=True)
    return {line.split()[0]: re.split(r"\s{2,}", line) for line in lines if line.split()}


# ------------------------------------------------------------------ numbers


@pytest.mark.parametrize("metric", ["accuracy", "precision", "recall", "f1"])
@pytest.mark.parametrize("classes", [CLASSES, ("cat", "dog", "eel", "absent")])
def test_numbers_are_scikit_learns(load_card, metric, classes):
    """Row for row: a table shifted by one strength, or averaged over present classes alone, is another table."""
    labels = np.arange(90) % 3
    draws = np.random.default_rng(0)
    found = replace(
        evidence(STRENGTHS, (1,) * 4, n=90),
        labels=labels,
        classes=classes,
        predictions=np.stack(
            [np.where(draws.random(90) < 0.2 * i, draws.integers(0, 3, 90), labels) for i in range(4)]
        ),
    )
    document = report(load_card(""), {"normal": found})
    for cell, predictions in zip(cells(document), found.predictions, strict=True):
        if metric == "accuracy":
            expected = sklearn.accuracy_score(labels, predictions)
        else:
            average = {"average": "macro", "labels": range(len(classes)), "zero_division": 0}
            expected = getattr(sklearn, f"{metric}_score")(labels, predictions, **average)
        measured = cell.metrics[metric]
        assert measured.value == pytest.approx(expected, abs=1e-12)
        assert measured.low < measured.value <= measured.high
        assert measured.n == 90


def test_loss_and_ratio_are_means_of_the_images(load_card):
    document = report(load_card(), outcomes=[])
    for cell, loss in zip(cells(document), NORMAL.loss, strict=True):
        assert cell.metrics["loss"].value == pytest.approx(loss.mean(), rel=1e-6)
        assert cell.metrics["snr"].value == 9.5
    assert cells(document, "clean")[0].metrics["snr"].value is None
    assert "infinite" in cells(document, "clean")[0].metrics["snr"].note


def test_a_cell_says_what_its_claims_were_told(load_card):
    """The numbers of the tests and those of the tables are the same, claim by claim."""
    document = report(load_card())
    for claim in document.models[0].claims:
        [cell] = [cell for cell in cells(document, claim.sweep) if cell.strength == claim.strength]
        assert claim.numbers == cell.metrics[claim.metric]
        said = {key: getattr(claim, key) for key in ("bound", "threshold", "outcome")}
        assert dict(cell.claims[claim.metric]) == said
    assert [claim.outcome for claim in document.models[0].claims[-2:]] == ["failed", "failed"]


def test_the_document_says_what_it_was_measured_on(load_card):
    model = report(load_card()).models[0]
    assert dict(model.data) == {"name": "ten digits", "n": 100, "fingerprint": "f" * 64}
    assert (model.weights, model.device, model.seed, model.scale) == ("a" * 64, "cpu-avx2", 3, "smoke")
    assert model.sweeps[1].evidence.digest == NORMAL.digest
    assert model.sweeps[1].parameters == {"bound": 1.0}
    assert model.not_run == ["uniform"]


def test_the_order_is_the_cards_whatever_order_workers_end_in(load_card):
    card = load_card()
    outcomes = judged(card, {"clean": CLEAN, "normal": NORMAL})
    backwards = report(card, {"normal": NORMAL, "clean": CLEAN}, outcomes[::-1])
    assert json.dumps(backwards.as_json()) == json.dumps(report(card).as_json())


def test_plain_types_alone(load_card):
    """Catches: NumPy's numbers, tuples, infinities and undecodable file names in the JSON."""
    run = RUN | {"seconds": np.float64(2.5), "problems": ["lost \udc80 byte"]}
    table = {"alpha": np.float32(0.5), "baseline": {"accepted": np.int64(2), "models": ({"root": Path("a")}, math.inf)}}
    result = ModelResult(load_card(), {"normal": NORMAL}, [], GateOutcome("mlp", "passed", "lost \udc80", table))
    document = built([result], run, ("one", "two")).as_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    kept = document["models"][0]["gate"]["table"]
    assert kept == {"alpha": 0.5, "baseline": {"accepted": 2, "models": [{"root": "a"}, None]}}
    assert document["run"]["problems"] == ["lost \\udc80 byte"]
    json.dumps(document, ensure_ascii=False).encode()


# ------------------------------------------------------------------ what has no numbers

SICK = evidence(STRENGTHS, (0.9,) * 4, status=("ok", "non-finite logits for 3 of 100 images", "raised Boom: no", "ok"))


def test_a_cell_with_an_error_shows_its_status_and_no_number(load_card):
    document = report(load_card(), {"clean": CLEAN, "normal": SICK})
    assert [bool(cell.metrics) for cell in cells(document)] == [True, False, False, True]
    assert cells(document)[1].status == "non-finite logits for 3 of 100 images"
    shown = rows(document)
    assert shown["0.2"] == ["0.2", "ERROR"]
    assert shown["0.3"] == ["0.3", "ERROR"]
    assert len(shown["0.1"]) == 8
    last = evidence(STRENGTHS, (0.9,) * 4, status=("ok", "ok", "ok", "raised Boom: no"))
    assert rows(report(load_card(), {"normal": last}, []))["0.4"] == ["0.4", "ERROR"], "nothing is claimed there"
    text = "\n".join(terminal.terminal(document, verbose=True))
    assert "0.2: non-finite logits for 3 of 100 images." in text
    assert "0.3: raised Boom: no." in text
    for line in writers.FORMS[".md"](document).splitlines():
        if line.startswith("| 0.2 "):
            assert line.replace(" ", "") == "|0.2|||||||ERROR|"
    for row in csv.DictReader(io.StringIO(writers.FORMS[".csv"](document))):
        if row["strength"] == "0.2":
            assert row["status"] == "non-finite logits for 3 of 100 images"
            assert not any(row[key] for key in ("value", "low", "high", "n", "successes"))
            assert row["outcome"] == "error"


def test_a_rate_of_nothing_is_a_dash_with_its_reason(load_card):
    found = evidence(STRENGTHS, (1,) * 4, classes=("cat", "dog"))
    found = replace(found, classes=CLASSES)
    card = load_card(
        "[claims.normal]\n'precision[eel]' = [0.5, 0.5, 0.5, 0.5]\n'precision[cat]' = [0.5, 0.5, 0.5, 0.5]"
    )
    told = {"value": math.nan, "low": math.nan, "high": math.nan, "n": 0, "note": "the class has no predictions"}
    outcomes = [outcome(card, i, "passed" if i % 2 else "failed", **({} if i % 2 else told)) for i in range(8)]
    document = report(card, {"normal": found}, outcomes)
    numbers = cells(document)[0].metrics["precision[eel]"]
    assert (numbers.value, numbers.low, numbers.note) == (None, None, "the class has no predictions")
    assert document.models[0].claims[0].numbers.note == "the class has no predictions"
    text = "\n".join(terminal.terminal(document, verbose=True))
    assert re.search(r"normal 0\.1 +precision\[eel\] +— +FAILED", text)
    assert "8 claims on other metrics: 4 passed, the others:" in text
    assert "precision[cat] " not in text.partition("other metrics")[2]
    assert "precision[eel] at 0.1, 0.2, 0.3, 0.4: the class has no predictions." in text
    assert r"| precision\[eel\] | —" in writers.FORMS[".md"](document)


def test_a_class_that_the_data_do_not_have_has_its_reason_for_a_number(load_card):
    """Whoever writes the card finds out at the end of a run, from the report, not from its traceback."""
    card = load_card("[claims.clean]\n'precision[fox]' = 0.9")
    document = report(card, {"clean": CLEAN}, [outcome(card, 0, "error", "no class 'fox'")])
    numbers = cells(document, "clean")[0].metrics["precision[fox]"]
    assert numbers.value is None
    assert "'fox'" in numbers.note


def test_without_evidence_the_claims_alone_speak(load_card):
    card = load_card()
    outcomes = judged(card, {"clean": CLEAN, "normal": NORMAL})
    document = report(card, {"clean": CLEAN, "normal": None}, outcomes)
    assert cells(document)[0].metrics.keys() == {"accuracy", "precision"}
    assert cells(document)[0].metrics["accuracy"] == cells(report(card))[0].metrics["accuracy"]
    assert document.models[0].sweeps[1].evidence is None
    assert rows(document)["0.1"] == ["0.1", ".900 [.826, .945] ≥.85", ".903 ≥.85", "ok"]
    notes = list(terminal.terminal(document, verbose=True))
    assert "The evidence was not stored, so the table shows what the claims measured." in notes
    assert report(card, {}, outcomes).models[0].data.as_json() == {"name": "ten digits", "n": 100, "fingerprint": None}


def test_a_sweep_without_any_number_is_a_sentence(load_card):
    card = load_card()
    skipped = [outcome(card, i, "skipped", "no digits; get it with: fetch digits") for i in range(8)]
    document = report(card, {}, skipped)
    lines = list(terminal.terminal(document, verbose=True))
    assert "normal (gaussian, bound 1.0): no numbers; claims: 6 skipped, 2 no claim possible" in lines
    assert len(lines) < 11
    assert document.models[0].data.n is None


# ------------------------------------------------------------------ verdict and counts


@pytest.mark.parametrize("fate", OUTCOMES)
def test_one_outcome_decides(load_card, fate):
    card = load_card("[claims.clean]\naccuracy = 0.9\nrecall = 0.9")
    document = report(card, {"clean": CLEAN}, [outcome(card, 0), outcome(card, 1, fate)])
    expected = {"passed": "passed", "waived": "passed", "skipped": "partial"}.get(fate, "failed")
    assert document.verdict == expected
    assert document.counts.claims == 2


@pytest.mark.parametrize(
    ("fates", "run", "expected"),
    [
        (("passed", "passed"), {"complete": False}, "partial"),
        (("passed",), {}, "partial"),  # the other claim was not selected
        (("passed", "passed"), {"problems": ["a worker died"]}, "failed"),
        (("skipped", "skipped"), {"problems": ["all skipped"]}, "failed"),
        (("skipped", "skipped"), {}, "failed"),
        ((), {}, "failed"),
    ],
)
def test_nothing_is_green_by_absence(load_card, fates, run, expected):
    card = load_card("[claims.clean]\naccuracy = 0.9\nrecall = 0.9")
    document = report(card, {"clean": CLEAN}, [outcome(card, i, f) for i, f in enumerate(fates)], run=RUN | run)
    assert document.verdict == expected
    if "problems" not in run and expected == "failed":
        assert document.run.problems == ["no claim ran"]


def test_a_run_without_models_is_red():
    assert built([]).verdict == "failed"
    assert list(terminal.terminal(built([]))) == []


def test_counts_add_up(load_card):
    fates = ["passed", "failed", "error", "vacuous", "skipped", "not run", "skipped"]  # one claim is not selected
    results = []
    for name in ("one", "two"):
        card = load_card(name=name)
        outcomes = [outcome(card, i, fate, f"reason {i % 2}") for i, fate in enumerate(fates)]
        results.append(ModelResult(card, {}, outcomes))
    counts = built(results).counts
    assert counts.claims == 16
    assert counts.not_selected == 2
    for key in ("claims", "not selected", *OUTCOMES):
        assert counts.of(key) == sum(model.of(key) for model in counts.models)
    assert sum(counts.of(key) for key in ("not selected", *OUTCOMES)) == counts.claims
    assert sum(skip.claims for skip in counts.skips) == counts.skipped == 4
    assert counts.skips[0] == Skip(model="one", reason="reason 0", claims=2)


def test_red_is_everything_but_held_waived_and_skipped():
    assert {*RED, "passed", "waived", "skipped"} == set(OUTCOMES)
    assert verdict(Counts(claims=0, models=[], skips=[]), RunInfo(**RUN)) == "passed"


# ------------------------------------------------------------------ tables


def test_picture(load_card):
    """The table in the documentation is the one that is made."""
    document = report(load_card(), {"clean": CLEAN, "normal": SICK})
    shown = "\n".join([*terminal.terminal(document), *terminal.summary(document)])
    assert f"```text\n{shown}\n```" in PAGE.read_text(encoding="utf-8"), shown


def test_marks(load_card):
    card = load_card()
    outcomes = [outcome(card, i, fate) for i, fate in enumerate(["passed", "passed", "passed", "failed", "vacuous"])]
    shown = rows(report(card, outcomes=outcomes))
    assert {name: row[-1] for name, row in shown.items() if name in ("clean", *STRENGTHS)} == {
        "clean": "ok",
        "0.1": "FAILED",  # the worse of two
        "0.2": "vacuous",
        "0.3": "not selected",
        "0.4": "no claim possible",
    }
    assert shown["0.3"][2] == ".550 [.452, .644]"  # a threshold that was not tried is not shown


def test_a_missed_threshold_is_seen_to_be_missed(load_card):
    """0.8496 is 0.850 in three decimals, and would look as if it had reached 0.85."""
    found = evidence(STRENGTHS, (0.8496, 0.8, 0.7, 0.1), n=2500)
    shown = rows(report(load_card(), {"clean": CLEAN, "normal": found}))
    assert shown["0.1"][2].startswith(".8496 [")
    assert shown["0.1"][2].endswith("<.85")
    assert shown["0.2"][2].endswith("≥.8")
    assert shown["clean"][6] == ".505 >.5"


@pytest.mark.parametrize("width", [100, 80, 60, 30])
def test_nothing_is_wider_than_the_terminal(load_card, width):
    thresholds = "[claims.normal]\n" + "".join(
        f"{metric} = [0.8543, 0.8012, 0.6034, 'no claim possible']\n" for metric in ("accuracy", "precision", "recall")
    )
    document = report(load_card(thresholds, description="x" * 300), {"clean": CLEAN, "normal": NORMAL})
    lines = list(terminal.terminal(document, width, verbose=True))
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert ("Columns that do not fit: loss" in text) == (width < 100)
    if width >= 60:
        assert ".8012" in text  # what is claimed goes last
        assert "no claim possible" in text
    if width == 100:
        assert all(len(line.split("  ")) > 7 for line in lines if line.startswith("0."))


def test_what_is_claimed_is_left_out_last(load_card):
    document = report(load_card("[claims.normal]\nloss = [0.9, 0.9, 0.9, 0.9]"), {"normal": NORMAL})
    text = "\n".join(terminal.terminal(document, 60, verbose=True))
    assert "≤.9" in text
    assert "Columns that do not fit: F1, SNR dB, recall" in text


def test_doubts_and_notes_are_sentences_below(load_card):
    """Catches: a doubt or a note that one of the forms leaves out."""
    doubtful = evidence(("0",), (0.97,), doubts=["non-deterministic forward", "labels look shuffled"])
    noted = evidence(STRENGTHS, (0.9,) * 4, notes={"0.3": "ratio not reached for 2 images"})
    document = report(load_card(), {"clean": doubtful, "normal": noted})
    assert "0.3: ratio not reached for 2 images." in list(terminal.terminal(document, verbose=True))
    for text in ("\n".join(terminal.terminal(document, 500, verbose=True)), writers.FORMS[".md"](document)):
        assert "Doubt: non-deterministic forward: two clean passes over the same images gave different logits" in text
        assert "Doubt: labels look shuffled." in text


# ------------------------------------------------------------------ summary


def summary(document):
    lines = list(terminal.summary(document))
    assert 2 <= len(lines) <= 6
    return lines


def test_a_green_run_names_its_closest_claim(load_card):
    card = load_card("[claims.normal]\naccuracy = [0.7, 0.7, 0.5, 0.37]\nloss = [0.9, 0.9, 0.9, 0.9]")
    found = {"normal": NORMAL}
    held = [replace(o, outcome="passed") for o in judged(card, found)]
    lines = summary(report(card, found, held))
    assert lines[0] == "passed: all 8 claims on 1 model"
    numbers = {o.claim.id: (o.claim.threshold, o.numbers) for o in held}
    apart = {name: abs(n["value"] - t) / ((n["high"] - n["low"]) / 2) for name, (t, n) in numbers.items()}
    nearest = min(apart, key=apart.get)
    assert lines[-1].startswith(f"closest to its threshold: {nearest}: {numbers[nearest][1]['value']:.4f}, claimed at ")
    assert lines[-1].endswith(f", {apart[nearest]:.2g} half-widths of its interval away")
    by_ratio = {name: abs(n["value"] - t) / t for name, (t, n) in numbers.items()}
    assert min(by_ratio, key=by_ratio.get) != nearest  # what was said before named another claim


def test_what_is_held_within_noise_is_counted_on_the_first_screen(load_card):
    """Catches: a threshold inside the interval that only the page's table of all claims tells."""
    card = load_card("[claims.normal]\naccuracy = [0.88, 0.7, 0.54, 'no claim possible']")
    document = report(card, {"normal": NORMAL})
    due = sum(
        o.outcome == "passed" and o.numbers["low"] <= o.claim.threshold <= o.numbers["high"]
        for o in judged(card, {"normal": NORMAL})
    )
    said = f"{due} of 3 passed claims have their threshold inside the measured interval"
    assert due == 2
    assert said in summary(document)
    assert said in writers.FORMS[".md"](document)
    assert said in writers.FORMS[".html"](document)


def test_claims_alone_are_counted_among_other_metrics(load_card):
    """Catches: "no claim possible" counted as a claim on another metric."""
    card = load_card('[claims.normal]\nbalanced_accuracy = [0.6, 0.5, "no claim possible", "no claim possible"]')
    document = report(card, {"normal": NORMAL})
    assert "2 claims on other metrics: 2 passed." in list(terminal.terminal(document, verbose=True))


PREREQUISITE = """
[claims.clean]
accuracy = 0.9

[claims.normal]
attack_success_rate = [0.3, 0.4, 0.6, 0.8]
"""


def test_what_fell_with_a_prerequisite_stands_under_it_once(load_card):
    """Catches: "0.1250 where at most 0.688 is claimed"; four reds of one cause, each as if it were its own."""
    card = load_card(PREREQUISITE)
    clean = evidence(("0",), (0.8,))
    found = {"clean": clean, "normal": replace(evidence(STRENGTHS, (0.75, 0.7, 0.6, 0.5)), clean=clean)}
    document = report(card, found)
    claims_ = document.models[0].claims
    assert [claim.outcome for claim in claims_] == ["failed"] * 5
    assert [claim.prerequisite for claim in claims_] == [None] + ["mlp:clean:0:accuracy"] * 4
    names = ", ".join(f"normal:{s}:attack_success_rate" for s in STRENGTHS)
    said = f"4 claims depend on it and fail with it: {names}"
    page = writers.FORMS[".html"](document).partition('<section id="red">')[2].partition("</section>")[0]
    assert page.count("<li>") == 1
    assert page.count("4 claims depend on it") == 1
    assert ", claimed " in page
    assert "at most" not in page
    assert " ".join(terminal.terminal(document, 500, verbose=True)).count(said) == 1
    assert "4 claims on other metrics: 0 passed, 4 fell with another claim." in list(
        terminal.terminal(document, verbose=True)
    )
    text = writers.FORMS[".md"](document)
    assert text.count("4 claims depend on it") == 1
    assert text.count("**FAILED**") == 1
    # Where the clean claim was not selected, the first that fell says why, in its own words.
    alone = report(card, found, judged(card, found)[1:])
    page = writers.FORMS[".html"](alone).partition('<section id="red">')[2].partition("</section>")[0]
    assert "but that counts only with a clean accuracy of at least 0.9, and it is 0.8000" in page
    assert "3 claims depend on it" in page


# ------------------------------------------------------------------ what to do next


def test_every_cause_that_the_program_names_has_a_step():
    """Catches: a cause without advice, which would be a KeyError at the end of a run; advice that nothing leads to."""
    told = "".join((ROOT / file).read_text() for file in ("plugin/problems.py", "plugin/measured.py"))
    used = set(
        re.findall(
            r'(?:yield|return|\[)[\s(]*"([a-z ]+)",', told.partition("def causes")[2].partition("def undecided")[0]
        )
    )
    assert {"no card", "no gate", "waiver expired", "nothing swept", "no test selected"} < used
    assert used <= set(advice.STEPS)
    assert set(advice.GATES.values()) | set(RED) <= set(advice.STEPS)
    source = told + (ROOT / "reporting" / "advice.py").read_text()
    for cause in set(advice.STEPS) - set(RED):
        assert source.count(f'"{cause}"') >= 2, cause


@pytest.mark.parametrize("cause", advice.STEPS)
def test_advice_fits_its_cause(load_card, cause):
    """Catches: "get what is missing" after doubts, after -k, after cards without claims."""
    document = report(load_card("[claims.clean]\naccuracy = 0.9"), {"clean": CLEAN})
    document.verdict, document.run.causes, document.run.problems = "failed", [cause], ["a problem"]
    step = " ".join(advice.STEPS[cause].format(claim="").split())
    assert summary(document)[-1] == f"next: {step}"
    assert ("get the" in step) == (cause in ("skipped", "gate skipped"))


@pytest.mark.parametrize("fate", RED)
def test_every_red_outcome_has_a_next_step(load_card, fate):
    card = load_card("[claims.clean]\naccuracy = 0.9")
    document = report(card, {}, [outcome(card, 0, fate)])
    said = {"vacuous": f"raise the threshold of {card.name}:clean:0:accuracy ", "failed": "--lf", "error": "--lf -n 0"}
    assert summary(document)[-1].startswith("next: ")
    assert said.get(fate, "-n 0") in summary(document)[-1]
    assert summary(document)[0] == f"FAILED: 1 claim on 1 model: 1 {fate}"


def test_a_summary_stays_short(load_card):
    results = []
    for i in range(9):
        card = load_card("[claims.clean]\naccuracy = 0.9", name=f"mlp{i}")
        results.append(ModelResult(card, {}, [outcome(card, 0, "skipped", "no MNIST\nget it with: robustness data")]))
    document = built(results, RUN | {"problems": ["all 9 claims were skipped", "b"]}, [f"notice {i}" for i in range(5)])
    lines = summary(document)
    assert lines[0] == "FAILED: 9 claims on 9 models: 9 skipped"
    assert lines[1] == "failed: all 9 claims were skipped; b"
    models = ", ".join(f"mlp{i}" for i in range(9))
    assert lines[2] == f"skipped: 9 claims of {models}: no MNIST get it with: robustness data"
    assert lines[4] == "and 4 more skips and notices, in the report files"
    page = writers.FORMS[".md"](document)
    assert f"skipped: 9 claims of {models}" in page
    assert all(f"notice {i}" in page for i in range(5))


# ------------------------------------------------------------------ files

HOSTILE = r"a|b<script>alert(1)</script> `_*{x}%&#$~^\ @all ~~y~~ " + "x" * 300


def hostile(load_card):
    sweep = r"=s|<b>_{"
    claimed = CLAIMS.replace("claims.normal", f"claims.'{sweep}'") + "'recall[d|<i>g]' = [0.5, 0.5, 0.5, 0.5]\n"
    card = load_card(claimed, sweep=sweep, description=HOSTILE)
    # No card may be called so; a report may, that was edited.
    card = replace(card, file=card.file.model_copy(update={"name": HOSTILE}))
    bad = "-new\nline | \x1b[31m<img src=x onerror=y>\u202e" + "y" * 300
    sick = evidence(STRENGTHS, (0.9,) * 4, status=("ok", bad, "ok", "ok"), notes={"0.1": bad}, doubts=[bad])
    sick = replace(sick, classes=("cat", "d|<i>g", "eel"))
    sick.provenance["images"]["name"] = bad
    outcomes = [outcome(card, i, "failed", bad) for i in range(12)]
    return report(card, {"clean": CLEAN, sweep: sick}, outcomes, run=RUN | {"problems": [bad]}, notices=[bad])


def test_markdown_numbers_are_the_documents(load_card):
    document = report(load_card())
    found = {"clean": cells(document, "clean")[0]} | {cell.strength: cell for cell in cells(document)}
    table = [line.split("|")[1:-1] for line in writers.FORMS[".md"](document).splitlines() if line.startswith("|")]
    clean = found["clean"].metrics["accuracy"]
    assert [entry.strip() for entry in table[2]][:2] == ["mlp", "3 FAILED, 5 ok"]
    assert [float(number) for number in re.findall(r"[\d.]+", table[2][2])] == pytest.approx(
        [clean.value, clean.low, clean.high], abs=5.1e-5
    )
    header, body = [entry.strip() for entry in table[3]], table[5:]
    assert header == ["V", "SNR dB", "accuracy", "precision", "recall", "F1", "loss", "verdict"]
    assert [row[0].strip() for row in body] == ["clean", *STRENGTHS]
    for row in body:
        cell = found[row[0].strip()]
        for metric, entry in zip(("accuracy", "precision", "recall", "f1", "loss"), row[2:-1], strict=True):
            numbers = cell.metrics[metric]
            parts = [float(part) for part in re.findall(r"[\d.]+", entry)]
            assert parts[:3] == pytest.approx([numbers.value, numbers.low, numbers.high], abs=5.1e-5)
            threshold = cell.claims[metric].threshold if metric in cell.claims else None
            assert parts[3:] == ([] if threshold is None else [threshold])


@pytest.mark.parametrize("make", [lambda load: report(load()), hostile])
def test_csv_is_the_document(load_card, make):
    document = make(load_card)
    text = writers.FORMS[".csv"](document)
    assert text.splitlines()[0] == (
        "model,scale,data,images,seed,device,sweep,kind,unit,strength,status,"
        "metric,value,low,high,method,n,successes,note,bound,threshold,outcome,candidate"
    )
    found = iter(csv.DictReader(io.StringIO(text, newline="")))
    for sweep in document.models[0].sweeps:
        for cell in sweep.cells:
            for metric in dict.fromkeys((*cell.metrics, *cell.claims)):
                row = next(found)
                assert row["model"] == one_line(document.models[0].name)
                assert row["sweep"].removeprefix("'") == sweep.name
                assert (row["strength"], row["metric"]) == (cell.strength, metric)
                assert row["status"].removeprefix("'") == one_line(cell.status)
                for key, value in {**dict(cell.number(metric)), **dict(cell.claims.get(metric, ()))}.items():
                    assert row[key] == ("" if value is None else one_line(value))
                assert not any(value[:1] in ("=", "@", "+") for value in row.values())
    assert next(found, None) is None
    assert all(line.isprintable() for line in text.splitlines())


def test_hostile_names_break_no_markdown(load_card):
    page = writers.FORMS[".md"](hostile(load_card))
    assert not re.search("<(?!!)", page)
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert not re.search(r"(?<!\\)[@$~]|@\w", page), "nobody is notified, nothing is crossed out or set as a formula"
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in table] == [8] * 3 + [9] * 7 + [6] * 6
    for line in page.splitlines():
        assert re.match(r"$|#{1,3} |- |\||\*|Run: ", line), line


def test_hostile_names_break_no_terminal(load_card):
    document = hostile(load_card)
    lines = [*terminal.terminal(document, verbose=True), *terminal.summary(document)]
    assert all(line.isprintable() for line in lines)


def test_hostile_names_break_no_latex(load_card):
    text = writers.FORMS[".tex"](hostile(load_card))
    bare = re.sub(r"\\[&%$#_{}\\]|\\ensuremath\{[<>]\}", "", text)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    lines = bare.splitlines()
    assert lines[0].startswith("%")
    assert not any(set(line) & set("%$#_^~<>") for line in lines[1:])
    assert {line.count("&") for line in lines if "&" in line} == {7}
    assert set(re.findall(r"\\([a-z]+)", "\n".join(lines[1:]))) <= {
        *("begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule", "ensuremath"),
        *("geq", "leq", "textbackslash", "textasciitilde", "textasciicircum"),
    }
    assert not set("≥≤ε") & set(text)


def test_every_table_says_what_it_was_measured_on(load_card):
    document = report(load_card())
    origin = "ten digits, n = 100, seed 3, cpu-avx2, smoke scale"
    assert f"mlp on {origin}" in list(terminal.terminal(document, verbose=True))
    assert writers.FORMS[".md"](document).count(f"*mlp on {origin}; ") == 1
    assert origin in writers.FORMS[".tex"](document)
    for row in csv.DictReader(io.StringIO(writers.FORMS[".csv"](document))):
        said = [row[key] for key in ("data", "images", "seed", "device", "scale")]
        assert said == ["ten digits", "100", "3", "cpu-avx2", "smoke"]


def test_json_is_the_document(load_card, tmp_path):
    document = hostile(load_card)
    path = tmp_path / "new" / "folder" / "report.JSON"
    writers.write(document, path)
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found.pop("checksum") == sha256_json(document.as_json())
    assert found == document.as_json()


@pytest.mark.parametrize("name", ["report.pdf", "report", ".md/", "folder.json", "file.txt/report.md"])
def test_what_cannot_be_written_is_said_before_the_run(tmp_path, name):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file.txt").touch()
    with pytest.raises(RobustnessError, match=r"\.md, \.json, \.csv, \.tex, got|a folder"):
        writers.check(tmp_path / name)


@pytest.mark.parametrize("suffix", writers.FORMS)
@pytest.mark.parametrize("step", [(os, "fsync"), (Path, "replace")], ids=["writing", "renaming"])
def test_written_whole_or_not_at_all(load_card, tmp_path, monkeypatch, suffix, step):
    path = tmp_path / f"report{suffix}"
    path.write_text("the last one")

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*step, full)
        with pytest.raises(RobustnessError, match="No space left on device"):
            writers.write(report(load_card()), path)
    assert path.read_text() == "the last one"
    assert not list(tmp_path.glob(".writing*"))
    writers.write(report(load_card()), path)
    assert "mlp" in path.read_text(encoding="utf-8")


def test_others_may_read_it_and_a_link_stays_one(load_card, tmp_path):
    """CI collects reports as another user than the one that ran; a temporary file is for its owner alone."""
    (tmp_path / "there").mkdir()
    link = tmp_path / "latest.md"
    link.symlink_to(tmp_path / "there" / "report.md")
    before = os.umask(0o022)
    try:
        writers.write(report(load_card()), link)
    finally:
        os.umask(before)
    assert link.is_symlink()
    assert stat.S_IMODE((tmp_path / "there" / "report.md").stat().st_mode) == 0o644


def test_reports_import_nothing_slow():
    code = (
        "import sys; from robustness.reporting import build, run_info, writers, terminal;"
        f"d = build.build([], run_info.RunInfo(**{RUN}), []);"
        "[form(d) for form in writers.FORMS.values()];"
        "print(sorted({'torch', 'sklearn', 'scipy', 'tabulate', 'pytest'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ------------------------------------------------------------------ documentation


def parts(value):
    """Every table of a report, those in lists and under names too."""
    if isinstance(value, ReportPart):
        yield value
        yield from parts(list(dict(value).values()))
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from parts(each)


def test_a_run_writes_every_key_that_is_documented_and_no_other(load_card, tmp_path):
    """Catches: a key that no run writes, or that a run writes and neither the schema nor the reference knows."""
    waiver = '[[waivers]]\nclaim = "clean:0:loss"\nowner = "eve"\nreason = "known"\nexpires = 2999-01-01\n'
    card = load_card(CLAIMS + waiver)
    outcomes = judged(card, {"clean": CLEAN, "normal": NORMAL})
    outcomes[0] = replace(outcomes[0], outcome="skipped")
    doubtful = evidence(("0",), (0.97,), doubts=["a doubt"])
    part = {
        "number": 1,
        "started": "2024-05-01",
        "seconds": 1.0,
        "device": "cpu",
        "workers": 1,
        "complete": True,
        "exit": 0,
    }
    models = [{"name": "mlp", "card": "", "cost": 1, "shard": 1}]
    shard = {"number": 1, "of": 1, "plan": "", "asked": {"seed": 0}, "models": models}
    run = RUN | {
        "problems": ["a problem"],
        "causes": ["doubt"],
        "exit": 1,
        "shard": shard,
        "shards": [part],
        "commit": "1f0c",
        "ci": "https://ci",
    }
    # As in a run, where each sweep has the clean pass beside it.
    beside = replace(NORMAL, clean=doubtful)
    card.file.doubts["zero gradients"] = "a reason"
    document = report(card, {"clean": doubtful, "normal": beside}, outcomes, run=run, notices=["a notice"])
    writers.write(document, tmp_path / "run.json")
    found = read_report(tmp_path / "run.json")
    assert found.as_json() == document.as_json()
    rare = {"deviation", "checksum", "pictures", "gate", "caught", "candidate"}
    for part in parts(found):
        assert not part.model_extra, type(part)
        unset = type(part).model_fields.keys() - part.model_fields_set - rare
        assert not unset or not part.model_fields_set, (type(part), unset)
