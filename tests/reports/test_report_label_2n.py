"""The label-2n protocol as cards: read as any card, in an order in which each finds what it needs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from reports.label_2n import causes, numbers, protocol
from reports.label_2n.numbers import ALARMS, HALF, OWN, READINGS, Reading, measured, read, readings
from reports.label_2n.paper import PAPER
from reports.label_2n.protocol import NAMES, TITLES
from reports.label_2n.whitebox import too_weak
from reports.paper import MEASURED, RUNS, inputs_hash
from reports.rows import unpacked
from reports.running import Run, levels, write_cards
from reports.writing import ROOT
from robustness import cards
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

SETS = [(source, scale) for source in ("cifar10", "gtsrb") for scale in ("short", "medium", "full")]


@pytest.fixture(scope="module")
def every(tmp_path_factory):
    """All cards of both sets at all scales but smoke."""
    found, folder = {}, tmp_path_factory.mktemp("cards")
    for source, name in SETS:
        scale = protocol.scale(name, source)
        tables = {}
        for number in range(len(protocol.runs(scale))):
            tables |= protocol.cards(source, scale, number)
        tables |= protocol.evaluated(tables, source, scale)
        paths = write_cards(tables, folder / name)
        found[source, name] = {key: cards.load(path) for key, path in paths.items()}
    return found


def test_cards(every):
    """Catches: outputs that do not fit a decision, mirrored signs, folds torn by image, a width of another scale."""
    later = 9 + 1 + 3 + 4 + 3 + 3 * 7 + 3 * 2  # alone, autoencoder, more detectors; joined with either; evaluated
    assert {key: len(found) for key, found in every.items()} == {
        **{(source, "short"): 1 + 3 * (9 + 4 + 3 * 7) for source in ("cifar10", "gtsrb")},
        **{(source, "full"): 1 + 5 * later for source in ("cifar10", "gtsrb")},
        ("gtsrb", "medium"): 1 + 3 * later,
        ("cifar10", "medium"): 1 + 2 * (later - 1 - 3),  # two seeds of a fold, without NULL's original form
    }
    for (source, scale), found in every.items():
        classes = {"cifar10": 10, "gtsrb": 43}[source]
        for name, card in found.items():
            model, plan = card.file.model, card.file.recipe.arguments
            system = name.partition("@")[0].split("-", 2)[-1]
            if system.partition("-")[0] == "bin":
                assert (model.arguments["outputs"], model.arguments["depth"]) == (2, 16)
            else:
                beside = 2 * ("+" in system)
                assert model.decision.outputs(classes) == model.arguments["outputs"] + beside
            assert (
                model.arguments["width"]
                == ({"short": 0.125, "medium": {"cifar10": 0.25, "gtsrb": 0.125}[source], "full": 1.0}[scale])
            )
            assert not (source == "gtsrb" and plan.get("flip"))
            assert card.file.data.groups == (None if source == "cifar10" else "train_track")
            assert card.file.scale == ("full" if scale == "full" else "short")


def test_all_systems_of_a_medium_run_train_for_as_long(every):
    """Catches: a system with fewer epochs than the others, a seed that only some models of a run have."""
    for source, epochs, runs in (("gtsrb", 24, [(0, 0), (1, 0), (2, 0)]), ("cifar10", 20, [(1, 0), (1, 1)])):
        found = every[source, "medium"]
        assert {card.file.recipe.arguments.get("epochs", epochs) for card in found.values()} == {epochs}
        assert protocol.runs(protocol.scale("medium", source)) == runs
        for number, (fold, seed) in enumerate(runs):
            cards_ = [card for name, card in found.items() if name.startswith(f"{source}-{number}-")]
            assert {(card.file.data.split.fold, card.file.recipe.seed) for card in cards_} == {(fold, seed)}


def test_what_others_need_comes_first(every):
    for found in every.values():
        trained = set()
        for level in levels(found):
            assert {Path(path).stem for name in level for path in found[name].file.recipe.needs.values()} <= trained
            trained |= set(level)
        assert trained == set(found)


def test_the_worst_fold_is_that_of_the_short_scale():
    """Against the committed results."""
    result = next(each for each in PAPER.results(MEASURED) if (each["source"], each["scale"]) == WORST_OF)
    accuracy = measured(result).folds("2n", "mixed", "selective_accuracy")
    assert protocol.scale("medium", "cifar10").only == [int(np.argmin(accuracy))]


def test_whose_examples_detectors_are_trained_on(every):
    """Catches: a second detector on the same examples, or beside another model than it was trained for."""
    for source in ("cifar10", "gtsrb"):
        needs = {name: card.file.recipe.needs for name, card in every[source, "medium"].items()}
        for kind in ("adv", "cdaec", "distill"):
            assert needs[f"{source}-1-bin-{kind}"] == {"attacked": f"{source}-1-{kind}.toml"}
            own = {"classifier": f"{source}-1-{kind}.toml", "detector": f"{source}-1-bin-{kind}.toml"}
            assert needs[f"{source}-1-{kind}+own"] == needs[f"{source}-1-{kind}+own@fold"] == own
            assert needs[f"{source}-1-{kind}+bin"] == {**own, "detector": f"{source}-1-bin.toml"}
        assert needs[f"{source}-1-cdaec"] == {
            "denoised": f"{source}-1-denoiser.toml",
            "attacked": f"{source}-1-plain.toml",
        }


def test_evaluation(every):
    """Catches: a substitute that is the fold's own model, white-box rows on other images, a fold tested elsewhere."""
    found = every["gtsrb", "short"]
    for name, card in found.items():
        for sweep, table in card.file.sweeps.items():
            source = card.source(sweep)
            assert (source is not None) == (sweep in ("curve", "mixed"))
            assert source is None or source.name == "gtsrb-substitute.toml"
            assert table.strengths
        assert (card.file.data.num_test_images == 1000) == name.endswith("@few")
        assert (card.file.data.test == "official") == name.endswith("@official")
    assert [len(found[f"gtsrb-1-2n{suffix}"].file.sweeps) for suffix in ("@fold", "@official", "@few")] == [2, 1, 4]
    assert [len(found[f"gtsrb-1-{system}@few"].file.sweeps) for system in ("null", "null-stg", "adv+bin")] == [5, 5, 4]


