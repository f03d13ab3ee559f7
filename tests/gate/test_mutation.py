"""What `robustness mutate` finds: on a project that trains in a moment, and on the cards that ship."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_project
from helpers import ROOT

from robustness.cards import load
from robustness.cards.selection import limit_test_images
from robustness.cli import main
from robustness.errors import CardError, DataMissing, TrainingError
from robustness.gate import accept
from robustness.gate.mutation import page as telling
from robustness.gate.mutation import results
from robustness.gate.mutation import run as mutation
from robustness.gate.mutation.plan import FIRST, MutationOptions
from robustness.gate.mutation.run import is_detected, mutation_target, run_mutations
from robustness.mutations.kinds import MutationError
from robustness.workspace import recipes
from robustness.workspace.context import data_root
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

SHIPPED = ROOT / "models"
CLAIMS = "\n[claims.clean]\naccuracy = 0.8\n\n[claims.normal]\naccuracy = [0.5, 0.2]\n"
GATE = '\n[gate]\nkind = "retraining"\n'
ALL = "all classes one place on"
NOTHING = {"noise": (0.0,), "pruning": (0.0,), "data": (1.0,), "labels": (0.0,), "classes": (1.0, np.inf)} | {
    "normalisation": (0.0,), "layer": (0.0,),
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("own_path")


@pytest.fixture
def make(tmp_path):
    """Make a tiny project whose card claims something, trained; seeds may be special."""

    def made(text=CLAIMS, **special):
        project = tiny_project.make(tmp_path, **special)
        project.path.write_text(project.path.read_text() + text)
        project.weights.write_bytes(project.workspace.weights(project.card).read_bytes())
        return project

    return made


def mutate(project, retrainings=0, every=False, **damage):
    return run_mutations(project.workspace, project.card, MutationOptions(damage or None, retrainings, every, 1))


def of(found, kind):
    (one,) = (each for each in found["damage"] if each["kind"] == kind)
    return one


def test_no_damage_is_not_caught_and_permuted_classes_are(make):
    """Catches: damage beside the level, alarms out of nothing, accuracy that is taken of the undamaged model."""
    project = make()
    found = mutate(project, **NOTHING)
    numbers = ("clean_accuracy", "red", "gate")
    for each in found["damage"]:
        row = each["rows"][-1]
        assert [row[key] for key in numbers] == [found["undamaged"][key] for key in numbers]
        assert not is_detected(row)
    permuted = of(found, "classes")
    assert permuted["caught_from"] == {**dict.fromkeys(("claims", "either"), ALL), "gate": None}
    assert permuted["rows"][0]["clean_accuracy"] < 0.1
    first = permuted["rows"][0]["first"]
    assert first.startswith("tiny under clean at 0: accuracy is 0.")
    assert "its card claims at least 0.8" in first


def test_the_ladder_of_a_linear_model_is_its_closed_form(make):
    """Catches: levels in the wrong order, a first level that is not the slightest of those from which on all is red."""
    project = make("\n[claims.clean]\naccuracy = 0.5\n")
    evidence = project.workspace.evidence(project.card)
    labels, predicted = evidence.labels, evidence.predictions[0]
    due = {n: np.where(predicted < n, (predicted + 1) % n, predicted) == labels for n in range(1, 11)}
    accuracy = {n: float(right.mean()) for n, right in due.items()}
    assert sorted(accuracy.values(), reverse=True) == list(accuracy.values())

    found = mutate(project, every=True, classes=tuple(map(float, due)))
    rows = of(found, "classes")["rows"]
    assert [row["clean_accuracy"] for row in rows] == pytest.approx([accuracy[n] for n in range(10, 0, -1)])
    least = min(n for n in due if accuracy[n] < 0.5)
    assert 2 < least < 10
    assert of(found, "classes")["caught_from"]["claims"] == f"{least} classes one place on"
    # From the worst down to the first that is not caught, unless all levels are asked for.
    fewer = mutate(project, classes=tuple(map(float, due)))
    assert len(of(fewer, "classes")["rows"]) == 10 - least + 2
    assert of(fewer, "classes")["caught_from"] == of(found, "classes")["caught_from"]


def test_what_is_kept_is_not_swept_or_trained_again(make, monkeypatch):
    """Catches: a store that is passed by, so that an interrupted run begins anew."""
    project = make()
    asked = {"retrainings": 2, "noise": (1.0,), "labels": (0.4,)}
    first = mutate(project, **asked)
    trained = project.trained()

    def no(*_, **__):
        raise AssertionError("swept again")

    monkeypatch.setattr("robustness.sweep.runner.run_sweep", no)
    assert mutate(project, **asked) == first
    assert project.trained() == trained


def test_false_alarms_are_the_retrainings_that_are_red(make):
    """Catches: alarms counted among the damaged, or of the card's own seed; a spoiled seed among ten must be seen."""
    project = make(**{f"seed{FIRST + 2}": "spoiled"})
    found = mutate(project, retrainings=4, noise=(0.0,))
    assert [row["seed"] for row in found["retrainings"]] == list(range(FIRST, FIRST + 4))
    assert found["false_alarms"] == {"claims": 1, "gate": 0, "either": 1}
    assert [row["seed"] for row in found["retrainings"] if row["red"]] == [FIRST + 2]
    (line,) = (line for line in telling.lines(found) if line.startswith("False alarms"))
    assert line.startswith(f"False alarms: 1 of 4 undamaged retrainings (seeds {FIRST}–{FIRST + 3}) fail")


