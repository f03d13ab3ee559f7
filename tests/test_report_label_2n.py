"""The label-2n protocol as cards: read as any card, in an order in which each finds what it needs."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from reports import folds
from reports.commands import DOCS, OUTPUT, ROOT, loaded
from reports.label_2n import causes, figures, page, protocol
from reports.label_2n.__main__ import main
from reports.label_2n.beyond import too_weak
from reports.label_2n.numbers import Measured
from reports.label_2n.tables import NAMES
from reports.rows import unpacked
from reports.running import levels, write
from reports.writing import inserted
from robustness import cards
from robustness.harness import Harness
from robustness.store import Store


@pytest.fixture
def every(tmp_path):
    """All cards of both sets at both scales."""
    found = {}
    for source in ("cifar10", "gtsrb"):
        for scale in (protocol.SCALES["short"], protocol.SCALES["full"]):
            tables = protocol.cards(source, scale)
            tables |= protocol.evaluated(tables, source, scale)
            paths = write(tables, tmp_path / scale.name)
            found[source, scale.name] = {name: cards.load(path) for name, path in paths.items()}
    return found


def test_cards(every):
    """Catches: outputs that do not fit a decision, mirrored signs, folds torn by image, a width of another scale."""
    assert {key: len(found) for key, found in every.items()} == {
        (source, scale): 1 + folds * (9 + 4 + 3 * 7)
        for source in ("cifar10", "gtsrb")
        for scale, folds in (("short", 3), ("full", 5))
    }
    for (source, scale), found in every.items():
        classes = {"cifar10": 10, "gtsrb": 43}[source]
        for name, card in found.items():
            model, plan = card.file.model, card.file.recipe.arguments
            if not name.endswith("-bin"):
                assert model.decision.outputs(classes) == model.arguments["outputs"] + 2 * name.partition("@")[
                    0
                ].endswith("+bin")
            assert model.arguments["width"] == {"short": 0.125, "full": 1.0}[scale]
            assert not (source == "gtsrb" and plan.get("flip"))
            assert card.file.data.groups == (None if source == "cifar10" else "train_track")
            assert card.file.scale == scale


def test_evaluation(every):
    """Catches: a substitute that is the fold's own model, white-box rows on other images, a fold tested elsewhere."""
    found = every["gtsrb", "short"]
    for name, card in found.items():
        for sweep, table in card.file.sweeps.items():
            source = card.source(sweep)
            assert (source is not None) == (sweep in ("curve", "mixed"))
            assert source is None or source.name == "gtsrb-substitute.toml"
            assert table.strengths
        assert (card.file.data.tested == 1000) == name.endswith("@few")
        assert (card.file.data.test == "given") == name.endswith("@official")
    assert [len(found[f"gtsrb-1-2n{suffix}"].file.sweeps) for suffix in ("@fold", "@official", "@few")] == [2, 1, 4]
    assert [len(found[f"gtsrb-1-{system}@few"].file.sweeps) for system in ("null", "null-stg", "adv+bin")] == [5, 5, 4]


def test_what_others_need_comes_first(every):
    for found in every.values():
        done = set()
        for level in levels(found):
            needs = {Path(path).stem for name in level for path in found[name].file.recipe.needs.values()}
            assert needs <= done
            done |= set(level)
        assert done == set(found)


def test_cards_that_are_the_same_stay(tmp_path):
    """Catches: cards that are new to the second run."""
    tables = protocol.cards("cifar10", protocol.SCALES["short"], range(1))
    paths = write(tables, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in paths.values()}
    write(tables, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in paths.values()} == before


# The whole protocol, on digits and small networks


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The folder of a store that xdist's workers share: what one of them makes the others wait for."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "label-2n-store"


@pytest.fixture(scope="module")
def smoke(store, tmp_path_factory):
    """Where the result of one fold is."""
    folder = tmp_path_factory.mktemp("label-2n")
    assert command(store, folder) == 0
    return folder


def command(store, folder):
    places = ["--store", str(store), "--output", str(folder / "out")]
    return main(["--data-set", "digits", "--scale", "smoke", "--folds", "1", "--workers", "1", *places])


def read(folder):
    return json.loads((folder / "out/label_2n_digits_smoke_0.json").read_text(encoding="utf-8"))


