"""The table of what the cards claim: that it is what the cards say."""

import re

import pytest

from reports import claims
from reports.commands import DOCS, ROOT
from reports.writing import inserted
from robustness import cards
from robustness.schema import NO_CLAIM

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
    assert {claims.FAMILIES[family] for family in claims.EXPECTED} <= {row[0] for row in rows}
    assert all(row[1] == "not swept" or all(row[2:6]) for row in rows)
