"""What `robustness update-thresholds` does to a card, and training side by side, on a small project."""

import math
import multiprocessing
import time

import numpy as np
import pytest
import tiny_project

from robustness import claims
from robustness.cards import edit
from robustness.cards.schema import NO_CLAIM
from robustness.classifiers import weights
from robustness.cli import main
from robustness.errors import CardError, TrainingError
from robustness.search.search import search
from robustness.thresholds import retrainings
from robustness.thresholds.update import CardUpdate
from robustness.util import atomic_write
from robustness.workspace import parallel as processes
from robustness.workspace import training
from robustness.workspace.models import recipe_hash

SEEDS = list(range(1000, 1008))


@pytest.fixture
def project(tmp_path):
    return tiny_project.make(tmp_path)


def update(project, **settings):
    settings = {"seeds": 8, "fresh": 0, "workers": 1, **settings}
    return CardUpdate(project.workspace, project.card, **settings).run()


def test_update_from_nothing(project):
    updated = update(project, fresh=2)
    card, said = project.card, project.card.file.thresholds
    assert len(updated.done) == 2
    assert updated.verdicts
    assert not updated.broken
    assert project.trained() == [0, *SEEDS, 2000, 2001]
    made = weights.metadata(project.weights)
    assert made["recipe"] == said["recipe"] == recipe_hash(project.workspace, card)
    assert said["seeds"] == "1000-1007"
    assert said["left_out_red"] == "0 of 8"
    assert said["fresh_red"] in {f"{n} of 2 (seeds 2000-2001)" for n in range(3)}
    assert said["command"] == "robustness update-thresholds tiny --seeds 8"
    assert (said["images"], said["data"], said["draws"]) == (200, "digits test", 0)
    assert set(card.file.claims) == {"clean", "normal"}
    assert set(card.file.claims["normal"].thresholds) == {"accuracy", "precision", "recall"}
    # The file reads as its author left it, and the new lists are lines.
    text = project.path.read_text()
    assert text.startswith("# A comment that stays.\n")
    assert ':factory"  # mine\n' in text
    assert all(line.endswith("]") for line in text.splitlines() if line.startswith(("accuracy", "precision")))


def test_thresholds_are_those_of_the_healthy_trainings(project):
    """Computed again from evidence, in one's own few lines; catches seeds, cells or rows that were mixed up."""
    update(project)
    values = []
    for seed in SEEDS:
        evidence = project.workspace.evidence(project.card.reseeded(seed), "normal")
        values.append((evidence.predictions == evidence.labels).mean(axis=1))
    c = project.card.file.thresholds["c"]
    due = np.mean(values, axis=0) - c * np.maximum(np.std(values, axis=0, ddof=1), 1 / 200)
    got = project.card.file.claims["normal"].thresholds["accuracy"]
    assert len(got) == 2
    for threshold, exact in zip(got, due, strict=True):
        if threshold == NO_CLAIM:
            assert exact < 0.1 + 3 * math.sqrt(0.09 / 200) + 1e-4
        else:
            assert exact - 1e-4 < threshold <= exact
    assert any(threshold != NO_CLAIM for threshold in got)


def test_a_second_update_makes_nothing_twice(project):
    """Catches: files that are written again, other bytes by force, trainings made again, fresh seeds left out."""

    def state():
        files = [(path.read_bytes(), path.stat().st_mtime_ns) for path in (project.path, project.weights)]
        return files, project.trained()

    update(project)
    before = state()
    updated = update(project)
    assert (updated.done, updated.verdicts) == ((), ())
    assert state() == before
    assert len(update(project, force=True).done) == 2
    assert [content for content, _ in state()[0]] == [content for content, _ in before[0]]
    assert project.trained() == before[1]
    (done,) = update(project, fresh=2).done
    assert "fresh" in done
    assert project.trained() == [0, *SEEDS, 2000, 2001]


def test_a_changed_recipe_is_noticed(project):
    update(project)
    project.edit("arguments = { ", "arguments = { steps = 41, ")
    older, newer = update(project).done
    assert "stale because its recipe changed" in older
    assert "c =" in newer
    assert project.trained() == [0, *SEEDS] * 2
    assert update(project).done == ()


def test_changed_sweeps_update_thresholds_alone(project):
    update(project)
    project.edit("strengths = [0.2, 0.9]", "strengths = [0.1, 0.9]")
    (done,) = update(project).done
    assert "other images, sweeps, seeds or source models" in done
    assert project.trained() == [0, *SEEDS]


