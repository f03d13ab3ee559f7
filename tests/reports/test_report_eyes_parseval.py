"""eyes-parseval at smoke scale: the whole command, its numbers against counts of our own, and its claims."""

import itertools
import json
import math

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from reports import figures
from reports.eyes_parseval import protocol
from reports.eyes_parseval.criteria import criteria, losses, published_sweep
from reports.eyes_parseval.paper import PAPER
from reports.paper import MEASURED, RUNS
from reports.rows import Measured, packed, unpacked
from reports.verdicts import judge
from robustness import cards
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def result(smoke):
    return json.loads((smoke(PAPER) / "eyes_parseval_digits_smoke_0.json").read_text(encoding="utf-8"))


def contrast():
    """How many dB the pixels of each image have above those of the same without its mean."""
    card = cards.load(RUNS / "eyes_parseval-digits-smoke" / "digits-0-wrn.toml")
    images = Workspace(Store(RUNS / "none"), RUNS).images(card)
    pixels = images.batch(0, len(images)).reshape(len(images), -1).astype(float)
    without = pixels - pixels.mean(axis=1, keepdims=True)
    return 20 * np.log10(np.linalg.norm(pixels, axis=1) / np.linalg.norm(without, axis=1))


def test_numbers_are_those_of_the_evidence(result, evidence_of):
    """Against scikit-learn. Catches: a row of another system or strength, micro for macro averages and back."""
    rows = unpacked(result)
    for system, sweep in (("wrn", "fgsm"), ("parseval-adv", "twin-snr"), ("cnn", "noise-snr")):
        found = evidence_of(result, f"digits-0-{system}:{sweep}")
        for i, strength in enumerate(found.strengths):
            (row,) = (r for r in rows if (r["system"], r["sweep"], r["strength"]) == (system, sweep, strength))
            labels, predictions = found.labels, found.predictions[i]
            assert row["accuracy"] == pytest.approx(np.mean(labels == predictions), abs=1e-6)
            due = precision_score(labels, predictions, average="macro", zero_division=0)
            assert row["precision"] == pytest.approx(due, abs=1e-6)
            assert row["recall"] == pytest.approx(recall_score(labels, predictions, average="macro"), abs=1e-6)
            true = np.eye(10)[labels]
            assert row["roc_auc"] == pytest.approx(
                roc_auc_score(true.ravel(), found.probabilities[i].ravel()), abs=1e-5
            )
            if sweep.endswith("snr"):  # of the standardised crops
                assert np.abs(found.snr[i] - contrast() - float(strength)).max() < 0.02


def test_curves_are_those_of_the_evidence(result, evidence_of):
    """By counting at every threshold. Catches: rates of the wrong axis, cell or system, points off the curve."""
    curves = result["curves"]
    assert {(curve["sweep"], curve["strength"]) for curve in curves} == {
        ("clean", "0"), ("fgsm-snr", "33"), ("twin-snr", "33"),
    }  # fmt: skip
    for curve in curves:
        found = evidence_of(result, f"digits-0-{curve['system']}:{curve['sweep']}")
        scores = found.probabilities[found.strengths.index(curve["strength"])].ravel()
        true = np.eye(10)[found.labels].ravel() == 1
        counted = [(np.mean(scores[~true] >= t), np.mean(scores[true] >= t)) for t in np.unique(scores)]
        false_alarms, caught = np.array([*counted, (0, 0)]).T
        for at, rate in zip(np.logspace(-4, 0, 41), curve["rates"], strict=True):
            assert rate >= caught[false_alarms <= at + 1e-12].max() - 1e-4
            # At a rate that a threshold meets exactly the curve may rise: any point of the rise is on it.
            assert rate <= caught[false_alarms > at + 1e-12].min(initial=1.0) + 1e-4


