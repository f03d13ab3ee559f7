"""What a card may say of a gate and of waivers, and the sentence where it says something else."""

import helpers
import pytest

from robustness import cards
from robustness.errors import CardError

CLAIMS = "\n[claims.normal]\naccuracy = [0.5, 'no claim possible']\n"
WAIVER = '\n[[waivers]]\n{}\nowner = "eve"\nreason = "known"\nexpires = 2999-01-01\n'
RETRAINING = '\n[gate]\nkind = "retraining"\n'


def load(tmp_path, text):
    return cards.load(
        helpers.project(tmp_path, card=helpers.CARD + CLAIMS + text.replace("{", "{{").replace("}", "}}"))
    )


def test_a_gate_reads_everything_where_it_names_nothing(tmp_path):
    card = load(tmp_path, RETRAINING)
    assert card.gated_sweeps == ("clean", "normal")
    assert card.baseline == card.path.parent / "baselines" / "tiny.json"
    card = load(tmp_path / "other", RETRAINING + 'baseline = "../b.json"\nsweeps = ["normal"]\n')
    assert card.gated_sweeps == ("normal",)
    assert card.baseline == card.path.parent / "../b.json"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[gate]\nkind = "paired"\n', "needs `margin`"),
        (
            '[gate]\nkind = "weights"\nmargin = 0.02\n',
            "(gate.kind: weights → paired); rewrite the file with: robustness migrate",
        ),
        ('[gate]\nkind = "recipe"\n', "(gate.kind: recipe → retraining); rewrite the file with: robustness migrate"),
        ('[gate]\nkind = "recpie"\n', "gate.kind = 'recpie': Input should be 'paired' or 'retraining'"),
        ('[gate]\nkind = "weigths"\nmargin = 0.02\n', "gate.kind = 'weigths'"),
        ('[gate]\nkind = "paired"\nmargin = 2.0\n', "gate.margin = 2.0"),
        ('[gate]\nkind = "paired"\nmargin = 0.0\n', "gate.margin = 0.0"),
        ('[gate]\nkind = "paired"\nmargin = 0.02\nalpha = 0.7\n', "gate.alpha = 0.7"),
        (
            '[gate]\nkind = "paired"\nmargin = 0.02\nmargins = { normal = [0.1] }\n',
            "one margin per strength (2), got 1",
        ),
        ('[gate]\nkind = "paired"\nmargin = 0.02\nmargins = { nromal = [0.1] }\n', "did you mean 'normal'?"),
        (RETRAINING + "margin = 0.02\n", "takes no `margin`"),
        (RETRAINING + 'looks = "unlimited"\n', "`looks` belongs to a paired gate"),
        (RETRAINING + "metrics = []\n", "`metrics` must name metrics"),
        (RETRAINING + 'metrics = ["loss"]\n', "got 'loss'"),
        (RETRAINING + 'metrics = ["acuracy"]\n', "did you mean 'accuracy'?"),
        (RETRAINING + 'metrics = ["coverage"]\n', "needs a decision that detects attacks, got argmax"),
        (RETRAINING + 'metrics = ["roc_auc"]\n', "write store_probabilities = true in the card"),
        (RETRAINING + "sweeps = []\n", "`sweeps` must name sweeps"),
        (RETRAINING + 'sweeps = ["fgsm"]\n', "no such sweep: fgsm; allowed: clean, normal"),
        (RETRAINING + "margn = 1\n", "unknown key"),
        (WAIVER.format('claim = "normal:0.2:acuracy"'), "did you mean 'normal:0.2:accuracy'?"),
        (WAIVER.format('claim = "normal:0.8:accuracy"'), "the card has no claim 'normal:0.8:accuracy'"),
        (WAIVER.format('cell = "normal:0.2:accuracy"'), "the card has no cell of a gate"),
        (RETRAINING + WAIVER.format('cell = "normal:0.2:accuracy"'), "the card has no cell of a gate"),
        (WAIVER.format(""), "names either a `claim` or a `cell`"),
        (WAIVER.format('claim = "normal:0.2:accuracy"').replace("known", " "), "must not be empty"),
        (WAIVER.format('claim = "normal:0.2:accuracy"').replace("2999-01-01", '"soon"'), "waivers.0.expires = 'soon'"),
        (WAIVER.format('claim = "normal:0.2:accuracy"') * 2, "waived more than once"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, text, said):
    """Catches: a gate that cannot fail, and a waiver of nothing, which would wait for its cell to appear."""
    with pytest.raises(CardError) as caught:
        load(tmp_path, text)
    assert said in str(caught.value)


def test_a_summary_of_a_retraining_gate_may_be_waived(tmp_path):
    card = load(tmp_path, RETRAINING + WAIVER.format('cell = "normal:mean:accuracy"'))
    assert str(card.file.waivers[0]) == "waived by eve until 2999-01-01: known"