def test_a_source_with_other_weights_updates_thresholds(project):
    """Catches: thresholds that stay those under examples of a model that is not there any more."""
    update(project)
    other = project.path.with_name("other.toml")
    other.write_text(project.path.read_text().replace('"tiny"', '"other"').replace("tiny.safe", "other.safe"))
    state = weights.read(project.weights)
    other.with_suffix(".safetensors").write_bytes(weights.to_bytes(state, {}))
    project.edit("[claims", '[sweeps.moved]\nkind = "fgsm"\nsource = "other.toml"\nstrengths = [0.1]\n\n[claims')
    assert len(update(project).done) == 1
    assert update(project).done == ()
    moved = {name: value + 1 for name, value in state.items()}
    other.with_suffix(".safetensors").write_bytes(weights.to_bytes(moved, {}))
    assert "seeds or source models" in update(project).done[0]


SEARCH = """
[search]
budget = {{ norm = "linf", size = {size} }}
min_confidence = 0.15
images = 10
max_examples = 20
max_flip_rate = 0.01  # mine

[claims.clean]
accuracy = 0.5

[thresholds]
recipe = "of another training"
"""


def test_the_flip_rate_is_that_of_the_healthy_trainings(project):
    """Computed again by searches of one's own. Catches: other images or seeds, and a rate that is rounded down."""
    project.path.write_text(project.path.read_text() + SEARCH.format(size=0.05))
    update(project)
    card, images = project.card, project.workspace.images(project.card)
    rates = []
    for seed in SEEDS:
        module = project.workspace.classifier(card.reseeded(seed)).module
        found = search(module, images, card.file.search.budget, count=10, min_confidence=0.15, max_examples=20)
        rates.append(len(found["found"]) / 10)
    due = np.mean(rates) + card.file.thresholds["c"] * max(np.std(rates, ddof=1), 1 / 10)
    assert due <= card.file.search.max_flip_rate <= due + 1e-4
    assert " # mine" in project.path.read_text()
    assert update(project).done == ()
    project.edit("max_examples = 20", "max_examples = 10")
    assert "other images, sweeps" in update(project).done[0]


def test_a_search_that_no_training_survives_is_refused(project):
    """Catches: a flip rate of 1 or more, which every model keeps."""
    project.path.write_text(project.path.read_text() + SEARCH.format(size=1.0))
    before = project.path.read_bytes()
    with pytest.raises(TrainingError, match=r"search: .*within linf 1.*use a smaller `budget`"):
        update(project)
    assert project.path.read_bytes() == before


def test_a_rate_of_few_images_has_a_wide_threshold(project):
    """Against n of the evidence: of few images, one moves a rate by more than one of all test images does."""
    update(project)
    other = project.path.with_name("other.toml")
    other.write_text(project.path.read_text().replace('"tiny"', '"other"').replace("tiny.safe", "other.safe"))
    other.with_suffix(".safetensors").write_bytes(project.weights.read_bytes())
    project.edit("[claims", '[sweeps.moved]\nkind = "fgsm"\nsource = "other.toml"\nstrengths = [0.004]\n\n[claims')
    project.edit("[claims.clean]", '[claims.clean]\n"recall[3]" = [0.1]')
    card = project.card
    _, resolution = retrainings.measure(project.workspace, card, SEEDS)
    evidence = project.workspace.evidence(card.reseeded(SEEDS[0]), "moved")
    n = claims.measure(evidence, "0.004", "transferability").n
    assert 0 < n < 100
    named = dict(zip(map(str, retrainings.threshold_cells(card)), resolution.tolist(), strict=True))
    assert named["moved at 0.004: transferability"] == 1 / n
    assert named["moved at 0.004: accuracy"] == 1 / 200
    assert named["clean at 0: recall[3]"] == 1 / 20


def test_claims_written_by_hand_stay(project):
    project.path.write_text(project.path.read_text() + "\n[claims.clean]\naccuracy = 0.2 # mine\nloss = 2.0\n")
    updated = update(project)
    assert "trained" in updated.done[0]
    assert "handwritten" in updated.done[1]
    assert "accuracy = 0.2 # mine" in project.path.read_text()
    assert [verdict.claim.metric for verdict in updated.verdicts] == ["accuracy", "loss"]
    assert update(project).done == ()
    update(project, force=True)
    # What was claimed of a sweep is what is claimed of it now.
    assert list(project.card.file.claims["clean"].thresholds) == ["accuracy", "loss"]
    assert 0.2 < project.card.file.claims["clean"].thresholds["accuracy"][0] < 1
    assert 0 < project.card.file.claims["clean"].thresholds["loss"][0] < 2