def test_strips_are_images_of_the_evidence(smoke, result, evidence_of):
    """Catches: the strip of another system, strengths out of order, a wrong answer shown as right."""
    drawn = (smoke(PAPER) / "figures" / "eyes-parseval-digits-smoke-strips.svg").read_text(encoding="utf-8")
    wrong = 0
    for kept in result["strips"]:
        found = evidence_of(result, f"digits-0-{kept['title']}:fgsm-snr")
        clean, *shown = figures.strip_pixels(kept)
        count = len(found.strengths)
        assert kept["strengths"] == list(found.strengths)
        assert kept["said"][1:] == [str(label) for label in found.predictions[:, 0]]
        # In bytes one and a half levels become two, and smaller perturbations are rounded away unless magnified.
        ratio = 20 * np.log10(np.linalg.norm(clean) / np.linalg.norm(shown[count - 1] - clean))
        assert ratio == pytest.approx(found.snr[-1, 0], abs=3)
        sizes = [np.linalg.norm(each - 0.5) / figures.MAGNIFIED for each in shown[count:]]
        ratios = [20 * np.log10(np.linalg.norm(clean) / size) for size in sizes]
        assert ratios == pytest.approx(found.snr[:, 0].tolist(), abs=3)
        assert ratios[-1] == pytest.approx(found.snr[-1, 0], abs=0.5)
        wrong += sum(said != kept["true"] for said in kept["said"])
    assert drawn.count("(wrong)") == wrong


def test_every_system_has_its_rows_and_the_defended_ones_their_twin_s(smoke, result):
    rows = unpacked(result)
    systems = [*protocol.SYSTEMS, *protocol.DENSE, "wrn+fgsm-0.03-100", "wrn+noise-0.03-100"]
    assert {row["system"] for row in rows} == set(systems)
    for system in systems:
        sweeps = {row["sweep"] for row in rows if row["system"] == system}
        assert ("twin-snr" in sweeps) == (system in protocol.TWINS)
        assert {"clean", "fgsm", "fgsm-snr", "noise", "noise-snr"} <= sweeps
    card = (smoke(PAPER) / "eyes-parseval.md").read_text(encoding="utf-8")
    for name in (protocol.NAMES[system] for system in protocol.DENSE):
        tables = [part.partition("\n")[0] for part in card.split("\n## ") if f"| {name} " in part]
        assert len(tables) == 4, "accuracy by ratio and by ε, other metrics, natural changes"
    assert "made on the ResNet (WRN-16-1)" in card
    assert "not testable here" in card


def test_fewer_folds_do_not_replace_more(smoke, result, command, tmp_path):
    """Catches: a trial of one fold that overwrites the result of two."""
    name = "eyes_parseval_digits_smoke_0.json"
    (tmp_path / name).write_bytes((smoke(PAPER) / name).read_bytes())
    second = result | {"fold": 1, "columns": ["fold", "system"], "rows": [[1, "wrn"]], "curves": []}
    (tmp_path / name.replace("_0", "_1")).write_text(json.dumps(second), encoding="utf-8")
    assert command(PAPER, tmp_path) == 0
    (both,) = PAPER.results(tmp_path)
    assert both["folds"] == 2
    assert {row["fold"] for row in unpacked(both)} == {0, 1}
    assert both["curves"] == result["curves"]


def test_approach_1_shows_every_network_under_both_attacks(smoke, result):
    """Catches: a column of the other examples or of another sweep."""
    numbers = Measured.of(result)
    (line,) = (
        line
        for line in (smoke(PAPER) / "eyes-parseval.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| 0.03") and line.count("|") == 7 and "100%" in line
    )
    due = [
        f"{numbers.mean(f'wrn+{kind}-0.03-100', sweep, 'accuracy', '0.03'):.3f}"
        for kind in protocol.EXAMPLES
        for sweep in ("fgsm", "noise")
    ]
    assert [cell.split()[0] for cell in line.split("|")[3:7]] == due


