"""The worst case over a model's attacks in every form of the report, against counts image by image."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import CLEAN, evidence, load_card_of, report

from robustness.metrics.critical_strength import critical_strengths, worst_case
from robustness.metrics.intervals import wilson
from robustness.perturbations import PERTURBATIONS, strength
from robustness.reporting import terminal
from robustness.reporting.html.page import html_page
from robustness.reporting.markdown_latex import latex_tables, markdown_page
from robustness.reporting.worst_cases import worst_cases

SWEEPS = """
[sweeps.fgsm]
kind = "fgsm"
strengths = [0.1, 0.3]

[sweeps.pgd]
kind = "pgd"
strengths = [0.1, 0.2]

[sweeps.near]
kind = "pgd"
norm = "l2"
strengths = [0.1, 0.2]

[sweeps.decibels]
kind = "fgsm"
unit = "snr"
strengths = [20.0]

[sweeps.gan]
kind = "advgan"
strengths = [0.2]
"""
FGSM = evidence(("0.1", "0.3"), (0.8, 0.7), seed=2)
PGD = evidence(("0.1", "0.2"), (0.7, 0.75), seed=3)  # the weaker at the larger ε
NEAR = evidence(("0.1", "0.2"), (0.5, 0.1), seed=4)
GAN = evidence(("0.2",), (0.6,), seed=5)
SWEPT = {"clean": CLEAN, "fgsm": FGSM, "pgd": PGD, "near": NEAR, "gan": GAN, "decibels": evidence(("20",), (0.0,))}


@pytest.fixture
def card(tmp_path):
    return load_card_of(tmp_path, SWEEPS)


def by_hand(ε, *attacks):
    """Whether each image is right without a perturbation and in every cell of the attacks up to ε."""
    right = CLEAN.predictions[0] == CLEAN.labels
    for attack in attacks:
        for name, predictions in zip(attack.strengths, attack.predictions, strict=True):
            if float(name) <= ε:
                right &= predictions == attack.labels
    return right


def test_worst_case_of_one_norm(card):
    """Catches: another norm, another unit or noise among the attacks; the worst accuracy instead of the worst image."""
    (case,) = report(card, SWEPT, []).models[0].worst_cases
    assert (case.norm, case.attacks) == ("linf", ["fgsm", "pgd", "gan"])
    assert [cell.strength for cell in case.cells] == [0.1, 0.2, 0.3]
    for cell in case.cells:
        right = by_hand(cell.strength, FGSM, PGD, GAN)
        low, high = wilson(int(right.sum()), 100)
        assert (cell.accuracy.value, cell.accuracy.low, cell.accuracy.high) == (right.mean(), low, high)
        alone = [(attack.predictions == attack.labels).mean(1).min() for attack in (FGSM, PGD)]
        assert cell.accuracy.value < min(alone), "else this shows nothing"
    assert report(card, {"clean": CLEAN, "fgsm": FGSM, "near": NEAR}, []).models[0].worst_cases == []
    assert report(card, {"fgsm": FGSM, "pgd": PGD}, []).models[0].worst_cases == []


def test_a_cell_without_numbers_is_never_robust(card):
    """Catches: images of a crashed cell counted as resisting, there or at a larger ε; smaller ones lost with it."""
    crashed = evidence(("0.1", "0.2"), (0.7, 0.0), seed=3, status=("ok", "raised ValueError: no"))
    (case,) = report(card, SWEPT | {"pgd": crashed}, []).models[0].worst_cases
    values = [cell.accuracy.value for cell in case.cells]
    assert values == [by_hand(0.1, FGSM, PGD).mean(), None, None]
    assert {cell.accuracy.note for cell in case.cells[1:]} == {"no numbers of pgd at 0.2"}
    failed = dataclasses.replace(CLEAN, status=("raised ValueError: no",))
    assert report(card, SWEPT | {"clean": failed}, []).models[0].worst_cases == []


def test_an_attack_whose_evidence_is_absent_leaves_the_worst_case_open(card):
    """Catches: the worst case of the other attacks alone, shown as that of all."""
    (case,) = worst_cases(card, SWEPT | {"pgd": None})
    assert case.attacks == ["fgsm", "pgd", "gan"]
    notes = {(cell.accuracy.value, cell.accuracy.note) for cell in case.cells}
    assert notes == {(None, "no numbers of pgd, whose evidence is absent")}


def test_every_form_shows_the_same_numbers(card):
    """Catches: a form without the table, another order of its columns, a note left out."""
    document = report(card, SWEPT, [])
    (case,) = document.models[0].worst_cases
    lines = "\n".join(terminal.terminal(document, verbose=True))
    shown = lines.split("worst case per image over 3 attacks in L∞: fgsm, pgd, gan\n")[1].splitlines()
    page, text, latex = html_page(document), markdown_page(document), latex_tables(document)
    for line, cell, alone in zip(shown[2:], case.cells, (".700 pgd", ".600 gan", ".700 fgsm"), strict=False):
        assert re.split(r"\s{2,}", line)[::2] == [f"{cell.strength:g}", alone]
        assert f"{cell.accuracy.value:.3f}".removeprefix("0") in line
        assert f"{cell.accuracy.value:.4f} [" in text
        assert f"{cell.accuracy.value:.3f} [" in latex
        assert f'<data class="value" value="{cell.accuracy.value}">{cell.accuracy.value:.4f} ' in page
    for form in (lines, page, text, latex.replace(r"\ensuremath{\varepsilon}", "ε")):
        assert "if any of these attacks misleads it at this ε or a smaller one" in " ".join(form.split())


@given(
    rates=st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=1, max_size=4), seed=st.integers(0, 99)
)
def test_the_worst_case_falls_and_is_below_every_attack(rates, seed):
    """Catches: a curve that rises with ε, an image that counts as robust although one attack misleads it."""
    attacks = {
        str(i): evidence([f"{0.1 * (i + 1 + j):g}" for j in range(len(row))], row, seed=seed + i)
        for i, row in enumerate(rates)
    }
    case = worst_case(attacks, CLEAN)
    robust = [case.robust(ε) for ε in case.strengths]
    assert robust == sorted(robust, reverse=True)
    for ε, count in zip(case.strengths, robust, strict=True):
        assert count == by_hand(ε, *attacks.values()).sum()
    for attack in attacks.values():
        critical = critical_strengths(attack, CLEAN)
        assert (case.critical <= critical).all()
        assert ((critical == 0) == (CLEAN.predictions[0] != CLEAN.labels)).all()


@pytest.mark.parametrize("kind", sorted(PERTURBATIONS))
def test_only_attacks_with_a_budget_have_a_ball(kind):
    """Catches: a perturbation whose strength is no radius among the attacks of a worst case."""
    required = {"external": {"library": "foolbox", "attack": "LinfPGD"}, "corruption": {"name": "fog"}}
    perturbation = PERTURBATIONS[kind](**required.get(kind, {}))
    attacks = {"fgsm", "ifgsm", "pgd", "adaptive-pgd", "apgd", "apgd-t", "fab", "square", "autoattack"}
    attacks |= {"advgan", "conditional-advgan"}
    assert (perturbation.ball == "linf") == (kind in attacks)
    if perturbation.ball and "norm" in type(perturbation).model_fields:
        assert type(perturbation)(norm="l2").ball == "l2"
    assert strength.name(0.1) == "0.1"  # names of strengths are their numbers


def test_the_radius_bounds_the_change(card):
    """Catches: a ball that is not the attack's: examples outside of it would make the worst case too bad."""
    import torch
    from helpers import linear

    from robustness.data.images import from_arrays
    from robustness.perturbations.base import Batch

    images = from_arrays(np.random.default_rng(0).random((6, 4, 4)).astype("f4"), [0, 1, 2, 0, 1, 2])
    inputs, labels = torch.from_numpy(images.batch(0, 6)), torch.from_numpy(images.labels.copy())
    for kind in ("fgsm", "ifgsm", "pgd"):
        for norm, order in (("linf", float("inf")), ("l2", 2)):
            attack = PERTURBATIONS[kind](norm=norm)
            drawn = attack.draw(np.random.default_rng(0), (6, 1, 4, 4))
            batch = Batch(linear(images), inputs, labels, None if drawn is None else torch.from_numpy(drawn))
            change = attack.prepare(batch)(0.2, torch.empty_like(inputs)) - inputs
            assert float(torch.linalg.vector_norm(change.flatten(1), order, dim=1).max()) <= 0.2 + 1e-6
            assert attack.ball == norm
