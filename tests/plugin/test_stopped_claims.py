"""Cards that ask for early stop: what is swept, what reports say, and who still gets every image."""

import json
import re

import pytest

from robustness.cards import load
from robustness.errors import CardError

STOP = ('kind = "uniform"\n', 'kind = "uniform"\nearly_stop = true\n')
EASY = ('accuracy = 0.7\n"recall[3]" = 0.5', "accuracy = {}")


def stopping(project, threshold):
    old, new = EASY
    return project.edit(project.card, STOP, (old, new.format(threshold)))


def tried_images(claim):
    """Return how many of the 200 images decided a claim."""
    return int(re.search(r"\(decided after (\d+) of 200 images\)", claim["message"])[1])


@pytest.mark.parametrize(("threshold", "outcome"), [(0.3, "passed"), (0.999, "failed")])
def test_decided_after(project, threshold, outcome):
    """
    Catches: a sweep of all images, another verdict than theirs, a point value in a report, evidence of a part that
    serves a card with another threshold, or a card that does not ask for early stop.
    """
    stopping(project, threshold)
    run = project.run("suites", "-v", "-k", "uniform", "--robustness-report=page.html", "--robustness-report=page.md")
    assert list(run.outcomes.values()) == [outcome]
    (claim,) = run.claims
    tried = tried_images(claim)
    status = f"decided after {tried} of 200 images"
    assert claim["numbers"]["value"] is None
    assert claim["numbers"]["method"] == "bounds"
    low, high = claim["numbers"]["low"], claim["numbers"]["high"]
    assert high - low == pytest.approx(1 - tried / 200)
    # It stops at the first batch that decides: without the last fifty images, the claim would be open.
    assert low >= threshold if outcome == "passed" else high < threshold
    assert 200 * abs((low if outcome == "passed" else high) - threshold) <= 50
    cell = run.report["models"][0]["sweeps"][1]["cells"][0]
    assert cell["status"] == status
    assert set(cell["metrics"]) == {"accuracy"}
    between = f"between {low:.3f} and {high:.3f}".replace("0.", ".").replace("1.000", "1.000")
    assert between in run.out
    for page in ("page.html", "page.md"):
        text = (project.root / page).read_text()
        assert status in text, page
        assert f"{low:.4f}" in text, page
    assert "ERROR" not in run.summary
    passes = len(project.logged("passes"))
    assert project.run("suites", "-k", "uniform").outcomes == run.outcomes
    assert len(project.logged("passes")) == passes  # the part is in the store
    project.edit(project.card, (f"accuracy = {threshold}", "accuracy = 0.8"))
    other = project.run("suites", "-k", "uniform").claims[0]
    assert len(project.logged("passes")) > passes
    assert other["outcome"] in ("passed", "failed")
    project.edit(project.card, ("early_stop = true\n", ""))
    full = project.run("suites", "-k", "uniform").claims[0]
    assert (full["outcome"], full["numbers"]["n"]) == (other["outcome"], 200)
    assert full["numbers"]["value"] is not None
    assert low <= full["numbers"]["value"] <= high


def test_evidence_of_all_images_serves(project):
    """Catches: a second sweep though the store has all images."""
    stopping(project.fill(), 0.3)
    passes = len(project.logged("passes"))
    run = project.run("suites", "-k", "uniform")
    assert run.claims[0]["numbers"]["n"] == 200
    assert run.claims[0]["numbers"]["value"] is not None
    assert len(project.logged("passes")) == passes


def test_workers_agree(project):
    """Catches: another number of images with workers."""
    stopping(project, 0.3)
    tried = tried_images(project.run("suites", "-k", "uniform").claims[0])
    run = project.run("suites", "-k", "uniform", "-n2", "--robustness-store=other")
    assert tried_images(run.claims[0]) == tried
    assert json.dumps(run.report).count(f"decided after {tried} of 200") > 1


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ([STOP, ('"recall[3]" = 0.5', "precision = 0.5")], "precision is known only after the last image"),
        ([STOP, ('accuracy = 0.7\n"recall[3]" = 0.5', 'accuracy = "no claim possible"')], "claims.uniform has none"),
        (
            [STOP, ("[claims.clean]", '[gate]\nkind = "paired"\nmargin = 0.02\n\n[claims.clean]')],
            "the gate compares every image",
        ),
    ],
)
def test_refused(project, edits, said):
    """Catches: an early stop that some claim, or the gate, cannot have."""
    project.edit(project.card, *edits)
    with pytest.raises(CardError, match=said):
        load(project.card)
