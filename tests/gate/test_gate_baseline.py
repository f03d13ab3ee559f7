"""Baselines: what is kept, what is refused, and that nothing is lost; the gate of a recipe on made-up retrainings."""

import json
import threading
from dataclasses import replace

import helpers
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from robustness import cards
from robustness.errors import RobustnessError
from robustness.gate import accept, baseline
from robustness.gate.baseline import AcceptedModel
from robustness.gate.decide import decide
from robustness.gate.differences import GateError, cell_value
from robustness.metrics.evidence import Evidence
from robustness.reporting.build import build
from robustness.reporting.results import ModelResult
from robustness.reporting.run_info import RunInfo
from robustness.util.hashing import sha256_json
from robustness.workspace.store import Store

CARD = helpers.CARD.replace("per_class = 3", "per_class = 20")
GATE = '\n[gate]\nkind = "{kind}"\n{more}'


@pytest.fixture
def card(tmp_path, own_path):
    return cards.load(helpers.project(tmp_path / "project", card=CARD))


@pytest.fixture
def harness(card):
    return helpers.harness(card.path)


@pytest.fixture
def swept(card, harness):
    return {name: harness.evidence(card, name) for name in ("clean", "normal")}


def gated(card, kind="recipe", more=""):
    card.path.write_text(card.path.read_text() + GATE.format(kind=kind, more=more))
    return cards.load(card.path)


def wrong(evidence: Evidence, share: float, seed: int, weights: str) -> Evidence:
    """The same evidence with a share of the images wrong, the others right, in every cell."""
    labels = evidence.labels
    errs = np.random.default_rng(seed).random(evidence.predictions.shape) < share
    subject = {**evidence.provenance["subject"], "weights": weights}
    return replace(
        evidence, predictions=np.where(errs, (labels + 1) % 10, labels).astype(np.int32),
        provenance={**evidence.provenance, "subject": subject},
    )  # fmt: skip


def trained(swept, share, seed) -> dict[str, Evidence]:
    return {name: wrong(evidence, share, 2 * seed + (name == "clean"), f"w{seed}") for name, evidence in swept.items()}


def accepted(swept, count, share=0.1, start=0):
    about = [{"weights": f"w{seed}", "device": "cpu"} for seed in range(start, start + count)]
    return [AcceptedModel(each, trained(swept, share, seed)) for seed, each in enumerate(about, start)]


def report(tmp_path, card, harness, name="run.json", **run):
    """A report as the suites write it, of a card that nothing is claimed of."""
    found = {sweep: harness.evidence(card, sweep) for sweep in ("clean", "normal")}
    about = {"started": "2024-05-01T12:00:00+00:00", "seconds": 1.0, "versions": {}, "device": "cpu", "seed": 0}
    info = RunInfo(**about | {"workers": 1, "complete": True, "problems": []} | run)
    measured = dict.fromkeys(found, ("measured", ""))
    document = build([ModelResult(card, found, [], measured=measured)], info, [])
    (tmp_path / name).write_text(json.dumps(document.as_json()))  # without a checksum: tests edit it
    return tmp_path / name


def keep(card, runs, store):
    return list(
        accept.accept(card.baseline, "tiny", [accept.accepted_from_report(run, "tiny", store) for run in runs], store)
    )


# ------------------------------------------------------------------ what is kept


def test_what_was_accepted_is_read(card, swept):
    """Catches: cells or models that change places, predictions that wrap round, counts of something else."""
    models = accepted(swept, 3)[::-1]
    baseline.write(card.baseline, "tiny", models)
    kept = baseline.read(card.baseline)

    assert [one["weights"] for one in kept.accepted] == ["w0", "w1", "w2"]
    for which, one in enumerate(models[::-1]):
        for sweep, evidence in one.swept.items():
            again = kept.evidence(which, sweep, evidence)
            assert (again.predictions == evidence.predictions).all()
            assert again.strengths == evidence.strengths
    text = json.loads(card.baseline.read_text())
    right = [int((m.swept["normal"].predictions[1] == m.swept["normal"].labels).sum()) for m in models[::-1]]
    assert text["right"]["normal"]["0.8"] == right
    assert f'"0.8": [{", ".join(map(str, right))}]' in card.baseline.read_text()  # a line a cell, for reviewers


def test_the_same_models_make_the_same_files(card, swept):
    """Catches: times or orders in the files, which would make every acceptance a change."""

    def files():
        return {path.name: path.read_bytes() for path in card.baseline.parent.iterdir() if path.is_file()}

    baseline.write(card.baseline, "tiny", accepted(swept, 4))
    before = files()
    baseline.write(card.baseline, "tiny", accepted(swept, 4)[::-1])
    assert files() == before
    baseline.write(card.baseline, "tiny", accepted(swept, 2))
    assert len(files()) == 2  # the old pack is gone