WORST_OF = ("cifar10", "short")

# The whole protocol, on digits and small networks


@pytest.fixture(scope="module")
def result(smoke):
    return json.loads((smoke(PAPER) / "label_2n_digits_smoke_0.json").read_text(encoding="utf-8"))


def test_every_system_is_measured(result):
    """Catches: a system or a sweep left out, a strength that failed and is silent."""
    rows = unpacked(result)
    assert {row["system"] for row in rows} == set(protocol.SYSTEMS)
    for system in protocol.SYSTEMS:
        sweeps = {(row["sweep"], row["images"]) for row in rows if row["system"] == system}
        due = {("clean", "fold"), ("curve", "fold"), ("mixed", "fold"), ("shape", "fold")}
        if not system.endswith("+own"):
            due |= {(sweep, "few") for sweep in ("clean", "fgsm", "pgd", "adaptive-1", "adaptive")}
        assert sweeps == due | ({("stg", "few")} if system.startswith("null") else set())
    assert {row["status"] for row in rows} == {"ok", None}  # none for shapes
    assert not too_weak(read("digits", rows, "smoke"))


def test_both_thresholds(store, result):
    """
    Against passes and counts of our own. Catches: a threshold of test images or of images that were trained on, the
    other's numbers, clean images that are judged by the other threshold.
    """
    workspace = Workspace(Store(store), ROOT)
    tables = protocol.cards("digits", protocol.SCALES["smoke"], 0)
    tables |= protocol.evaluated(tables, "digits", protocol.SCALES["smoke"])
    swept = Run("digits", None, workspace, RUNS / "label_2n-digits-smoke").cards(tables)
    rows = unpacked(result)
    for system in ("2n", "adv+own", "null"):
        card = swept[f"digits-0-{system}@fold"]
        images, test = numbers.validation_images(workspace, card), workspace.images(card)
        assert len(images) == pytest.approx(0.1 * len(workspace.images(card, "train")), abs=1)
        assert not set(images.contents) & set(test.contents)
        with torch.no_grad():
            logits = workspace.classifier(card).module(torch.from_numpy(images.batch(0, len(images)))).double()
        p = {
            "2n": lambda x: x.softmax(1)[:, 10:].sum(1),
            "null": lambda x: x.softmax(1)[:, 10],
            "adv+own": lambda x: x[:, 10:].softmax(1)[:, 1],
        }[system](logits).numpy()
        of = [row for row in rows if (row["system"], row["threshold"]) == (system, ALARMS)]
        (limit,) = {row["limit"] for row in of}
        assert (p > limit + 1e-6).mean() <= 0.01 < (p > limit - 1e-6).mean() + 1 / len(p)
        curve = workspace.evidence(card, "curve")
        row = next(row for row in of if (row["sweep"], row["strength"]) == ("curve", "0.02"))
        kept = curve.attack_probability[0] <= limit
        right, was_right = curve.predictions[0] == curve.labels, curve.clean.predictions[0] == curve.labels
        was_kept = curve.clean.attack_probability[0] <= limit
        assert row["coverage"] == pytest.approx(kept.mean(), abs=1e-6)
        assert row["selective_accuracy"] == pytest.approx(right[kept].mean(), abs=1e-6)
        halves = np.concatenate([was_right[was_kept], right[kept]])
        assert row["half_selective_accuracy"] == pytest.approx(halves.mean(), abs=2e-6)
        source = curve.source
        xa = (source.clean.predictions[0] == curve.labels) & (source.predictions[0] != curve.labels)
        assert row["selective_transferability"] == pytest.approx(
            (xa & was_right & ~right & kept).sum() / xa.sum(), abs=1e-6
        )


