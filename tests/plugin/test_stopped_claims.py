"""Cards that ask for early stop: what is swept, what reports say, and who still gets every image."""

import json

import pytest

from robustness.cards import load
from robustness.errors import CardError

STOP = ('kind = "uniform"\n', 'kind = "uniform"\nearly_stop = true\n')
EASY = ('accuracy = 0.7\n"recall[3]" = 0.5', "accuracy = {}")


def stopping(project, threshold):
    old, new = EASY
    return project.edit(project.card, STOP, (old, new.format(threshold)))


@pytest.mark.parametrize(("threshold", "outcome", "tried"), [(0.3, "passed", 75), (0.999, "failed", 25)])
def test_decided_after(project, threshold, outcome, tried):
    """
    Catches: a sweep of all images, another verdict than theirs, a point value in a report, evidence of a part that
    serves a card with another threshold, or a card that does not ask for early stop.
    """
    stopping(project, threshold)
    run = project.run("suites", "-k", "uniform", "--robustness-report=page.html", "--robustness-report=page.md")
    assert list(run.outcomes.values()) == [outcome]
    (claim,) = run.claims
    status = f"decided after {tried} of 200 images"
    assert f"({status})" in claim["message"]
    assert claim["numbers"]["value"] is None
    assert claim["numbers"]["method"] == "bounds"
    low, high = claim["numbers"]["low"], claim["numbers"]["high"]
    assert high - low == pytest.approx(1 - tried / 200)
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
    run = project.run("suites", "-k", "uniform", "-n2")
    assert "decided after 75 of 200 images" in run.claims[0]["message"]
    assert json.dumps(run.report).count("decided after 75 of 200") > 1


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