def test_a_pack_is_small(card, swept):
    """Catches: whole predictions at four bytes. Nineteen models, nine images in ten right."""
    baseline.write(card.baseline, "tiny", accepted(swept, 19))
    (pack,) = card.baseline.parent.glob("*.npz")
    decisions = 19 * sum(evidence.predictions.size for evidence in swept.values())
    assert pack.stat().st_size < decisions / 3


def test_a_filter_is_kept(card, swept):
    told = [
        replace(
            evidence,
            attack_probability=np.linspace(0, 1, evidence.predictions.size).reshape(evidence.predictions.shape),
            provenance={**evidence.provenance, "decision": {"threshold": 0.7}},
        )
        for evidence in swept.values()
    ]
    baseline.write(card.baseline, "tiny", [AcceptedModel({"weights": "w"}, dict(zip(swept, told, strict=True)))])
    again = baseline.read(card.baseline).evidence(0, "normal", told[1])
    assert ((again.attack_probability > 0.5) == (told[1].attack_probability > 0.7)).all()


def test_scores_are_kept_where_a_gate_takes_them(card, swept):
    """Catches: scores rounded on the way, which ties what was told apart; another model's or cell's; a fixed bound."""
    random, labels = np.random.default_rng(0), next(iter(swept.values())).labels
    told = {
        name: replace(
            evidence,
            attack_probability=random.random(evidence.predictions.shape, np.float32),
            probabilities=random.random((*evidence.predictions.shape, 10), np.float32),
            provenance={**evidence.provenance, "decision": {"threshold": 0.7}},
        )
        for name, evidence in swept.items()
    }
    baseline.write(
        card.baseline, "tiny", [AcceptedModel({"weights": "w"}, told)], ("accuracy", "detection_auc", "roc_auc")
    )
    again = baseline.read(card.baseline).evidence(0, "normal", told["normal"])
    assert (again.attack_probability == told["normal"].attack_probability).all()
    assert (again.probabilities == told["normal"].probabilities).all()
    assert again.provenance["decision"]["threshold"] == 0.7
    whole = replace(told["normal"], clean=told["clean"])
    for metric in ("detection_auc", "roc_auc", "detection_precision"):
        assert cell_value(metric, again, "0.8") == pytest.approx(cell_value(metric, whole, "0.8"), abs=1e-12)
    truth = np.repeat([1, 0], len(labels))
    scores = np.concatenate([told["normal"].attack_probability[1], told["clean"].attack_probability[0]])
    assert cell_value("detection_auc", again, "0.8") == pytest.approx(roc_auc_score(truth, scores))
    with pytest.raises(GateError, match="every image's probabilities, which the run did not store"):
        baseline.write(card.baseline, "tiny", accepted(swept, 1), ("roc_auc",))


def test_areas_are_gated(tmp_path, card):
    """Catches: a baseline from before the card asked, that is a traceback, or passes by what it lacks."""
    text = card.path.read_text().replace("name = ", "probabilities = true\nname = ", 1)
    card.path.write_text(text + GATE.format(kind="weights", more='margin = 0.02\nmetrics = ["roc_auc"]\n'))
    card = cards.load(card.path)
    harness = helpers.harness(card.path)
    sure = {name: harness.evidence(card, name) for name in ("clean", "normal")}
    right = np.eye(10, dtype=np.float32)[sure["clean"].labels]
    swept = {name: replace(e, probabilities=np.stack([right] * len(e.strengths))) for name, e in sure.items()}
    one = [AcceptedModel({"weights": "w0", "device": "cpu"}, swept)]
    list(accept.accept(card.baseline, "tiny", one, harness.store))
    assert "was accepted without the data that roc_auc needs" in decide(card, swept.__getitem__).message
    list(accept.accept(card.baseline, "tiny", one, harness.store, card))
    decision = decide(card, swept.__getitem__)
    assert decision.outcome == "passed"
    assert {(row["method"], row["drop"], row["losses"]) for row in decision.table["cells"]} == {("delong", 0.0, None)}
    wrong = {name: replace(e, probabilities=1 - e.probabilities) for name, e in swept.items()}
    assert decide(card, wrong.__getitem__).outcome == "failed"


