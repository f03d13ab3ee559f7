"""The signs-adversarial report: the whole command on embedded digits, its criteria by hand, the committed result."""

import itertools
import json
import math

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from reports.rows import Measured, packed, unpacked
from reports.signs_adversarial import protocol
from reports.signs_adversarial.criteria import criteria
from reports.signs_adversarial.paper import PAPER
from reports.verdicts import judge
from reports.writing import ROOT
from robustness.util import paths

FILE = "signs_adversarial_digits_smoke_3.json"


@pytest.fixture(scope="module")
def result(smoke):
    return json.loads((smoke(PAPER) / FILE).read_text(encoding="utf-8"))


def test_numbers_are_those_of_the_evidence(evidence_of, result):
    """Against scikit-learn. Catches: another network's numbers, PGD on all images or FGSM on a few, micro averages."""
    count = 0
    for key in result["evidence"]:
        name, _, sweep = key.partition(":")
        evidence = evidence_of(result, key)
        assert len(evidence) == (20 if sweep in ("pgd", "twin-pgd") else 600)
        rows = [row for row in unpacked(result) if (f"digits-3-{row['system']}", row["sweep"]) == (name, sweep)]
        assert [row["strength"] for row in rows] == list(evidence.strengths)
        for row, predictions in zip(rows, evidence.predictions, strict=True):
            labels = evidence.labels
            assert (row["fold"], row["n"]) == (3, len(labels))
            assert row["accuracy"] == pytest.approx(np.mean(labels == predictions), abs=1e-6)
            due = precision_score(labels, predictions, average="macro", zero_division=0)
            assert row["precision"] == pytest.approx(due, abs=1e-6)
            due = recall_score(labels, predictions, average="macro", zero_division=0)
            assert row["recall"] == pytest.approx(due, abs=1e-6)
            count += 1
    assert count == len(unpacked(result)) == 3 * (1 + 2 * 6) + 2 * 2 * 6


def test_the_twin_is_the_undefended_network_of_the_same_seed(evidence_of, result):
    """By counting. Catches: examples of another seed's twin or of the network itself, |Xa| counted on other images."""

    def predictions(name):
        evidence = evidence_of(result, name)
        return evidence.labels, evidence.predictions

    labels, clean_twin = predictions("digits-3-plain:clean")
    _, twin = predictions("digits-3-plain:fgsm")
    for system in ("fgsm", "pgd"):
        _, clean = predictions(f"digits-3-{system}:clean")
        _, moved = predictions(f"digits-3-{system}:twin-fgsm")
        rows = [r for r in unpacked(result) if (r["system"], r["sweep"]) == (system, "twin-fgsm")]
        for row, on_twin, on_it in zip(rows, twin, moved, strict=True):
            misled = (clean_twin[0] == labels) & (on_twin != labels)
            both = misled & (clean[0] == labels) & (on_it != labels)
            due = both.sum() / misled.sum() if misled.any() else None
            assert row.get("transferability") == (due if due is None else pytest.approx(due, abs=1e-6))


def test_the_page_shows_the_numbers_of_the_file(smoke, result):
    """Catches: a page of other numbers than the file's."""
    text = (smoke(PAPER) / "signs-adversarial.md").read_text(encoding="utf-8")
    about = result["provenance"]
    assert (result["source"], result["scale"], result["seeds"]) == ("digits", "smoke", [3])
    assert (about["data"]["tested on"]["n"], about["data"]["trained on"]["n"]) == (600, 1197)
    assert about["device"].startswith("cpu")
    assert {"python", "torch", "numpy", "pytest-robustness"} <= set(about["versions"])
    assert set(result["models"]) == {f"digits-3-{system}" for system in ("plain", "fgsm", "pgd")}
    assert "tested on 600 images (20 of them under PGD)" in text
    for row in unpacked(result):
        if row["sweep"] in ("clean", "fgsm", "pgd"):
            assert f" {row['accuracy']:.3f} " in text
    assert "16 not testable here" in text


