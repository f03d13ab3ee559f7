"""eyes-parseval at smoke scale: the whole command, its numbers against counts of our own, and its claims."""

import itertools
import json
import math

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from reports import folds, strips
from reports.commands import DOCS, OUTPUT, RUNS
from reports.eyes_parseval import page, protocol
from reports.eyes_parseval.__main__ import main
from reports.eyes_parseval.criteria import CLAIMS, clean_is_better, drops, published
from reports.rows import Measured, unpacked
from robustness import cards
from robustness.metrics.evidence import Evidence
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

COMMAND = ["--data-set", "digits", "--scale", "smoke", "--folds", "1", "--workers", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The whole command on one fold of embedded digits; its output folder and store."""
    root = tmp_path_factory.mktemp("eyes")
    arguments = [*COMMAND, "--output", str(root / "out"), "--store", str(root / "store")]
    assert main(arguments) == 0
    return root, arguments


def result(run):
    return json.loads((run[0] / "out" / "eyes_parseval_digits_smoke_0.json").read_text(encoding="utf-8"))


def evidence(run, name):
    path = Store(run[0] / "store").path("evidence", result(run)["evidence"][name]["key"])
    return Evidence.from_bytes(path.read_bytes())


def contrast():
    """How many dB the pixels of each image have above those of the same without its mean."""
    card = cards.load(RUNS / "eyes_parseval-smoke" / "digits-0-wrn.toml")
    images = Workspace(Store(RUNS / "none"), RUNS).images(card)
    pixels = images.batch(0, len(images)).reshape(len(images), -1).astype(float)
    without = pixels - pixels.mean(axis=1, keepdims=True)
    return 20 * np.log10(np.linalg.norm(pixels, axis=1) / np.linalg.norm(without, axis=1))


def test_numbers_are_those_of_the_evidence(run):
    """Against scikit-learn. Catches: a row of another system or strength, micro for macro averages and back."""
    rows = unpacked(result(run))
    for system, sweep in (("wrn", "fgsm"), ("parseval-adv", "twin-snr"), ("cnn", "noise-snr")):
        found = evidence(run, f"digits-0-{system}:{sweep}")
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


def test_curves_are_those_of_the_evidence(run):
    """By counting at every threshold. Catches: rates of the wrong axis, cell or system, points off the curve."""
    curves = result(run)["curves"]
    assert {(curve["sweep"], curve["strength"]) for curve in curves} == {
        ("clean", "0"), ("fgsm-snr", "33"), ("twin-snr", "33"),
    }  # fmt: skip
    for curve in curves:
        found = evidence(run, f"digits-0-{curve['system']}:{curve['sweep']}")
        scores = found.probabilities[found.strengths.index(curve["strength"])].ravel()
        true = np.eye(10)[found.labels].ravel() == 1
        counted = [(np.mean(scores[~true] >= t), np.mean(scores[true] >= t)) for t in np.unique(scores)]
        false_alarms, caught = np.array([*counted, (0, 0)]).T
        for at, rate in zip(np.logspace(-4, 0, 41), curve["rates"], strict=True):
            assert rate >= caught[false_alarms <= at + 1e-12].max() - 1e-4
            # At a rate that a threshold meets exactly the curve may rise: any point of the rise is on it.
            assert rate <= caught[false_alarms > at + 1e-12].min(initial=1.0) + 1e-4


def test_strips_are_images_of_the_evidence(run):
    """Catches: the strip of another system, strengths out of order, a wrong answer shown as right."""
    drawn = (run[0] / "out" / "figures" / "eyes-parseval-digits-smoke-strips.svg").read_text(encoding="utf-8")
    wrong = 0
    for kept in result(run)["strips"]:
        found = evidence(run, f"digits-0-{kept['title']}:fgsm-snr")
        clean, *shown = strips.pixels(kept)
        count = len(found.strengths)
        assert kept["strengths"] == list(found.strengths)
        assert kept["said"][1:] == [str(label) for label in found.predictions[:, 0]]
        # In bytes one and a half levels become two, and smaller perturbations are rounded away unless magnified.
        ratio = 20 * np.log10(np.linalg.norm(clean) / np.linalg.norm(shown[count - 1] - clean))
        assert ratio == pytest.approx(found.snr[-1, 0], abs=3)
        sizes = [np.linalg.norm(each - 0.5) / strips.MAGNIFIED for each in shown[count:]]
        ratios = [20 * np.log10(np.linalg.norm(clean) / size) for size in sizes]
        assert ratios == pytest.approx(found.snr[:, 0].tolist(), abs=3)
        assert ratios[-1] == pytest.approx(found.snr[-1, 0], abs=0.5)
        wrong += sum(said != kept["true"] for said in kept["said"])
    assert drawn.count("(wrong)") == wrong


def test_every_system_has_its_rows_and_the_defended_ones_their_twin_s(run):
    rows = unpacked(result(run))
    systems = [*protocol.SYSTEMS, *protocol.DENSE, "wrn+fgsm-0.03-100", "wrn+noise-0.03-100"]
    assert {row["system"] for row in rows} == set(systems)
    for system in systems:
        sweeps = {row["sweep"] for row in rows if row["system"] == system}
        assert ("twin-snr" in sweeps) == (system in protocol.TWINS)
        assert {"clean", "fgsm", "fgsm-snr", "noise", "noise-snr"} <= sweeps
    card = (run[0] / "out" / "eyes-parseval.md").read_text(encoding="utf-8")
    for name in (page.NAMES[system] for system in protocol.DENSE):
        tables = [part.partition("\n")[0] for part in card.split("\n## ") if f"| {name} " in part]
        assert len(tables) == 4, "accuracy by ratio and by ε, other metrics, natural changes"
    assert "made on the ResNet (WRN-16-1)" in card
    assert "not testable here" in card


def test_a_second_run_makes_nothing_anew_and_the_page_comes_from_the_file_alone(run):
    root, arguments = run
    store = {path: path.stat().st_mtime_ns for path in (root / "store").rglob("*") if path.suffix == ".safetensors"}
    before = (root / "out" / "eyes-parseval.md").read_bytes()
    figures = {path: path.read_bytes() for path in (root / "out" / "figures").glob("*.svg")}
    assert len(figures) == 3
    (root / "out" / "eyes_parseval_digits_smoke_0.json").unlink()
    assert main(arguments) == 0
    kept = {path: path.stat().st_mtime_ns for path in (root / "store").rglob("*") if path.suffix == ".safetensors"}
    assert kept == store
    assert main(["--render", "--output", str(root / "out")]) == 0
    strip = [line for line in before.decode().splitlines() if "sweeping" not in line]
    after = (root / "out" / "eyes-parseval.md").read_text(encoding="utf-8")
    assert [line for line in after.splitlines() if "sweeping" not in line] == strip
    assert {path: path.read_bytes() for path in figures} == figures


def test_fewer_folds_do_not_replace_more(run):
    """Catches: a trial of one fold that overwrites the result of two."""
    root, arguments = run
    more = root / "out" / "eyes_parseval_digits_smoke_1.json"
    second = result(run) | {"fold": 1, "columns": ["fold", "system"], "rows": [[1, "wrn"]], "curves": []}
    more.write_text(json.dumps(second), encoding="utf-8")
    try:
        assert main(arguments) == 0
        (found,) = folds.results(root / "out", "eyes_parseval")
        assert found["folds"] == 2
        assert {row["fold"] for row in unpacked(found)} == {0, 1}
        assert found["curves"] == result(run)["curves"]
    finally:
        more.unlink()


def test_approach_1_shows_every_network_under_both_attacks(run):
    """Catches: a column of the other examples or of another sweep."""
    numbers = Measured.of(result(run))
    (line,) = (
        line
        for line in (run[0] / "out" / "eyes-parseval.md").read_text(encoding="utf-8").splitlines()
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
    drawn = np.random.default_rng(seed)
    there = page.printed()
    pairs = itertools.product(range(folds), zip(protocol.SYSTEMS, order, strict=True))
    connected = itertools.product(range(folds), zip(protocol.DENSE, ("wrn", "parseval"), strict=True))
    for fold, (system, like) in (*pairs, *connected):
        about = {"source": "eyes", "fold": fold, "system": system, "images": "fold"}
        yield {
            **about,
            "sweep": "clean",
            "strength": "0",
            "accuracy": there["table_8"][like][0] + noise * drawn.normal(),
        }
        for sweep in ("fgsm-snr", "twin-snr", "noise-snr"):
            for ratio, value in zip(there["ratios"], there["table_8"][like][1:], strict=True):
                more = changed.get(sweep.replace("-", "_"), {}).get(system, 0) * (ratio == 33)
                yield {
                    **about,
                    "sweep": sweep,
                    "strength": str(ratio),
                    "accuracy": value + more + noise * drawn.normal(),
                }
    for fold, kind, epsilon in itertools.product(range(3), protocol.EXAMPLES, (0.003, 0.03)):
        system = protocol.augmented(kind, epsilon, 1.0)
        about = {"source": "eyes", "fold": fold, "system": system, "images": "fold"}
        yield {**about, "sweep": "clean", "strength": "0", "accuracy": 0.74 + changed.get("stored", {}).get(kind, 0)}


def outcomes(rows, source="eyes", scale="full"):
    measured = Measured(source, list(rows), scale)
    return [decide(measured).outcome for decide in CLAIMS]


RESIDUAL, PARSEVAL, RESIDUAL_ITSELF, PARSEVAL_ITSELF, FGSM, NOISE, CLEAN, CHEAP, CNN, CNN_ITSELF, *STORED = range(12)
BETTER, CONNECTED = 12, 13


def test_the_published_numbers_reproduce_the_claims():
    assert set(outcomes(rows_as_published())) == {"reproduced"}


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
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
    assert [place for place, outcome in enumerate(found) if outcome == "not reproduced"] == broken


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
        return clean_is_better(Measured("eyes", rows, "short")).outcome

    assert outcome(0.7, 0.5) == "reproduced"
    assert outcome(0.71, 0.5) == "not reproduced"
    assert outcome(0.7, 0.7) == "not reproduced"
    assert outcome(None, 0.5) == "not reproduced"


def test_natural_changes_are_shown_or_said_to_be_missing():
    """Catches: a sweep without a table, strengths in the wrong column, silence about what was not measured."""
    rows = list(rows_as_published(folds=3))
    assert "Not measured yet: no result here has brightness" in page._natural(Measured("eyes", rows))
    about = {"source": "eyes", "system": "cnn", "images": "fold", "sweep": "rotation"}
    strengths = [f"{value:g}" for value in protocol.NATURAL["rotation"]]
    more = [
        {**about, "fold": fold, "strength": name, "accuracy": 0.6 - 0.1 * place}
        for fold in range(3)
        for place, name in enumerate(strengths)
    ]
    shown = page._natural(Measured("eyes", rows + more))
    (line,) = (line for line in shown.splitlines() if line.startswith("| CNN ") and "rotation" in line)
    assert [cell.split()[0] for cell in line.split("|")[3:6]] == ["0.600", "0.500", "0.400"]
    cards = protocol.cards("eyes", protocol.SCALES["short"], range(1))
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
    flat = {"wrn-adv": 0.25}
    rows = [{**row, "accuracy": flat.get(row["system"], row["accuracy"])} for row in rows_as_published()]
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
    plain, trained = drops(measured, "wrn", "fgsm-snr"), drops(measured, "wrn-adv", "twin-snr")
    assert (published("wrn"), published("wrn-adv")) == ("fgsm-snr", "twin-snr")
    p = scipy.stats.ttest_ind(trained, plain, equal_var=False).pvalue
    assert f"p {p:.4f}" in CLAIMS[0](measured).numbers
    assert not math.isnan(p)


def test_the_whole_grid_is_twenty_cells_of_two_kinds():
    tables = protocol.cards("eyes", protocol.whole(protocol.SCALES["short"]))
    made = [name for name in tables if "+" in name]
    assert len(made) == 3 * 20 * 2
    assert len(tables) == 10 * (8 + 2) + len(made)
    assert len([name for name in protocol.cards("eyes", protocol.SCALES["short"]) if "+" in name]) == 3 * 4 * 2


def test_what_is_committed_is_shown_as_it_is():
    from reports.writing import inserted

    results = folds.results(OUTPUT, "eyes_parseval")
    text = (DOCS / "eyes-parseval.md").read_text(encoding="utf-8")
    assert inserted(text, page.MODULE, page.body(results)) == text


def test_errors_are_one_sentence(tmp_path, capsys):
    arguments = ["--data-set", "eyes", "--data", str(tmp_path), "--store", str(tmp_path / "store")]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    assert "eyes32.npz" in capsys.readouterr().err
