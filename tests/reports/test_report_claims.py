"""The table of what the cards claim: that it is what the cards say."""

import collections
import re

import pytest

from reports import claims
from reports.paper import DOCS
from reports.writing import ROOT, inserted
from robustness import cards
from robustness.cards.schema import NO_CLAIM

FOLDER = ROOT / "models"


def test_the_committed_page_is_what_the_cards_say():
    text = (DOCS / claims.PAGE).read_text(encoding="utf-8")
    assert inserted(text, claims.MODULE, claims.body(FOLDER)) == text, "run `python -m reports.claims`"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_claim_is_counted_once_and_every_perturbation_has_a_row(path):
    """Counted again from the card's own claims. Catches: a metric left out, a family that silently has no row."""
    card, rows = cards.load(path), list(claims.rows(cards.load(path)))
    counted = sum(int(n) for row in rows for each in row[2:] for n in re.findall(r"(\d+) of \d+", each))
    assert counted == sum(claim.threshold != NO_CLAIM for claim in card.claims())
    assert set(claims.PERTURBATIONS.values()) <= {row[0] for row in rows}
    assert all(row[1] == "not swept" or all(row[2:6]) for row in rows)


def test_the_summary_counts_every_threshold_of_the_four_metrics():
    """Counted again from the tables of the cards on the page. Catches: a sweep in the wrong row, a paper left out."""
    _, head, *tables = f"\n{claims.body(FOLDER)}".split("\n## ")
    summed = [re.split(r" *\| *", line)[1:-1] for line in head.splitlines()[4:] if line.startswith("|")]
    counted = collections.Counter()
    for table in tables:
        for line in table.splitlines():
            family, _, *cells = (re.split(r" *\| *", line)[1:7] + [""] * 6)[:6]
            for metric, cell in zip(claims.METRICS, cells, strict=True):
                counted[family, metric] += int(found[1]) if (found := re.fullmatch(r"(\d+) of \d+", cell)) else 0
    for shown in claims.PERTURBATIONS.values():
        rows = [row[3:] for row in summed if row[2] == shown]
        for i, metric in enumerate(claims.METRICS):
            total = sum(int(re.match(r"\d*", row[i])[0] or 0) for row in rows)
            assert total == counted[shown, metric], (shown, metric)
    assert counted["FGSM", "accuracy"] > 50


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_no_cell_is_empty_without_a_reason(path):
    card = cards.load(path)
    empty = [
        (family, metric) for family in claims.PERTURBATIONS for metric in claims.METRICS
        if not claims.count(card, family, metric) and not claims.reason(card, family, metric)
    ]  # fmt: skip
    assert empty == [], "claim it, or say why not in reports/claims.py:REASONS"
    assert card.file.search or card.name in claims.REASONS


def test_a_reason_is_of_a_card_that_needs_it():
    """Catches: a reason that stays after its card claims everything."""
    for name in claims.REASONS:
        card = cards.load(FOLDER / f"{name}.toml")
        assert not card.file.search or any(
            not claims.count(card, family, metric) for family in claims.PERTURBATIONS for metric in claims.METRICS
        )