def rows_as_published(order=protocol.SYSTEMS, noise=0.002, folds=10, seed=0, **changed):
    """
    Rows whose accuracies are the published ones, for systems in this order, with some noise from fold to fold.

    ``changed`` names sweeps (``fgsm_snr``) with what is added to the accuracy of one system at 33 dB in each fold.
    """
    drawn, there = np.random.default_rng(seed), PAPER.printed

    def row(fold, system, sweep, strength, accuracy):
        about = {"source": "eyes", "fold": fold, "system": system, "images": "fold"}
        return {**about, "sweep": sweep, "strength": str(strength), "accuracy": accuracy}

    pairs = itertools.product(range(folds), zip(protocol.SYSTEMS, order, strict=True))
    connected = itertools.product(range(folds), zip(protocol.DENSE, ("wrn", "parseval"), strict=True))
    for fold, (system, like) in (*pairs, *connected):
        yield row(fold, system, "clean", 0, there["table_8"][like][0] + noise * drawn.normal())
        for sweep in ("fgsm-snr", "twin-snr", "noise-snr"):
            for ratio, value in zip(there["ratios"], there["table_8"][like][1:], strict=True):
                more = changed.get(sweep.replace("-", "_"), {}).get(system, 0) * (ratio == 33)
                yield row(fold, system, sweep, ratio, value + more + noise * drawn.normal())
    for fold, kind, epsilon in itertools.product(range(3), protocol.EXAMPLES, (0.003, 0.03)):
        accuracy = 0.74 + changed.get("stored", {}).get(kind, 0)
        yield row(fold, protocol.augmented(kind, epsilon, 1.0), "clean", 0, accuracy)


def outcomes(rows, source="eyes", scale="full"):
    measured = Measured(source, list(rows), scale)
    return [judge(criterion, scale).outcome for criterion in criteria(measured)]


RESIDUAL, PARSEVAL, RESIDUAL_ITSELF, PARSEVAL_ITSELF, FGSM, NOISE, CLEAN, CHEAP, CNN, CNN_ITSELF, *STORED = range(12)
BETTER, CONNECTED = 12, 13


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        ({}, []),
        ({"twin_snr": {"wrn-adv": -0.3}}, [RESIDUAL]),
        ({"twin_snr": {"parseval-adv": -0.3}}, [PARSEVAL]),
        ({"fgsm_snr": {"wrn-adv": -0.3}}, [RESIDUAL_ITSELF]),
        ({"fgsm_snr": {"parseval-adv": -0.3}}, [PARSEVAL_ITSELF]),
        ({"noise_snr": {"parseval": -0.3}}, [NOISE]),
        ({"twin_snr": {"cnn-wd": 0.1}}, [CNN]),
        ({"fgsm_snr": {"cnn-orth": -0.2}}, [CNN_ITSELF]),
        ({"stored": {"fgsm": -0.1}}, [STORED[0]]),
        ({"stored": {"noise": -0.1}}, [STORED[1]]),
        ({"fgsm_snr": {"wrn": 0.31}}, [RESIDUAL, RESIDUAL_ITSELF, FGSM, BETTER]),
        ({"fgsm_snr": {"dense-parseval": -0.3}}, [CONNECTED]),
    ],
)
def test_each_claim_depends_on_its_own_numbers(changed, broken):
    """Who attacks whom, FGSM or noise, one system at a time. Catches: another sweep's numbers, the other twin's."""
    found = outcomes(rows_as_published(**changed))
    assert [place for place, outcome in enumerate(found) if outcome != "reproduced"] == broken


def test_the_fully_connected_networks_wait_for_their_numbers():
    """Catches: a result that was made before they were in the protocol, called not reproduced."""
    rows = [row for row in rows_as_published() if row["system"] not in protocol.DENSE]
    found = outcomes(rows)
    assert found[CONNECTED] == "not measured yet"
    assert set(found[:CONNECTED]) == {"reproduced"}


def test_clean_must_be_better_under_every_strength():
    """A tie under a weak attack is no counterexample, one under the strongest is. Catches: means over the strengths."""
    about = {"source": "eyes", "fold": 0, "system": "wrn", "images": "fold"}
    clean = {**about, "sweep": "clean", "strength": "0", "accuracy": 0.7}

    def outcome(weak, strong):
        cells = [("0.001", weak), ("0.03", strong)]
        rows = [clean, *({**about, "sweep": "fgsm", "strength": e, "accuracy": value} for e, value in cells)]
        rows = [{**row, "fold": fold} for row in rows for fold in range(3)]
        return outcomes(rows, scale="short")[BETTER]

    assert outcome(0.7, 0.5) == "reproduced"
    assert outcome(0.71, 0.5) == "not reproduced"
    assert outcome(0.7, 0.7) == "not reproduced"
    assert outcome(None, 0.5) == "not reproduced"