def test_what_is_left_to_do_is_said(tmp_path, card, swept, harness):
    """Catches: advice to ask for a gate where the card has one, none where it looks at another file."""
    there, elsewhere = card.baseline, tmp_path / "elsewhere.json"

    def last(path, *known):
        return list(accept.accept(path, "tiny", accepted(swept, 1), harness.store, *known))[-1]

    assert "add a [gate] to the card, and pytest" in last(there, card)
    assert "name it as `baseline` in the card's [gate], and pytest" in last(elsewhere)
    asking = gated(card)
    assert last(there, asking) == "next: commit it with its .npz, and pytest suites/"
    assert "name it as `baseline` in the card's [gate], and pytest" in last(elsewhere, asking)


# ------------------------------------------------------------------ what is refused


def damaged(path, how):
    pack = next(path.parent.glob("*.npz"))
    text = path.read_text()
    if how == "edited":
        path.write_text(text.replace('"weights": "w0"', '"weights": "w9"'))
    elif how == "truncated":
        path.write_text(text[: len(text) // 2])
    elif how == "empty":
        path.write_text("{}")
    elif how == "a list":
        path.write_text("[]")
    elif how == "another format":
        path.write_text(text.replace("baseline/1", "baseline/9"))
    elif how == "truncated pack":
        pack.write_bytes(pack.read_bytes()[:-20])
    elif how == "no pack":
        pack.unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("edited", "edited or damaged"),
        ("truncated", "not a baseline"),
        ("empty", "not a baseline"),
        ("a list", "not a baseline"),
        ("another format", "baseline/9"),
        ("truncated pack", "does not match tiny.json"),
        ("no pack", "No such file"),
    ],
)
def test_a_baseline_that_is_not_as_it_was_written_gates_nothing(card, swept, how, said):
    """Catches: an edited count that is believed, a torn file that is a traceback, and anything of it that is green."""
    card = gated(card)
    baseline.write(card.baseline, "tiny", accepted(swept, 1))
    damaged(card.baseline, how)
    decision = decide(card, swept.__getitem__)
    assert decision.outcome == "errored"
    assert said in decision.message
    assert "robustness baseline accept" in decision.message


def test_the_baseline_of_another_model_is_refused(card, swept):
    card = gated(card)
    baseline.write(card.baseline, "other", accepted(swept, 1))
    assert "is the baseline of other" in decide(card, swept.__getitem__).message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": lambda e: e.labels[::-1].copy()}, "data.labels"),
        ({"classes": lambda e: e.classes[::-1]}, "data.classes: 0, 1, 2"),
        (
            {"provenance": lambda e: {**e.provenance, "subject": {**e.provenance["subject"], "seed": 5}}},
            "seed: 0 and 5",
        ),
        (
            {"provenance": lambda e: {**e.provenance, "subject": {**e.provenance["subject"], "images": "f"}}},
            "data.fingerprint",
        ),
    ],
)
def test_unlike_evidence_is_refused(card, swept, change, said):
    """Catches: another order of labels or classes that is compared image by image all the same."""
    card = gated(card)
    baseline.write(card.baseline, "tiny", accepted(swept, 5))
    other = {name: replace(e, **{key: f(e) for key, f in change.items()}) for name, e in swept.items()}
    decision = decide(card, other.__getitem__)
    assert decision.outcome == "errored"
    assert said in decision.message


def test_zero_cells_and_cells_without_numbers_are_no_baseline(card, swept, harness):
    """Catches: a baseline that any model passes."""
    broken = {name: replace(e, status=("raised Boom",) * len(e.strengths)) for name, e in swept.items()}
    for models, said in [
        ([], "the run has no cells to accept"),
        ([AcceptedModel({"weights": "w"}, {})], "the run has no cells to accept"),
        ([AcceptedModel({"weights": "w"}, broken)], r"has numbers \(raised Boom\)"),
    ]:
        with pytest.raises(GateError, match=said):
            list(accept.accept(card.baseline, "tiny", models, harness.store))
    assert not card.baseline.exists()


def test_the_same_model_twice_and_unlike_ones_are_refused(card, swept, harness):
    with pytest.raises(GateError, match="weights w0 appear more than once"):
        list(accept.accept(card.baseline, "tiny", accepted(swept, 1) * 2, harness.store))
    models = accepted(swept, 2)
    clean = models[1].swept["clean"]
    models[1] = AcceptedModel(models[1].about, {"clean": clean})
    with pytest.raises(GateError, match=r"number 2 were not swept under the same conditions(.|\n)*sweeps.normal"):
        list(accept.accept(card.baseline, "tiny", models, harness.store))
    other = replace(
        clean, provenance={**clean.provenance, "subject": {**clean.provenance["subject"], "factory": "a:b"}}
    )
    pair = [AcceptedModel({"weights": "a"}, {"clean": clean}), AcceptedModel({"weights": "b"}, {"clean": other})]
    with pytest.raises(GateError, match=r"model.factory: .* and a:b"):
        list(accept.accept(card.baseline, "tiny", pair, harness.store))