def test_fresh_seeds_that_are_red_are_counted_and_named(tmp_path):
    project = tiny_project.make(tmp_path, seed2001="spoiled")
    card_update = CardUpdate(project.workspace, project.card, seeds=8, fresh=3, workers=1)
    card_update.run()
    assert project.card.file.thresholds["fresh_red"] in ("1 of 3 (seeds 2000-2002)", "2 of 3 (seeds 2000-2002)")
    (notice,) = [notice for notice in card_update.workspace.notices if "fresh seed 2001 of tiny fails" in notice]
    assert "clean at 0: accuracy" in notice


def test_an_interrupted_update_goes_on(tmp_path):
    project = tiny_project.make(tmp_path, seed1003="is interrupted")
    before = project.path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        update(project)
    assert project.path.read_bytes() == before
    assert update(project).done
    assert project.trained() == [0, *SEEDS[:4], *SEEDS[3:]]


def test_unhealthy_trainings_are_named_and_nothing_is_written(tmp_path):
    project = tiny_project.make(tmp_path, seed1002="spoiled")
    before = project.path.read_bytes()
    with pytest.raises(TrainingError, match=r"seeds 1002\)"):
        update(project)
    assert project.path.read_bytes() == before


@pytest.mark.parametrize(("seconds", "count"), [(59.9, 40), (60.1, 10)])
def test_the_time_of_one_training_decides_how_many(project, monkeypatch, seconds, count):
    card_update, metadata = CardUpdate(project.workspace, project.card), weights.metadata
    assert card_update._how_many() == 40
    assert project.trained() == [1000]
    monkeypatch.setattr(weights, "metadata", lambda path: metadata(path) | {"seconds": str(seconds)})
    assert card_update._how_many() == count
    assert project.trained() == [1000]


def test_too_long_a_training_asks_for_a_number():
    with pytest.raises(TrainingError, match="--seeds N"):
        retrainings.default_retraining_count(700)


def test_a_card_changed_meanwhile_is_left_alone(project):
    card = project.card
    claims = {"clean": {"accuracy": [0.5]}}
    project.edit("# A comment", "# Another comment")
    assert edit.write_claims(card, claims, {"c": 3.0}).file.claims["clean"].thresholds == {"accuracy": (0.5,)}
    project.edit("0.9]", "0.8]")
    before = project.path.read_bytes()
    with pytest.raises(CardError, match="changed while"):
        edit.write_claims(card, claims, {"c": 3.1})
    assert project.path.read_bytes() == before


@pytest.mark.parametrize("claims", ["claims = { clean = { accuracy = 0.4 } }\n", "claims.clean.accuracy = [0.4]\n"])
def test_claims_in_another_notation_are_replaced_or_left(project, claims):
    """Never a card that does not load, or that says something else than it did."""
    project.path.write_text(claims + project.path.read_text())
    before = project.path.read_bytes()
    try:
        new = edit.write_claims(
            project.card, {"clean": {"accuracy": [0.5]}, "normal": {"accuracy": [0.5, None]}}, {"c": 3.0}
        )
    except CardError:
        assert project.path.read_bytes() == before
    else:
        assert {sweep: dict(table.thresholds) for sweep, table in new.file.claims.items()} == {
            "clean": {"accuracy": (0.5,)},
            "normal": {"accuracy": (0.5, NO_CLAIM)},
        }


def test_tables_in_any_order_are_changed_in_place():
    text = (
        "[claims.b]  # b\naccuracy = [0.1]\n\n[model]\nx = 1\n\n[claims.a]\n# why\n"
        "accuracy = [0.1, 0.2]\n\n[z]\ny = 2\n"
    )
    new = edit.with_claims(text, {"a": {"accuracy": [0.5, None]}, "b": {"accuracy": [0.6]}}, {"c": 3.4})
    assert new == (
        '[claims.b]  # b\naccuracy = [0.6000]\n\n[model]\nx = 1\n\n[claims.a]\n# why\n'
        'accuracy = [0.5000, "no claim possible"]\n\n[z]\ny = 2\n\n[thresholds]\nc = 3.4\n'
    )  # fmt: skip