def test_seeds_are_one_result_with_their_spread(result, tmp_path):
    """Catches: the last seed for all, a deviation of all values, a missing strength that is shown as a number."""
    for seed, shift in ((3, 0.0), (5, 0.02)):
        rows = [{**row, "fold": seed, "accuracy": 0.5 + shift} for row in unpacked(result)]
        if seed == 5:
            last = rows[-1]
            assert (last["system"], last["sweep"]) == ("pgd", "twin-pgd")
            last |= {"accuracy": None, "status": "no gradient"}
        (tmp_path / FILE.replace("_3", f"_{seed}")).write_text(
            json.dumps({**result, "fold": seed, "seeds": [seed], **packed(rows)}), encoding="utf-8"
        )
    (text,) = PAPER.pages(PAPER.results(tmp_path)).values()
    assert "seeds 3, 5;" in text
    deviation = np.std([0.5, 0.52], ddof=1)
    assert f"clean accuracy 0.510 ± {deviation:.3f}" in text
    assert "0.500 (1 of 2)" in text
    assert "PGD-7 training of seed 5 under twin-pgd at ε 0.1255: no gradient" in text


def test_the_trainings_differ_in_their_attack_alone():
    tables = protocol.cards("gtsrb", protocol.SCALES["full"], 1)
    plain, fgsm, pgd = (tables[f"gtsrb-1-{system}"] for system in ("plain", "fgsm", "pgd"))
    assert plain["model"] == fgsm["model"] == pgd["model"]
    assert {table["recipe"]["seed"] for table in tables.values()} == {1}
    assert pgd["recipe"]["arguments"] == fgsm["recipe"]["arguments"] | {"steps": 7}
    assert fgsm["recipe"]["arguments"] == plain["recipe"]["arguments"] | {"epsilon": 0.0627}


@pytest.mark.parametrize(("system", "shipped"), [("plain", "gtsrb-signs"), ("fgsm", "gtsrb-signs-adv")])
def test_the_full_scale_trains_what_the_shipped_cards_train(system, shipped):
    """Catches: a card that claims of another network than the page shows."""
    card = paths.parse_toml((ROOT / "models" / f"{shipped}.toml").read_bytes())
    table = protocol.cards("gtsrb", protocol.SCALES["full"], 0)[f"gtsrb-0-{system}"]
    assert table["recipe"] == card["recipe"] | {"seed": 0}
    assert table["data"] == card["data"]
    assert table["model"]["factory"] == card["model"]["factory"]
    assert table["model"]["arguments"] == card["model"]["arguments"] | {"width": 1.0}
    assert {name: table["sweeps"][name] for name in ("fgsm", "pgd")} == {
        name: card["sweeps"][name] for name in ("fgsm", "pgd")
    }


GOOD = {
    # system, sweep: accuracy at 8/255
    ("plain", "clean"): 0.97, ("fgsm", "clean"): 0.95, ("pgd", "clean"): 0.95,
    ("plain", "fgsm"): 0.40, ("fgsm", "fgsm"): 0.78, ("pgd", "fgsm"): 0.77,
    ("plain", "pgd"): 0.10, ("fgsm", "pgd"): 0.60, ("pgd", "pgd"): 0.70,
    ("fgsm", "twin-fgsm"): 0.90, ("pgd", "twin-fgsm"): 0.91,
    ("fgsm", "twin-pgd"): 0.92, ("pgd", "twin-pgd"): 0.93,
}  # fmt: skip
COUNT, ORDERINGS = 16, 7


def judged(changed=(), *, source="gtsrb", scale="full", seeds=3, spread=0.002):
    """
    Return outcomes and verdicts on made-up rows: at 8/255 the table's numbers, at the next strength all else.

    A number stands for the mean of the seeds, a tuple has that of each.
    """
    rows = []
    for seed, ((system, sweep), value) in itertools.product(range(seeds), {**GOOD, **dict(changed)}.items()):
        about = {"source": source, "fold": seed, "system": system, "images": "test", "sweep": sweep, "n": 1000}
        strength = "0" if sweep == "clean" else "0.0314"
        own = value[seed] if isinstance(value, tuple) else value + spread * (seed - 1)
        rows.append({**about, "strength": strength, "accuracy": own})
        rows.append({**about, "strength": "0.0627", "accuracy": 1 - own})
    verdicts = [judge(criterion, scale) for criterion in criteria(Measured(source, rows, scale))]
    return [verdict.outcome for verdict in verdicts], verdicts