def test_runs_that_are_not_whole_are_refused_and_the_baseline_stays(tmp_path, card, harness):
    """Catches: half a run, or evidence that was made anew since, in the place of what was accepted."""
    run = report(tmp_path, card, harness)
    keep(card, [run], harness.store)
    before = card.baseline.read_bytes()

    changed = json.loads(run.read_text())
    changed["models"][0]["sweeps"][1]["evidence"]["digest"] = "0" * 64
    (tmp_path / "anew.json").write_text(json.dumps(changed))
    gone = json.loads(run.read_text())
    gone["models"][0]["sweeps"][0]["evidence"]["key"] = "ab" * 32
    (tmp_path / "gone.json").write_text(json.dumps(gone))
    none = json.loads(run.read_text())
    none["models"][0]["sweeps"][0]["evidence"] = None
    (tmp_path / "none.json").write_text(json.dumps(none))
    (tmp_path / "torn.json").write_text(run.read_text()[:100])
    (tmp_path / "foreign.json").write_text("[1]")
    report(tmp_path, card, harness, "partial.json", complete=False)
    for name, said in [
        ("anew", "was recomputed after the run"),
        ("gone", "cannot be read"),
        ("none", "stored no evidence"),
        ("torn", "not a readable JSON report"),
        ("foreign", "format must be"),
        ("partial", "the run is incomplete"),
        ("absent", "No such file"),
    ]:
        with pytest.raises(RobustnessError, match=said):
            keep(card, [tmp_path / f"{name}.json"], harness.store)
    with pytest.raises(GateError, match="no model 'huge'; its models: tiny"):
        accept.accepted_from_report(run, "huge", harness.store)
    assert card.baseline.read_bytes() == before
    assert baseline.read(card.baseline).accepted[0]["weights"] == harness.weights_hash(card)