def test_every_system_is_measured(smoke):
    """Catches: a system or a sweep left out, a strength that failed and is silent."""
    rows = unpacked(read(smoke))
    assert {row["system"] for row in rows} == set(protocol.SYSTEMS)
    for system in protocol.SYSTEMS:
        sweeps = {(row["sweep"], row["images"]) for row in rows if row["system"] == system}
        due = {("clean", "fold"), ("curve", "fold"), ("mixed", "fold"), ("shape", "fold"), ("clean", "few")}
        due |= {(sweep, "few") for sweep in ("fgsm", "pgd", "adaptive-1", "adaptive")}
        assert sweeps == due | ({("stg", "few")} if system.startswith("null") else set())
    assert {row["status"] for row in rows} == {"ok", None}  # none for shapes
    assert not too_weak(Measured("digits", rows))


def test_numbers_are_those_of_the_evidence(store, smoke):
    """Against counts of our own. Catches: accuracy of all for that of the kept, clean images that count twice."""
    result = read(smoke)

    def evidence(sweep):
        found, reason = Store(store).evidence(result["evidence"][f"digits-0-2n@fold:{sweep}"]["key"], ROOT)
        assert not reason
        return found

    clean, curve = evidence("clean"), evidence("curve")
    rows = {
        row["strength"]: row
        for row in unpacked(result)
        if (row["system"], row["sweep"], row["images"]) == ("2n", "curve", "fold")
    }
    assert len(rows) == len(protocol.CURVE)
    was_right, was_kept = clean.predictions[0] == clean.labels, clean.attack_probability[0] <= 0.5
    for i, strength in enumerate(curve.strengths):
        right, kept = curve.predictions[i] == curve.labels, curve.attack_probability[i] <= 0.5
        row = rows[strength]
        assert row["accuracy"] == pytest.approx(right.mean(), abs=1e-6)
        assert row["kept"] == pytest.approx(kept.mean(), abs=1e-6)
        assert row["undetected_wrong"] == pytest.approx((kept & ~right).mean(), abs=1e-6)
        if kept.any():
            assert row["accuracy_filtered"] == pytest.approx(right[kept].mean(), abs=1e-6)
        both_right, both_kept = np.concatenate([was_right, right]), np.concatenate([was_kept, kept])
        assert row["half_accuracy"] == pytest.approx(both_right.mean(), abs=2e-6)
        assert row["half_accuracy_filtered"] == pytest.approx(both_right[both_kept].mean(), abs=2e-6)


def test_a_second_run_takes_everything_from_the_store(store, smoke, capsys):
    """Catches: cards, keys or training that differ from run to run."""
    first = read(smoke)
    (smoke / "out/label_2n_digits_smoke_0.json").unlink()
    assert command(store, smoke) == 0
    assert "not testable here" in capsys.readouterr().out
    again = read(smoke)
    assert not any(about["in_this_run"] for about in again["evidence"].values())
    assert {name: about["digest"] for name, about in again["evidence"].items()} == {
        name: about["digest"] for name, about in first["evidence"].items()
    }
    assert again["rows"] == first["rows"]
    assert again["models"] == first["models"]


def test_a_fold_whose_file_stands_is_not_measured_again(smoke, tmp_path, capsys):
    """With an empty store. Catches: folds that only a store remembers, a file that outlives a change of its recipe."""
    file = smoke / "out/label_2n_digits_smoke_0.json"
    before = file.read_bytes()
    assert command(tmp_path, smoke) == 0
    assert "fold 1 is measured" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.safetensors"))
    assert file.read_bytes() == before

    tables = protocol.cards("digits", protocol.SCALES["smoke"], range(1))
    here = Harness(Store(tmp_path), tmp_path)

    def made_of(changed):
        found = protocol.evaluated({**tables, **changed}, "digits", protocol.SCALES["smoke"])
        return folds.made_of(here, loaded({**tables, **changed, **found}, tmp_path / "cards" / str(len(changed))))

    substitute = tables["digits-substitute"]
    arguments = {**substitute["recipe"]["arguments"], "epochs": 4}
    other = {"digits-substitute": {**substitute, "recipe": {**substitute["recipe"], "arguments": arguments}}}
    assert made_of({}) == made_of({})
    assert made_of({}) != made_of(other)