def test_a_gate_catches_and_its_accepted_seeds_are_no_retrainings(make):
    """Catches: a gate that reads the undamaged model's evidence, or that judges the trainings it was made of."""
    project = make(GATE)
    workspace, card = project.workspace, project.card
    seeds = [FIRST, FIRST + 1, FIRST + 2, 1, 2, 3]
    accepted = [accept.accepted_from_seed(workspace, card, seed) for seed in seeds]
    list(accept.accept(card.baseline, "tiny", accepted, workspace.store))

    found = mutate(project, retrainings=1, classes=(1.0, np.inf))
    assert found["gate"] == {"kind": "retraining", "alpha": 0.05, "accepted": 6}
    assert found["claims"] == 0
    assert [row["gate"] for row in of(found, "classes")["rows"]] == ["failed", "passed"]
    assert of(found, "classes")["caught_from"]["gate"] == ALL
    assert [row["seed"] for row in found["retrainings"]] == [FIRST + 3]


def test_what_is_red_without_damage_is_left_out_and_said(make):
    """Catches: damage credited with what is broken anyway; a gate without its baseline that stops the rest."""
    project = make(CLAIMS.replace("[0.5, 0.2]", "[0.999, 0.2]") + GATE)
    found = mutate(project, classes=(1.0, 10.0))
    claim, gate = found["notes"]
    assert claim == "1 claims fail without any damage and are left out, for instance tiny:normal:0.2:accuracy"
    assert "the gate fails without any damage and is left out: tiny: its card has a gate" in gate
    assert found["claims"] == 2
    assert found["gate"] is None
    assert of(found, "classes")["rows"][0]["red"] == 2


def test_waived_claims_catch_nothing(make):
    """Catches: a claim that may fail in the suites counted as one that would have been red."""
    waiver = '\n[[waivers]]\nclaim = "clean:0:accuracy"\nowner = "eve"\nreason = "known"\nexpires = 2999-01-01\n'
    project = make("\n[claims.clean]\naccuracy = 0.8\nprecision = 0.2\n" + waiver)
    found = mutate(project, classes=(np.inf,))
    assert of(found, "classes")["rows"][0]["red_groups"] == ["clean precision"]


@pytest.mark.parametrize(
    ("card", "classes", "said"),
    [
        ("", (1.0,), r"nothing can detect damage: there is no gate, and no claim .*; write \[claims\]"),
        (
            "\n[claims.clean]\naccuracy = 0.999\n", (1.0,),
            "nothing is left to detect damage: 1 claims fail without any damage",
        ),
        (CLAIMS, (2.0, 11.0), "a level of classes must be at most 10, the number of classes, got 11"),
    ],
    ids=["nothing claimed", "nothing left", "too many classes"],
)  # fmt: skip
def test_what_no_table_could_show_is_refused(make, card, classes, said):
    """Catches: a table that is empty and green; a level beyond the classes that is taken for all of them."""
    with pytest.raises((CardError, MutationError), match=said) as caught:
        mutate(make(card), classes=classes)
    assert isinstance(caught.value, MutationError) == (classes == (2.0, 11.0))


