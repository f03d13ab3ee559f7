"""The terminal is quiet about what passed and shows everything that did not."""

from functools import partial

import pytest
from report_runs import CLEAN, NORMAL, STRENGTHS, evidence, judged, load_card_of, outcome, report

from robustness.reporting import terminal
from robustness.reporting.overview import is_quiet
from robustness.reporting.report_types import OUTCOMES, RED

GOOD = evidence(STRENGTHS, (0.99,) * 4)


@pytest.fixture
def load_card(tmp_path):
    return partial(load_card_of, tmp_path)


def test_a_model_that_passed_is_one_line(load_card):
    """Catches: tables on success; -v without tables; a closest claim that is measured by distance alone."""
    card = load_card("[claims.clean]\naccuracy = 0.9\n[claims.normal]\naccuracy = [0.9, 0.9, 0.9, 0.97]\n")
    document = report(card, {"clean": CLEAN, "normal": GOOD})
    lines = list(terminal.terminal(document))
    assert [line.split() for line in lines[2:3]] == [
        ["mlp", "5", "ok", "100", "normal", "0.4", "accuracy", ".990", "≥.97"]
    ]
    assert len(lines) == 6
    assert sum("≥.9" in line for line in terminal.terminal(document, verbose=True)) > 4


@pytest.mark.parametrize("fate", OUTCOMES)
def test_no_outcome_is_silent(load_card, fate):
    """Catches: an outcome that the line leaves out; a red one without its table."""
    card = load_card("[claims.clean]\naccuracy = 0.9\n[claims.normal]\naccuracy = [0.9, 0.8, 0.7, 0.5]\n")
    outcomes = [*judged(card, {"clean": CLEAN, "normal": GOOD})[:-1], outcome(card, 4, fate)]
    document = report(card, {"clean": CLEAN, "normal": GOOD}, outcomes)
    model = document.models[0]
    lines = list(terminal.terminal(document))
    assert is_quiet(model) == (fate not in RED)
    assert any(line.startswith("normal (gaussian") for line in lines) == (fate in RED)
    words = {"passed": "ok  ", "failed": "1 FAILED, 4 ok", "error": "1 ERROR, 4 ok"}
    assert words.get(fate, f"1 {fate}, 4 ok") in lines[2]


def test_a_clean_claim_that_fails_alone_has_a_table(load_card):
    """Catches: no table at all, because the clean row belongs to sweeps that passed."""
    card = load_card("[claims.clean]\naccuracy = 0.999\n[claims.normal]\naccuracy = [0.9, 0.8, 0.7, 0.5]\n")
    lines = list(terminal.terminal(report(card, {"clean": CLEAN, "normal": GOOD})))
    assert sum(line.endswith("FAILED") and line.startswith("clean") for line in lines) == 1
    assert not any(line.startswith("0.1") for line in lines)


def test_a_sweep_that_passed_has_no_table_beside_one_that_failed(load_card):
    """Catches: all tables of a model as soon as one is red."""
    card = load_card("[claims.clean]\naccuracy = 0.9\n[claims.normal]\naccuracy = [0.999, 0.8, 0.7, 0.5]\n")
    document = report(card, {"clean": CLEAN, "normal": NORMAL})
    titles = [line for line in terminal.terminal(document) if line.startswith(("clean", "normal"))]
    assert [line.split()[0] for line in titles] == ["normal", "clean"]  # the title, and the clean row below it


def test_a_doubt_is_never_quiet(load_card):
    """Catches: a model in doubt that is shown as ok alone."""
    card = load_card("[claims.clean]\naccuracy = 0.9\n")
    document = report(card, {"clean": CLEAN})
    assert is_quiet(document.models[0])
    model = document.models[0].model_copy(update={"open_doubts": ["masked gradients"], "doubts": ["masked gradients"]})
    assert not is_quiet(model)
    lines = list(terminal.terminal(document.model_copy(update={"models": [model]})))
    assert "ok, 1 doubt" in lines[2]
    assert any(line.startswith("Doubt: masked gradients") for line in lines)