def test_folds_are_one_result():
    """Each fold from another machine. Catches: a fold lost or counted twice, a device that is not said."""
    result = folds.results(OUTPUT, "label_2n")[-1]
    parts = [
        json.loads(file.read_text(encoding="utf-8")) for file in sorted(OUTPUT.glob("label_2n_gtsrb_short_*.json"))
    ]
    assert result["folds"] == len(parts) == 3
    assert sorted(row["fold"] for row in unpacked(result)) == sorted(
        row["fold"] for part in parts for row in unpacked(part)
    )
    assert len(result["models"]) == 40
    told = {**parts[1], "provenance": {**parts[1]["provenance"], "device": "cuda:H200", "made": "2026-12-24"}}
    other = folds.merged([parts[0], told])
    assert other["folds"] == 2
    assert other["provenance"]["device"] == "cpu-avx512f and cuda:H200"
    assert {row["fold"] for row in unpacked(other)} == {0, 1}


def test_the_page_and_figures_are_made_from_the_file_alone(smoke):
    out = smoke / "out"
    before = {path: path.read_bytes() for path in (*out.glob("*.md"), *out.glob("figures/*.svg"))}
    assert len(before) == 3
    for path in before:
        path.unlink()
    assert main(["--render", "--output", str(out)]) == 0
    assert {path: path.read_bytes() for path in before} == before
    text = (out / "label-2n.md").read_text(encoding="utf-8")
    assert "Scale **smoke**" in text
    assert "**It is not the result that is compared with the paper's numbers.**" in text
    assert "1 folds (of 2" in text
    for name in NAMES.values():
        assert f"| {name} " in text


def test_causes_are_looked_for_on_the_same_fold(store, smoke):
    """Against the result and counts of our own. Catches: another fold, a threshold for all, one variant twice."""
    places = ["--store", str(store), "--output", str(smoke / "out"), "--workers", "1"]
    assert causes.main(["--data-set", "digits", "--scale", "smoke", *places]) == 0
    found = json.loads((smoke / "out/causes_label_2n_digits_smoke.json").read_text(encoding="utf-8"))
    assert list(found["variants"]) == list(protocol.VARIANTS)
    assert len({about["digest"] for about in found["evidence"].values()}) == len(protocol.VARIANTS)
    shapes = {row["system"]: row for row in unpacked(read(smoke)) if row["sweep"] == "shape"}
    for system in ("2n", "plain+bin"):
        due = shapes[system].get("sensitivity_filtered")
        assert found["variants"][system]["at_half"]["sensitivity"] == pytest.approx(due, abs=1e-4)
    for variant, numbers in found["variants"].items():
        told, reason = Store(store).evidence(found["evidence"][variant]["key"], ROOT)
        assert not reason
        assert numbers["alike"]["kept"][0] == pytest.approx(0.99, abs=1.5 / len(told))
        kept = (told.attack_probability[0] <= numbers["threshold"]).mean()
        assert numbers["alike"]["kept"][1] == pytest.approx(kept, abs=1e-3)
    assert main(["--render", "--output", str(smoke / "out")]) == 0
    text = (smoke / "out" / "label-2n.md").read_text(encoding="utf-8")
    assert all(f"| {words} " in text for words in protocol.VARIANTS.values())


def test_what_is_committed_is_shown_as_it_is():
    """Catches: a page that was edited by hand, or made before the results that lie beside it."""
    results = folds.results(OUTPUT, "label_2n")
    page_ = (DOCS / "label-2n.md").read_text(encoding="utf-8")
    why = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(OUTPUT.glob("causes_label_2n_*.json"))]
    assert inserted(page_, page.MODULE, page.body(results, causes=why)) == page_
    for result in results:
        for name in figures.names(result["source"], result["scale"]).values():
            assert (DOCS / "figures" / name).is_file()


def test_errors_are_one_sentence(tmp_path, capsys):
    assert main(["--data-set", "gtsrb", "--data", str(tmp_path), "--store", str(tmp_path / "store")]) == 2
    assert "gtsrb32.npz.xz" in capsys.readouterr().err


def test_an_engine_that_cannot_be_is_one_sentence(tmp_path, capsys):
    """Catches: a traceback of the parser's, for its own kinds of errors are all that it turns into a sentence."""
    assert main(["--data-set", "digits", "--scale", "smoke", "--engine", "rays", "--output", str(tmp_path)]) == 2
    assert "`engine` must be plain or ray[=ADDRESS], got 'rays'" in capsys.readouterr().err