def test_a_recipe_that_starts_by_command_or_fails_is_said(make, monkeypatch):
    """Catches: hours of training that nobody asked for; one failed training that takes all others with it."""
    project = make()
    project.edit('callable = "', 'start = "manual"\ncallable = "')
    card = project.card
    found = run_mutations(project.workspace, card, MutationOptions({"noise": (0.0,)}))
    assert found["left_out"] == {
        "undamaged retrainings": 'its recipe has start = "manual"; request this damage by name (--damage)'
    }
    train = recipes.train

    def choosy(card, images, job, about):
        if len(images) < 100:
            raise TrainingError("too few images")
        return train(card, images, job, about)

    monkeypatch.setattr(recipes, "train", choosy)
    found = run_mutations(project.workspace, card, MutationOptions({"data": (0.01, 1.0)}, 0, False, 1))
    worst, whole = of(found, "data")["rows"]
    assert worst["error"] == "training tiny with seed 0: too few images"
    assert whole["clean_accuracy"] == found["undamaged"]["clean_accuracy"]
    assert any(line.startswith("Error: fewer data, trained on 0.01") for line in telling.lines(found))


def test_without_a_recipe_what_it_takes_is_left_out(make):
    """Catches: a traceback, or rungs that are missing without a word."""
    project = make()
    text = project.path.read_text()
    project.path.write_text(re.sub(r"\[recipe\].*?\n\n", "", text, flags=re.DOTALL))
    options = MutationOptions({"data": (0.5,), "labels": (0.5,), "classes": (10.0,)})
    found = run_mutations(project.workspace, project.card, options)
    why = "the card has no [recipe]"
    assert found["left_out"] == {"fewer data": why, "shifted labels": why, "undamaged retrainings": why}
    assert [each["kind"] for each in found["damage"]] == ["classes"]
    shown = "\n".join(telling.lines(found))
    for what in found["left_out"]:
        assert f"Left out: {what}: {why}." in shown


def test_the_command_and_its_files(make, tmp_path, capsys):
    """Catches: files that are not what was shown, or written in spite of an error; options without effect."""
    project, page, whole = make(), tmp_path / "mutation.md", tmp_path / "mutation.json"
    common = ["--store", str(tmp_path / "store"), "--card", str(project.path), "mutate", "tiny", "--retrainings", "0"]
    assert main.main([*common, "--damage", "classes=2,all", "--output", str(page), "--output", str(whole)]) == 0
    out = capsys.readouterr().out
    document = json.loads(whole.read_text())
    assert document["format"] == results.FORMAT
    assert page.read_text() == telling.page(document["models"])
    for line in telling.lines(document["models"][0]):
        assert line in out
    assert "| permuted classes" in out
    for options, why in (
        (["--damage", "classes=11", "--output", str(page)], r"must be at most 10(.|\n)*was not written"),
        (["--damage", "noise", "--damage", "noise=1"], "--damage noise may be given once"),
        (["--output", str(tmp_path / "mutation.txt")], "must be a .json or .md file"),
        (["--output", str(tmp_path / "none" / "mutation.md")], "there is no folder"),
    ):
        assert main.main([*common, *options]) == 2
        assert re.search(why, capsys.readouterr().err)
    assert page.read_text() == telling.page(document["models"])
    with pytest.raises(SystemExit):
        main.main([*common, "--damage", "nois"])
    assert "did you mean 'noise'?" in capsys.readouterr().err


def test_names_are_shown_as_they_are(make):
    """Catches: a name that becomes markup, or ends a table's cell."""
    found = mutate(make(), classes=(1.0,))
    found |= {"model": "<b>a|b</b>", "data": "<script>", "notes": ["| <i>"]}
    shown = telling.page([found])
    for bad in ("<b>", "<script>", "<i>", "a|b"):
        assert bad not in shown


def test_what_is_kept_is_shown_until_something_changes(project):
    """Catches: a page that shows what other weights, thresholds or a torn file say; one that shows nothing at all."""
    project.fill()
    common = ["--card", str(project.card), "mutate", "tiny", "--retrainings", "0", "--damage", "classes=1,all"]
    assert main.main([*common, "--keep"]) == 0
    (kept,) = project.card.parent.glob("mutation/tiny.json")
    run = project.run("suites/test_clean.py", "--robustness-report=page.html", "--robustness-report=page.md")
    assert run.report["models"][0]["caught"] == {
        "damage": [{
            "kind": "classes", "title": "permuted classes", "gate": None,
            **dict.fromkeys(("claims", "either"), ALL),
        }],
        "retrainings": 0,
        "false_alarms": {"claims": 0, "gate": 0, "either": 0},
    }  # fmt: skip
    for page in ("page.html", "page.md"):
        assert ALL in (project.root / page).read_text()

    held = kept.read_text()
    for spoil in (
        lambda: kept.write_text(held[:-20]),
        lambda: project.write("models/tiny.toml", project.card.read_text().replace("loss = 2.0", "loss = 1.9")),
    ):
        kept.write_text(held)
        spoil()
        run = project.run("suites/test_clean.py", "--robustness-report=page.html")
        assert run.report["models"][0]["caught"] is None
        assert [note for note in run.report["notices"] if "robustness mutate tiny --keep" in note]
        assert ALL not in (project.root / "page.html").read_text()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return Workspace(Store(tmp_path_factory.mktemp("store")), data_root())