def test_natural_changes_are_shown_or_named_as_missing(result):
    """Catches: a sweep without a table, strengths in the wrong column, silence about what was not measured."""
    (committed,) = PAPER.results(MEASURED)
    assert "Not measured yet: no result here has brightness" in PAPER.page(committed)
    fields = {"source": "eyes", "system": "cnn", "images": "fold", "sweep": "rotation"}
    strengths = [f"{value:g}" for value in protocol.NATURAL["rotation"]]
    more = [
        {**fields, "fold": fold, "strength": name, "accuracy": 0.6 - 0.1 * place}
        for fold in range(3)
        for place, name in enumerate(strengths)
    ]
    shown = PAPER.page({**committed, **packed([*unpacked(committed), *more])})
    (line,) = (line for line in shown.splitlines() if line.startswith("| CNN ") and "rotation" in line)
    assert [cell.split()[0] for cell in line.split("|")[3:6]] == ["0.600", "0.500", "0.400"]
    cards = protocol.cards("eyes", protocol.SCALES["short"], 0)
    for system in (*protocol.SYSTEMS, *protocol.DENSE):
        assert set(protocol.NATURAL) <= set(cards[f"eyes-0-{system}"]["sweeps"])


def test_permuted_systems_do_not():
    """The defended rows given to the undefended, and Parseval's to the plain. Catches: a criterion of any order."""
    order = ("wrn-adv", "parseval-adv", "wrn", "parseval", "cnn-wd-adv", "cnn-wd", "cnn", "cnn-orth")
    found = outcomes(rows_as_published(order))
    for place in (RESIDUAL, PARSEVAL, RESIDUAL_ITSELF, PARSEVAL_ITSELF, CLEAN, CNN, CNN_ITSELF):
        assert found[place] == "not reproduced"


def test_random_numbers_do_not():
    for seed in range(5):
        drawn = np.random.default_rng(seed)
        rows = [{**row, "accuracy": drawn.uniform(0, 1)} for row in rows_as_published()]
        assert outcomes(rows).count("reproduced") <= 3


def test_a_network_that_knows_nothing_loses_nothing_and_is_not_called_robust():
    """It loses less than nothing, folds differ a little. Catches: what is lost alone, without clean accuracy."""
    rows = [
        {**row, "accuracy": 0.25 - 0.0001 * row["fold"] * float(row["strength"])} if row["system"] == "wrn-adv" else row
        for row in rows_as_published()
    ]
    found = outcomes(rows)
    assert [found[place] for place in (RESIDUAL, RESIDUAL_ITSELF, CHEAP)] == ["not reproduced"] * 3


def test_crops_that_cannot_tell_are_said_to_be_too_few():
    """Folds that differ by more than the margin: neither shown to be no worse, nor to be worse."""
    found = outcomes(rows_as_published(noise=0.08))
    assert found[FGSM] == "not testable here"


def test_what_cannot_be_tested_is_not_and_a_missing_number_reproduces_nothing():
    for found in (outcomes(rows_as_published(folds=2)), outcomes(rows_as_published(), scale="smoke"),
                  outcomes(rows_as_published(), source="digits")):  # fmt: skip
        assert set(found) == {"not testable here"}
    assert "reproduced" not in outcomes({**row, "accuracy": None} for row in rows_as_published())


def test_what_is_lost_is_compared_by_welch_s_test():
    measured = Measured("eyes", list(rows_as_published(noise=0.02)))
    plain, trained = losses(measured, "wrn", "fgsm-snr"), losses(measured, "wrn-adv", "twin-snr")
    assert (published_sweep("wrn"), published_sweep("wrn-adv")) == ("fgsm-snr", "twin-snr")
    p = scipy.stats.ttest_ind(trained, plain, equal_var=False).pvalue
    assert f"p {p:.4f}" in judge(next(criteria(measured)), "full").numbers
    assert not math.isnan(p)


def test_the_full_scale_has_the_whole_grid_of_twenty_cells_of_two_kinds():
    def names(scale):
        return [name for fold in range(10) for name in protocol.cards("eyes", protocol.SCALES[scale], fold)]

    full, short = names("full"), names("short")
    assert len([name for name in full if "+" in name]) == 3 * 20 * 2
    assert len([name for name in full if "+" not in name]) == 10 * (8 + 2)
    assert len([name for name in short if "+" in name]) == 3 * 4 * 2