def test_readings_are_views_of_the_same_rows(result):
    """Catches: a detector's rows under the other's name, both under one name, systems without a detector lost."""
    rows = unpacked(result)
    assert readings(rows) == list(READINGS)
    for threshold, examples in READINGS:
        found = read("digits", rows, "smoke", Reading(threshold, examples))
        assert {row["system"] for row in found.rows} == {s for s in protocol.SYSTEMS if "+own" not in s}
        assert all(row["images"] != "few" or threshold == HALF for row in found.rows)
        for shown, system in (("adv+bin", "adv"), ("plain+bin", "plain"), ("2n", "2n")):
            taken = {"2n": "2n", "plain": "plain+bin", "adv": f"adv+{'own' if examples == OWN else 'bin'}"}[system]
            due = [
                row["coverage"] for row in rows
                if (row["system"], row["sweep"], row["images"]) == (taken, "curve", "fold")
                and (row["threshold"] or HALF) == threshold and row["strength"] == "0.02"
            ]  # fmt: skip
            assert found.folds(shown, "curve", "coverage", "0.02") == due
    assert readings([{"system": "2n"}]) == [READINGS[0]]


def test_numbers_are_those_of_the_evidence(evidence_of, result):
    """Against counts of our own. Catches: accuracy of all for that of the kept, clean images that count twice."""

    clean, curve = (evidence_of(result, f"digits-0-2n@fold:{sweep}") for sweep in ("clean", "curve"))
    rows = {
        row["strength"]: row
        for row in unpacked(result)
        if (row["system"], row["sweep"], row["images"], row["threshold"]) == ("2n", "curve", "fold", None)
    }
    assert len(rows) == len(protocol.CURVE)
    was_right, was_kept = clean.predictions[0] == clean.labels, clean.attack_probability[0] <= 0.5
    for i, strength in enumerate(curve.strengths):
        right, kept = curve.predictions[i] == curve.labels, curve.attack_probability[i] <= 0.5
        row = rows[strength]
        assert row["accuracy"] == pytest.approx(right.mean(), abs=1e-6)
        assert row["coverage"] == pytest.approx(kept.mean(), abs=1e-6)
        assert row["undetected_error_rate"] == pytest.approx((kept & ~right).mean(), abs=1e-6)
        if kept.any():
            assert row["selective_accuracy"] == pytest.approx(right[kept].mean(), abs=1e-6)
        both_right, both_kept = np.concatenate([was_right, right]), np.concatenate([was_kept, kept])
        assert row["half_accuracy"] == pytest.approx(both_right.mean(), abs=2e-6)
        assert row["half_selective_accuracy"] == pytest.approx(both_right[both_kept].mean(), abs=2e-6)