def with_first_claims(card):
    """
    A card with the strengths at which a metric is claimed first, where the threshold is hardest, and short fits.

    Sweeps whose source has no weights are left out: it would be trained first.
    """
    sweeps, claims = {}, {"clean": card.file.claims["clean"]}
    for name, sweep in card.file.sweeps.items():
        source, table = card.perturbation(name).source_card, card.file.claims.get(name)
        if table is None or (source and load(card.path.parent / source).file.model.weights is None):
            continue
        at = table.strengths or sweep.strengths
        first = {
            next((i for i, row in enumerate(row) if not isinstance(row, str)), 0) for row in table.thresholds.values()
        }
        rows = {metric: tuple(row[i] for i in sorted(first)) for metric, row in table.thresholds.items()}
        claims[name] = table.model_copy(update={"strengths": None, "thresholds": rows})
        swept = {"strengths": tuple(at[i] for i in sorted(first))}
        if sweep.perturbation.needs_fitting:
            swept["perturbation"] = sweep.perturbation.model_copy(update={"steps": 20})
        sweeps[name] = sweep.model_copy(update=swept)
    return replace(card, file=card.file.model_copy(update={"sweeps": sweeps, "claims": claims}))


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_card_goes_red_in_every_group_without_training(workspace, path):
    """Catches: a group (a sweep and a metric) whose thresholds are too low to fail, and let random weights through."""
    card = with_first_claims(limit_test_images(load(path), 100))  # random weights need no more
    try:
        workspace.images(card)
    except DataMissing as error:
        pytest.skip(str(error))
    ungated = card.file.model_copy(update={"gate": None})
    of = mutation_target(workspace, replace(card, file=ungated))

    def red(seed):
        model = card.file.model.model_copy(update={"weights": None, "seed": seed})
        untrained = replace(card, file=ungated.model_copy(update={"model": model, "recipe": None}))
        return set(of.row(untrained)["red_groups"])

    groups, found = {mutation.group(claim) for claim in of.claims}, red(0)
    # Random weights may take nearly all images for one class, whose recall is high then; others take another class.
    of_one_class = {group for group in groups if "[" in group}
    if of_one_class - found:
        found |= red(1) & of_one_class
    assert found == groups
    generated = {mutation.group(claim) for claim in card.claims() if claim.sweep in of.left_out}
    assert len(groups) == len({mutation.group(claim) for claim in card.claims()} - generated) >= 1


@pytest.mark.parametrize("name", ["digits-mlp", "digits-cnn"])
def test_at_most_a_fifth_of_twenty_fresh_seeds_are_red(name):
    """Catches: thresholds that healthy trainings break: at the mean of the forty nearly all fresh ones would be red."""
    red, _, total, _ = load(SHIPPED / f"{name}.toml").file.thresholds["fresh_red"].split(maxsplit=3)
    assert int(total) == 20
    assert int(red) <= 4


def test_the_docs_show_what_is_kept_and_it_is_of_the_cards_as_they_are():
    """Catches: a page, or reports, that tell what other weights, thresholds or baselines caught."""
    kept = []
    for name in ("digits-mlp", "digits-cnn"):
        card = load(SHIPPED / f"{name}.toml")
        of = Workspace(Store(Path("none")), data_root())
        found, reason = results.stored_result(card, of.weights_hash(card), of.images(card).fingerprint, 0)
        assert reason == ""
        kept.append(found)
    assert (ROOT / "docs" / "mutation.md").read_text() == telling.page(kept)
    for found in kept:
        assert found["undamaged"]["red"] == 0
        assert found["gate"]["accepted"] >= 19
        assert all(each["caught_from"]["claims"] and each["caught_from"]["gate"] for each in found["damage"])