def failing(changed):
    return [verdict.claim for verdict in judged(changed)[1] if verdict.outcome != "reproduced"]


def test_criteria_hold_where_they_should():
    assert judged()[0] == ["reproduced"] * COUNT


@pytest.mark.parametrize(
    ("changed", "due"),
    [
        ({("plain", "clean"): 0.94}, ["reaches 95 %"]),
        ({("fgsm", "clean"): 0.93}, ["FGSM training costs"]),
        ({("pgd", "clean"): 0.93}, ["PGD-7 training costs"]),
        ({("plain", "fgsm"): 0.55}, ["FGSM at 8/255 halves"]),
        ({("fgsm", "fgsm"): 0.66}, ["FGSM training wins back half of what FGSM"]),
        ({("pgd", "fgsm"): 0.68, ("pgd", "pgd"): 0.65}, ["PGD-7 training wins back half of what FGSM"]),
        ({("fgsm", "pgd"): 0.50}, ["FGSM training wins back half of what PGD"]),
        ({("pgd", "twin-fgsm"): 0.75}, ["FGSM at 8/255 made on the undefended twin"]),
        ({("fgsm", "twin-pgd"): 0.55}, ["PGD at 8/255 made on the undefended twin"]),
        ({("fgsm", "fgsm"): 0.75, ("fgsm", "pgd"): 0.68, ("pgd", "fgsm"): 0.78}, ["from FGSM to PGD"]),
        ({("plain", "fgsm"): 0.09}, ["PGD at 8/255 leaves less"]),
        ({("fgsm", "pgd"): 0.699}, ["under PGD at 8/255 PGD-7 training leaves more"]),  # by less than the seeds differ
        (
            {("fgsm", "pgd"): 0.70, ("pgd", "pgd"): 0.60, ("fgsm", "fgsm"): 0.79, ("pgd", "fgsm"): 0.72},
            ["under PGD at 8/255 PGD-7 training leaves more"],
        ),
    ],
)  # fmt: skip
def test_each_criterion_can_fail_alone(changed, due):
    """Catches: networks or attacks exchanged, another strength than 8/255, a criterion that always holds."""
    claims = failing(changed)
    for part in due:
        assert any(part in claim for claim in claims), claims
    allowed = {"from FGSM to PGD", *due}
    assert all(any(part in claim for part in allowed) for claim in claims), claims


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_a_training_must_help_in_every_seed(attack):
    """Catches: the mean of the seeds, or the best of them, for every one."""
    claim = f"both trainings leave more accuracy under {attack.upper()}"
    plain = GOOD["plain", attack]
    for system in ("fgsm", "pgd"):
        assert any(claim in each for each in failing({(system, attack): (0.9, 0.9, plain - 0.01)}))
        assert not any(claim in each for each in failing({(system, attack): (0.9, 0.9, plain + 0.01)}))


@pytest.mark.parametrize("lacking", [{"source": "digits"}, {"scale": "smoke"}, {"scale": "smoke", "seeds": 1}])
def test_what_cannot_test_the_criteria_tests_none(lacking):
    assert judged(**lacking)[0] == ["not testable here"] * COUNT


def test_criteria_wait_for_the_seeds():
    """Catches: a verdict on one training, which another seed may turn."""
    outcomes, verdicts = judged(seeds=2)
    assert outcomes == ["not measured yet"] * COUNT
    assert {verdict.numbers for verdict in verdicts} == {"1 of 3 seeds not measured yet"}
    assert judged(seeds=4)[0] == ["reproduced"] * COUNT


def test_a_short_run_judges_orderings_alone():
    outcomes, verdicts = judged(scale="short")
    assert outcomes.count("reproduced") == ORDERINGS
    assert all((verdict.kind == "ordering") == (verdict.outcome == "reproduced") for verdict in verdicts)


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_a_missing_number_holds_nothing(missing):
    before = set(failing({}))
    assert set(failing({missing: math.nan})) > before