def test_accepting_while_a_run_writes(tmp_path, card, harness):
    """
    A run keeps writing its report and its evidence while several processes' worth of accepts go on.

    Catches: a baseline of half a run; packs that an accept takes away from another; files that are left behind.
    """
    run = report(tmp_path, card, harness)
    evidence = harness.evidence(card, "normal")
    path = harness.store.path("evidence", evidence.provenance["key"])
    content, text, stop, failed = path.read_bytes(), run.read_bytes(), threading.Event(), []

    def write():
        while not stop.is_set():
            harness.store.write(path, content)
            harness.store.write(run, text)

    def take():
        store = Store(harness.store.root)
        try:
            for _ in range(5):
                keep(card, [run], store)
                baseline.read(card.baseline)
        except Exception as error:  # told in the test's own thread
            failed.append(error)

    threads = [threading.Thread(target=take) for _ in range(3)]
    writer = threading.Thread(target=write)
    for thread in (writer, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    writer.join()
    assert failed == []
    assert len(list(card.baseline.parent.glob("*"))) == 2


def test_a_full_disk_leaves_the_baseline_as_it_was(card, swept, monkeypatch):
    """Catches: a JSON that names a pack which is not there."""
    baseline.write(card.baseline, "tiny", accepted(swept, 1))
    before = card.baseline.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(GateError, match="No space left"):
        baseline.write(card.baseline, "tiny", accepted(swept, 2))
    assert card.baseline.read_bytes() == before
    assert len(baseline.read(card.baseline).accepted) == 1


# ------------------------------------------------------------------ the gate of a recipe


@pytest.mark.parametrize(
    ("count", "share", "outcome", "by"),
    [
        (19, 0.1, "passed", "rank"),
        (19, 0.3, "failed", "rank"),
        (10, 0.1, "passed", "t bound"),
        (10, 0.3, "failed", "t bound"),
        (4, 0.3, "inconclusive", "t bound"),
        (1, 0.3, "inconclusive", "t bound"),
    ],
)
def test_a_retraining_is_held_against_the_accepted(card, swept, count, share, outcome, by):
    """Catches: a gate that fails healthy retrainings, passes damaged ones, or decides on too few."""
    card = gated(card)
    baseline.write(card.baseline, "tiny", accepted(swept, count))
    decision = decide(card, trained(swept, share, 701).__getitem__)
    assert decision.outcome == outcome
    rows = {row["cell"]: row for row in decision.table["cells"]}
    assert list(rows) == ["clean:0:accuracy", "normal:mean:accuracy"]
    assert decision.table["decided_by"] == by
    theirs = [
        np.mean([(e.predictions[row] == e.labels).mean() for row in range(2)])
        for e in (one.swept["normal"] for one in accepted(swept, count))
    ]
    assert rows["normal:mean:accuracy"]["mean"] == pytest.approx(np.mean(theirs))
    drawn = [row for row in decision.table["strengths"] if row["sweep"] == "normal"]
    assert [row["strength"] for row in drawn] == ["0.2", "0.8"]
    assert np.mean([row["mean"] for row in drawn]) == pytest.approx(np.mean(theirs))
    assert all(row["least"] <= row["mean"] <= row["most"] for row in drawn)
    assert drawn[1]["least"] == min(
        (e.predictions[1] == e.labels).mean() for e in (one.swept["normal"] for one in accepted(swept, count))
    )


def test_an_accepted_retraining_passes_its_own_gate(card, swept):
    card = gated(card)
    baseline.write(card.baseline, "tiny", accepted(swept, 19))
    for seed in (0, 7, 18):
        decision = decide(card, trained(swept, 0.1, seed).__getitem__)
        assert decision.outcome == "passed"
        assert "its weights equal those of an accepted model" in decision.table["notes"]


def test_a_waived_summary_does_not_count(card, swept):
    damaged = trained(swept, 0.1, 701) | {"clean": wrong(swept["clean"], 0.5, 1, "w777")}
    card = gated(card)
    baseline.write(card.baseline, "tiny", accepted(swept, 19))
    assert decide(card, damaged.__getitem__).outcome == "failed"
    card.path.write_text(
        card.path.read_text()
        + '[[waivers]]\ncell = "clean:0:accuracy"\nowner = "eve"\nreason = "known"\nexpires = 2999-01-01\n'
    )
    decision = decide(cards.load(card.path), damaged.__getitem__)
    assert decision.outcome == "passed"
    assert [row["verdict"] for row in decision.table["cells"]] == ["waived", "within"]


def test_weights_are_held_against_one_model(card, swept):
    card = gated(card, "weights", "margin = 0.1\nmetrics = ['accuracy', 'f1', 'recall[3]']\n")
    baseline.write(card.baseline, "tiny", accepted(swept, 2))
    assert "its baseline has 2" in decide(card, swept.__getitem__).message
    baseline.write(card.baseline, "tiny", accepted(swept, 1))
    decision = decide(card, trained(swept, 0.6, 701).__getitem__)
    assert decision.outcome == "failed"
    assert {row["metric"]: row["method"] for row in decision.table["cells"]} == {
        "accuracy": "paired score", "f1": "delta", "recall[3]": "paired score"
    }  # fmt: skip
    assert 0 <= decision.table["passes_if_equal"] <= 1


def test_margins_by_strength(card, swept):
    """Catches: a margin that is another strength's."""
    card = gated(card, "weights", "margin = 0.15\nmargins = { normal = [0.9, 0.001] }\n")
    baseline.write(card.baseline, "tiny", accepted(swept, 1))
    cells = decide(card, trained(swept, 0.3, 701).__getitem__).table["cells"]
    assert [(cell["cell"], cell["margin"], cell["verdict"]) for cell in cells][1:] == [
        ("normal:0.2:accuracy", 0.9, "passed"), ("normal:0.8:accuracy", 0.001, "failed")
    ]  # fmt: skip


def forged(card, **changes):
    """Change a baseline as somebody would who can compute its sum."""
    document = json.loads(card.baseline.read_text())
    document.pop("checksum")
    for key, change in changes.items():
        document[key] = change(document[key])
    document["checksum"] = sha256_json(document)
    card.baseline.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"right": lambda r: {**r, "clean": {"0": [n - 1 for n in r["clean"]["0"]]}}}, "counts of correct predictions"),
        ({"accepted": lambda a: [*a, *a]}, "models, cells or images"),
        ({"protocol": lambda p: {**p, "data": {**p["data"], "images": 7}}}, "models, cells or images|not a baseline"),
        ({"protocol": lambda p: {**p, "data": {**p["data"], "labels": "0" * 64}}}, "labels"),
        ({"outcomes": lambda o: {**o, "file": "../" + o["file"]}}, "must name an .npz file beside it"),
    ],
)
def test_counts_of_a_baseline_are_those_of_its_pack(card, swept, changes, said):
    """Catches: a count that people review and approve, and a gate that takes another."""
    card = gated(card)
    baseline.write(card.baseline, "tiny", accepted(swept, 1))
    baseline.read(card.baseline)
    forged(card, **changes)
    with pytest.raises(GateError, match=said):
        baseline.read(card.baseline)
