"""Evidence of a sweep that stopped early, beside that of all images."""

from dataclasses import replace

import helpers
from helpers import open_workspace

from robustness import cards, claims

CARD = (
    helpers.CARD.replace("per_class = 3", "per_class = 30").replace(
        'factory = "{module}:factory"\n\n[recipe]\ncallable = "{module}:recipe"',
        'factory = "{module}:factory"\nseed = 1',
    )
    + "early_stop = true\n\n[claims.clean]\naccuracy = 0.2\n\n[claims.normal]\naccuracy = [0.9, 0.8]\n"
)


def test_whoever_needs_every_image_gets_it(tmp_path):
    """Catches: a part in place of all images, all images that do not serve a claim, one key for both."""
    path = helpers.project(tmp_path / "project", card=CARD)
    made, card = open_workspace(path), cards.load(path)
    part = made.evidence_for_claims(card, "normal", claims.decide)
    tried = part.provenance["tried"]
    assert part.stopped
    assert 0 < tried < 300
    assert part.clean is not None
    assert not part.clean.stopped
    asked = open_workspace(path)
    read = asked.evidence_for_claims(card, "normal", lambda some, evidence: 1 / 0)  # from the store
    assert read.digest == part.digest
    key = read.provenance["key"]
    assert key == asked.stopped_key(card, "normal") != asked.key(card, "normal")
    cached = asked.cached_evidence(card, "normal", key)
    assert cached is not None
    assert cached.digest == part.digest
    every = asked.evidence(card, "normal")
    assert every.status == ("ok", "ok")
    assert (every.predictions[:, :tried] == part.predictions[:, :tried]).all()
    assert not asked.evidence_for_claims(card, "normal", claims.decide).stopped
    for claim in (claim for claim in card.claims() if claim.sweep == "normal"):
        assert claims.judge(claim, part).outcome == claims.judge(claim, every).outcome


def test_only_sweeps_that_ask(tmp_path):
    """Catches: an early stop without the key, or of the clean images."""
    path = helpers.project(tmp_path / "project", card=CARD)
    made, card = open_workspace(path), cards.load(path)
    assert not made.evidence_for_claims(card, "clean", claims.decide).stopped
    table = card.file.sweeps["normal"].model_copy(update={"early_stop": False})
    other = replace(card, file=card.file.model_copy(update={"sweeps": {"normal": table}}))
    assert not made.evidence_for_claims(other, "normal", claims.decide).stopped