def test_rows_stand_in_columns():
    new = edit.with_claims("x = 1\n", {"n": {"accuracy": [0.5, None], "f1": [None, None]}}, {})
    assert new.splitlines()[3:5] == [
        'accuracy = [0.5000,              "no claim possible"]',
        'f1       = ["no claim possible", "no claim possible"]',
    ]


def test_replacing_keeps_permissions_and_leaves_nothing_beside(tmp_path):
    file = tmp_path / "card.toml"
    file.write_text("old")
    file.chmod(0o640)
    atomic_write.replace(file, b"new")
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o640)
    atomic_write.replace(tmp_path / "fresh", b"")
    assert (tmp_path / "fresh").stat().st_mode & 0o600 == 0o600
    (tmp_path / "folder").mkdir()
    with pytest.raises(CardError, match="is unchanged"):
        atomic_write.replace(tmp_path / "folder", b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.toml", "folder", "fresh"]


def test_side_by_side_gives_the_weights_of_one_by_one(tmp_path):
    project = tiny_project.make(tmp_path)
    cards_ = [project.card.reseeded(seed) for seed in (3, 1, 2)]
    alone = training.train_many(cards_, tmp_path / "a", tmp_path, 1)
    beside = training.train_many(cards_, tmp_path / "b", tmp_path, 2)
    assert list(map(weights.content_hash, alone)) == list(map(weights.content_hash, beside))
    assert len({weights.content_hash(path) for path in alone}) == 3
    assert [weights.metadata(path)["seed"] for path in beside] == ["3", "1", "2"]
    # What is in the store is not trained again, and needs no process.
    before = project.trained()
    training.train_many(cards_, tmp_path / "b", tmp_path, 2)
    assert project.trained() == before


@pytest.mark.parametrize(("fault", "told"), [("raises", "ValueError: no luck"), ("dies", "died")])
def test_the_first_failure_ends_the_others(tmp_path, monkeypatch, fault, told):
    monkeypatch.setattr(processes, "_run_job", tiny_project.failing_training)
    project = tiny_project.make(tmp_path, seed1="sleeps", seed2=fault, seed3="sleeps")
    started = time.monotonic()
    with pytest.raises(TrainingError, match=told) as caught:
        training.train_many([project.card.reseeded(seed) for seed in (1, 2, 3)], tmp_path / "store", tmp_path, 2)
    assert "training tiny with seed" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 250
    assert multiprocessing.active_children() == []


def test_progress_of_many_is_one_and_reaches_the_end(project):
    seen, begun = [], []

    class Bar:
        def __init__(self, what):
            begun.append(what)

        def __enter__(self):
            return lambda done, total: seen.append(done / total)

        def __exit__(self, *_):
            pass

    training.train_many(
        [project.card.reseeded(seed) for seed in (1, 2)], project.root / "store", project.root, 1, progress=Bar
    )
    assert begun == ["training, percent of 2 models"]
    assert seen == sorted(seen)
    assert seen[0] < 0.1
    assert seen[-1] == 1


def test_trained_weights_are_written_where_one_asks_for_them(project, capsys):
    """Catches: weights of another seed, or of the last of several, in the file that was asked for."""
    file = project.root / "retrained.safetensors"
    common = [
        "--store",
        str(project.root / "store"),
        "--card",
        str(project.path),
        "train",
        "tiny",
        "--output",
        str(file),
    ]
    assert main.main([*common, "--seeds", "5"]) == 0
    assert file.read_bytes() == project.workspace.weights(project.card.reseeded(5)).read_bytes()
    assert project.trained() == [5]
    assert main.main([*common, "--seeds", "5,6"]) == 2
    assert "takes one model and one seed" in capsys.readouterr().err
    assert project.trained() == [5]


def test_stored_weights_of_another_recipe_are_trained_again(project):
    """Catches: weights in the place of others whose checksum fits, but not their recipe, taken as trained."""
    files = {
        seed: training.train_many([project.card.reseeded(seed)], project.root / "store", project.root)[0]
        for seed in (5, 6)
    }
    files[5].write_bytes(files[6].read_bytes())
    assert training.train_many([project.card.reseeded(5)], project.root / "store", project.root) == [files[5]]
    assert weights.metadata(files[5])["recipe"] == files[5].stem
    assert project.trained() == [5, 6, 5]