def test_the_hash_of_the_inputs_follows_the_recipes(tmp_path):
    """Catches: a file that outlives a change of its recipe."""
    tables = protocol.cards("digits", protocol.SCALES["smoke"], 0)

    def made_of(changed):
        run = Run("digits", None, Workspace(Store(tmp_path), tmp_path), tmp_path / "cards" / str(len(changed)))
        swept = protocol.evaluated({**tables, **changed}, "digits", protocol.SCALES["smoke"])
        return inputs_hash(run.workspace, run.cards({**tables, **changed, **swept}))

    substitute = tables["digits-substitute"]
    arguments = {**substitute["recipe"]["arguments"], "epochs": 4}
    other = {"digits-substitute": {**substitute, "recipe": {**substitute["recipe"], "arguments": arguments}}}
    assert made_of({}) == made_of({})
    assert made_of({}) != made_of(other)


def test_the_pages_name_every_system_and_reading(smoke):
    out = smoke(PAPER)
    text = (out / "label-2n.md").read_text(encoding="utf-8")
    assert "**digits, scale smoke** (networks at 0.5 of the paper's width, 3 epochs, fold 1 of 2, seed 0)" in text
    for name in NAMES.values():
        assert f"| {name} " in text
        assert f"| {name} " in (out / "label-2n-attacked.md").read_text(encoding="utf-8")
    more = (out / "label-2n-tables.md").read_text(encoding="utf-8")
    for threshold, examples in READINGS:
        assert f"threshold {threshold}, BIN on {examples}" in more


def test_causes_are_looked_for_on_the_same_fold(store, evidence_of, result, tmp_path):
    """Against the result and counts of our own. Catches: another fold, a threshold for all, one variant twice."""
    places = ["--store", str(store), "--output", str(tmp_path), "--workers", "1"]
    assert causes.main(["--data-set", "digits", "--scale", "smoke", *places]) == 0
    found = json.loads((tmp_path / "causes_label_2n_digits_smoke.json").read_text(encoding="utf-8"))
    assert list(found["variants"]) == list(protocol.VARIANTS)
    assert len({about["digest"] for about in found["evidence"].values()}) == len(protocol.VARIANTS)
    shapes = {row["system"]: row for row in unpacked(result) if row["sweep"] == "shape" and not row["threshold"]}
    for system in ("2n", "plain+bin"):
        due = shapes[system].get("selective_max_accuracy_slope")
        assert found["variants"][system]["at_half"]["max_accuracy_slope"] == pytest.approx(due, abs=1e-4)
    for variant, row in found["variants"].items():
        told = evidence_of(found, variant)
        assert row["alike"]["coverage"][0] == pytest.approx(0.99, abs=1.5 / len(told))
        kept = (told.attack_probability[0] <= row["threshold"]).mean()
        assert row["alike"]["coverage"][1] == pytest.approx(kept, abs=1e-3)
    assert PAPER.main(["--render", "--output", str(tmp_path)]) == 0
    text = (tmp_path / "label-2n-causes.md").read_text(encoding="utf-8")
    assert all(f"| {words} " in text for words in protocol.VARIANTS.values())


def test_the_first_page_shows_the_largest_scale():
    """Catches: a smaller scale beside a larger one of the same set, one that no page has, headings without a scale."""
    short = [each for each in PAPER.results(MEASURED) if each["scale"] == "short"]
    medium = {**short[0], "scale": "medium", "plan": {**short[0]["plan"], "epochs": 20}}
    of = [short[0], medium, short[1]]
    made = PAPER.pages(of)
    first, more = made["label-2n.md"], made["label-2n-tables.md"]
    title, other = (TITLES[each["source"]] for each in (short[0], short[1]))
    assert f"## {title}, scale medium: Table 3" in first
    assert f"## {title}, scale short" not in first
    assert f"## {other}, scale short: Table 3" in first
    assert f"## {title}, scale short: Table 3" in more
    assert f"## {other}, scale short: Table 3" not in more
    headings = [line for text in made.values() for line in text.splitlines() if line.startswith("## ")]
    assert all("scale" in line.lower() or line == "## At a glance" for line in headings)


def test_cards_that_do_not_change_are_not_rewritten(tmp_path):
    """Catches: cards that are new to the second run."""
    tables = protocol.cards("cifar10", protocol.SCALES["short"], 0)
    before = {path: path.stat().st_mtime_ns for path in write_cards(tables, tmp_path).values()}
    assert {path: path.stat().st_mtime_ns for path in write_cards(tables, tmp_path).values()} == before
