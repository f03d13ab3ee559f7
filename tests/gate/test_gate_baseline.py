"""Baselines: what is kept, what is refused, and that nothing is lost; the retraining gate on made-up retrainings."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import helpers
import numpy as np
import pytest
from scipy.stats import binomtest
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
def workspace(card):
    return helpers.open_workspace(card.path)


@pytest.fixture
def swept(card, workspace):
    return {name: workspace.evidence(card, name) for name in ("clean", "normal")}


def gated(card, kind="retraining", more=""):
    card.path.write_text(card.path.read_text() + GATE.format(kind=kind, more=more))
    return cards.load(card.path)


def of_subject(evidence: Evidence, **subject) -> Evidence:
    """The same evidence of another subject."""
    subject = {**evidence.provenance["subject"], **subject}
    return replace(evidence, provenance={**evidence.provenance, "subject": subject})


def wrong(evidence: Evidence, share: float, seed: int, weights: str) -> Evidence:
    """The same evidence with a share of the images wrong, the others right, in every cell."""
    labels = evidence.labels
    errs = np.random.default_rng(seed).random(evidence.predictions.shape) < share
    predictions = np.where(errs, (labels + 1) % 10, labels).astype(np.int32)
    return replace(of_subject(evidence, weights=weights), predictions=predictions)


def trained(swept, share, seed) -> dict[str, Evidence]:
    return {name: wrong(evidence, share, 2 * seed + (name == "clean"), f"w{seed}") for name, evidence in swept.items()}


def accepted(swept, count, share=0.1, start=0):
    about = [{"weights": f"w{seed}", "device": "cpu"} for seed in range(start, start + count)]
    return [AcceptedModel(each, trained(swept, share, seed)) for seed, each in enumerate(about, start)]


@pytest.mark.parametrize(
    ("accepted_on", "max_age", "outcome", "words"),
    [
        ("2020-01-01", None, "passed", "the baseline was accepted on 2020-01-01 ("),
        ("2020-01-01", 30, "error", "days ago, and --robustness-baseline-max-age is 30"),
        ("today", 0, "passed", "(0 days ago)"),
        (None, None, "passed", ""),
        (None, 30, "error", "does not say when it was accepted"),
    ],
)
def test_old_baselines(card, swept, accepted_on, max_age, outcome, words):
    """Catches: a limit that is not held, an unknown age that counts as young, a file of an older version refused."""
    card = gated(card, kind="paired", more="margin = 0.5")
    about = {"weights": swept["clean"].provenance["subject"]["weights"], "versions": {"numpy": "1.0", "torch": None}}
    baseline.write(card.baseline, card.name, [AcceptedModel(about, swept)])
    document = json.loads(card.baseline.read_text())
    del document["checksum"]
    if accepted_on is None:
        del document["accepted_on"]
    elif accepted_on != "today":
        document["accepted_on"] = accepted_on
    card.baseline.write_text(json.dumps({**document, "checksum": sha256_json(document)}))
    decision = decide(card, swept.__getitem__, max_age=max_age)
    notes = decision.table.get("notes", [])
    assert decision.outcome == outcome
    assert words in "; ".join([decision.message, *notes])
    assert (f"accepted with numpy 1.0, measured now with {np.__version__}" in notes) == (outcome == "passed")


@pytest.mark.parametrize(
    ("images", "differing", "limit", "outcome"),
    [(500, 0, 0.01, "passed"), (500, 25, 0.01, "failed"), (500, 4, 0.01, "inconclusive"), (40, 0, 0.01, "inconclusive"),
     (40, 0, 0.2, "passed"), (300, 0, 0.01, "passed"), (295, 0, 0.01, "inconclusive")],
)  # fmt: skip
def test_decisions_of_a_converted_file(card, swept, images, differing, limit, outcome):
    """
    Catches: decisions that are compared by whether they are right, a bound that is not exact, a passed gate of few
    images, another model's baseline without the name of that model.
    """
    named = f'baseline = "baselines/original.json"\nmargin = 0.5\nmax_disagreement = {limit}'
    card = gated(card, kind="paired", more=named)
    some = {name: resized(evidence, images) for name, evidence in swept.items()}
    other = {name: of_subject(evidence, weights="converted") for name, evidence in some.items()}
    row = other["clean"].predictions.copy()
    row[0, :differing] = (row[0, :differing] + 5) % 10  # wrong before and after
    other["clean"] = replace(other["clean"], predictions=row)
    baseline.write(card.baseline, "original", [AcceptedModel({"weights": "original"}, some)])
    assert 'accepted_model = "original"' in decide(card, other.__getitem__).message
    card.path.write_text(card.path.read_text() + '\naccepted_model = "original"\n')
    card = cards.load(card.path)
    with pytest.raises(GateError, match="compares with original, whose baseline this would replace"):
        list(accept.accept(card.baseline, "tiny", [AcceptedModel({"weights": "converted"}, other)], None, card))
    decision = decide(card, other.__getitem__)
    assert decision.outcome == outcome
    (cell,) = [cell for cell in decision.table["cells"] if cell["cell"] == "clean:0:disagreement"]
    assert cell["losses"] == differing
    high = binomtest(differing, images).proportion_ci(0.9, "exact").high
    assert cell["high"] == pytest.approx(high, abs=2e-4)


def resized(evidence, images):
    """Evidence of so many images, all of them wrong."""
    labels = np.arange(images, dtype=np.int32) % 10
    shape = (len(evidence.strengths), images)
    predictions = np.broadcast_to((labels + 1) % 10, shape).astype(np.int32)
    numbers = np.full(shape, 0.5, np.float32)
    arrays = {"labels": labels, "predictions": predictions}
    for name in ("confidence", "loss", "snr", "l2", "linf", "true_probability"):
        if isinstance(getattr(evidence, name, None), np.ndarray):
            arrays[name] = numbers
    return replace(evidence, clean=None, **arrays)


def test_a_retrained_model_that_fails_is_shown_the_other_gate(card, swept):
    """Catches: a paired gate that blames a model for its seed, without a word on the gate that does not."""
    card = gated(card, kind="paired", more="margin = 0.02")
    baseline.write(card.baseline, card.name, accepted(swept, 1, share=0.1))
    decision = decide(card, trained(swept, 0.8, 7).__getitem__)
    assert decision.outcome == "failed"
    assert any('kind = "retraining"' in note for note in decision.table["notes"])


def report(tmp_path, card, workspace, name="run.json", **run):
    """A report as the suites write it, of a card that nothing is claimed of."""
    found = {sweep: workspace.evidence(card, sweep) for sweep in ("clean", "normal")}
    about = {"started": "2024-05-01T12:00:00+00:00", "seconds": 1.0, "versions": {}, "device": "cpu", "seed": 0}
    info = RunInfo(**about | {"workers": 1, "complete": True, "problems": []} | run)
    measured = dict.fromkeys(found, ("measured", ""))
    document = build([ModelResult(card, found, [], measured=measured)], info, [])
    (tmp_path / name).write_text(json.dumps(document.as_json()))  # without a checksum: tests edit it
    return tmp_path / name


def take(card, models, store, *known):
    """Accept models, and return what the command says."""
    return list(accept.accept(card.baseline, "tiny", models, store, *known))


def keep(card, run, store):
    return take(card, [accept.accepted_from_report(run, "tiny", store)], store)


# ------------------------------------------------------------------ what is kept


def test_what_was_accepted_is_read(card, swept):
    """Catches: cells or models that change places, predictions that wrap round, whole ones at four bytes each."""
    models = accepted(swept, 19, start=10)[::-1]
    baseline.write(card.baseline, "tiny", models)
    kept = baseline.read(card.baseline)

    assert [one["weights"] for one in kept.accepted] == [f"w{seed}" for seed in range(10, 29)]
    for which, one in enumerate(models[::-1]):
        for sweep, evidence in one.swept.items():
            again = kept.evidence(which, sweep, evidence)
            assert (again.predictions == evidence.predictions).all()
            assert again.strengths == evidence.strengths
    text = card.baseline.read_text()
    right = [int((m.swept["normal"].predictions[1] == m.swept["normal"].labels).sum()) for m in models[::-1]]
    assert json.loads(text)["right"]["normal"]["0.8"] == right
    assert f'"0.8": [{", ".join(map(str, right))}]' in text  # a line a cell, for reviewers
    (pack,) = card.baseline.parent.glob("*.npz")
    assert pack.stat().st_size < 19 * sum(evidence.predictions.size for evidence in swept.values()) / 3


def test_the_same_models_make_the_same_files(card, swept):
    """Catches: times or orders in the files, which would make every acceptance a change."""

    def files(models):
        baseline.write(card.baseline, "tiny", models)
        return {path.name: path.read_bytes() for path in card.baseline.parent.iterdir() if path.is_file()}

    assert files(accepted(swept, 4)) == files(accepted(swept, 4)[::-1])
    assert len(files(accepted(swept, 2))) == 2  # the old pack is gone


def test_scores_are_kept_where_a_gate_takes_them(card, swept):
    """Catches: scores rounded on the way, which ties what was told apart; another model's or cell's; a fixed bound."""
    random, labels = np.random.default_rng(0), swept["clean"].labels
    told = {
        name: replace(
            evidence,
            attack_probability=random.random(evidence.predictions.shape, np.float32),
            probabilities=random.random((*evidence.predictions.shape, 10), np.float32),
            provenance={**evidence.provenance, "decision": {"threshold": 0.7}},
        )
        for name, evidence in swept.items()
    }
    due = told["normal"]

    def again(*metrics):
        baseline.write(card.baseline, "tiny", [AcceptedModel({"weights": "w"}, told)], metrics)
        return baseline.read(card.baseline).evidence(0, "normal", due)

    assert ((again().attack_probability > 0.5) == (due.attack_probability > 0.7)).all()
    kept = again("accuracy", "detection_auc", "roc_auc")
    assert (kept.attack_probability == due.attack_probability).all()
    assert (kept.probabilities == due.probabilities).all()
    assert kept.provenance["decision"]["threshold"] == 0.7
    whole = replace(due, clean=told["clean"])
    for metric in ("detection_auc", "roc_auc", "detection_precision"):
        assert cell_value(metric, kept, "0.8") == pytest.approx(cell_value(metric, whole, "0.8"), abs=1e-12)
    truth = np.repeat([1, 0], len(labels))
    scores = np.concatenate([due.attack_probability[1], told["clean"].attack_probability[0]])
    assert cell_value("detection_auc", kept, "0.8") == pytest.approx(roc_auc_score(truth, scores))
    with pytest.raises(GateError, match="every image's probabilities, which the run did not store"):
        baseline.write(card.baseline, "tiny", accepted(swept, 1), ("roc_auc",))


def test_areas_are_gated(tmp_path, card):
    """Catches: a baseline from before the card asked, that is a traceback, or passes by what it lacks."""
    text = card.path.read_text().replace("name = ", "store_probabilities = true\nname = ", 1)
    card.path.write_text(text + GATE.format(kind="paired", more='margin = 0.02\nmetrics = ["roc_auc"]\n'))
    card = cards.load(card.path)
    workspace = helpers.open_workspace(card.path)
    sure = {name: workspace.evidence(card, name) for name in ("clean", "normal")}
    right = np.eye(10, dtype=np.float32)[sure["clean"].labels]
    swept = {name: replace(e, probabilities=np.stack([right] * len(e.strengths))) for name, e in sure.items()}
    one = [AcceptedModel({"weights": "w0", "device": "cpu"}, swept)]
    take(card, one, workspace.store)
    message = decide(card, swept.__getitem__).message
    assert "was accepted without the data that roc_auc needs; accept it again" in message
    take(card, one, workspace.store, card)
    decision = decide(card, swept.__getitem__)
    assert decision.outcome == "passed"
    assert {(row["method"], row["drop"], row["losses"]) for row in decision.table["cells"]} == {("delong", 0.0, None)}
    wrong = {name: replace(e, probabilities=1 - e.probabilities) for name, e in swept.items()}
    assert decide(card, wrong.__getitem__).outcome == "failed"


def test_what_is_left_to_do_is_said(tmp_path, card, swept, workspace):
    """Catches: advice to ask for a gate where the card has one, none where it looks at another file."""
    there, elsewhere = card.baseline, tmp_path / "elsewhere.json"

    def last(path, *known):
        return list(accept.accept(path, "tiny", accepted(swept, 1), workspace.store, *known))[-1]

    assert "add a [gate] to the card, and pytest" in last(there, card)
    assert "name it as `baseline` in the card's [gate], and pytest" in last(elsewhere)
    asking = gated(card)
    assert last(there, asking) == "next: commit it with its .npz, and pytest suites/"
    assert "name it as `baseline` in the card's [gate], and pytest" in last(elsewhere, asking)


# ------------------------------------------------------------------ what is refused


def edit(old, new=""):
    return lambda path: path.write_text(path.read_text().replace(old, new))


def leave(text):
    return lambda path: path.write_text(text)


def forge(key, change):
    """Change a baseline as somebody would who can compute its sum."""

    def forged(path):
        document = json.loads(path.read_text())
        document.pop("checksum")
        document[key] = change(document[key])
        path.write_text(json.dumps({**document, "checksum": sha256_json(document)}))

    return forged


def pack_of(path):
    return next(path.parent.glob("*.npz"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (edit('"weights": "w0"', '"weights": "w9"'), "edited or damaged"),
        (lambda path: path.write_text(path.read_text()[:500]), "not a baseline"),
        (leave("{}"), "not a baseline"),
        (leave("[]"), "not a baseline"),
        (edit("baseline/1", "baseline/9"), "baseline/9"),
        (lambda path: pack_of(path).write_bytes(pack_of(path).read_bytes()[:-20]), "does not match tiny.json"),
        (lambda path: pack_of(path).unlink(), "No such file"),
        # A count that people review and approve, and a gate that takes another.
        (forge("right", lambda r: {**r, "clean": {"0": [n - 1 for n in r["clean"]["0"]]}}), "counts of correct pred"),
        (forge("accepted", lambda a: [*a, *a]), "models, cells or images"),
        (forge("protocol", lambda p: {**p, "data": {**p["data"], "images": 7}}), "models, cells or images"),
        (forge("protocol", lambda p: {**p, "data": {**p["data"], "labels": "0" * 64}}), "labels"),
        (forge("outcomes", lambda o: {**o, "file": "../" + o["file"]}), "must name an .npz file beside it"),
    ],
)
def test_a_baseline_that_is_not_as_it_was_written_gates_nothing(card, swept, damage, said):
    """Catches: an edited count that is believed, a torn file that is a traceback, and anything of it that is green."""
    card = gated(card)
    baseline.write(card.baseline, "tiny", accepted(swept, 1))
    assert len(baseline.read(card.baseline).accepted) == 1
    damage(card.baseline)
    if damage.__name__ == "forged":  # the gate alone would refuse other labels as another protocol
        with pytest.raises(GateError, match=said):
            baseline.read(card.baseline)
    decision = decide(card, swept.__getitem__)
    assert decision.outcome == "error"
    assert said in decision.message
    assert "robustness baseline accept" in decision.message


def test_the_baseline_of_another_model_is_refused(card, swept):
    card = gated(card)
    baseline.write(card.baseline, "other", accepted(swept, 1))
    assert "is the baseline of other" in decide(card, swept.__getitem__).message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda e: replace(e, labels=e.labels[::-1].copy()), "data.labels"),
        (lambda e: replace(e, classes=e.classes[::-1]), "data.classes: 0, 1, 2"),
        (lambda e: of_subject(e, seed=5), "seed: 0 and 5"),
        (lambda e: of_subject(e, images="f"), "data.fingerprint"),
    ],
)
def test_unlike_evidence_is_refused(card, swept, change, said):
    """Catches: another order of labels or classes that is compared image by image all the same."""
    card = gated(card)
    baseline.write(card.baseline, "tiny", accepted(swept, 5))
    decision = decide(card, {name: change(e) for name, e in swept.items()}.__getitem__)
    assert decision.outcome == "error"
    assert said in decision.message


def test_what_is_no_baseline_is_refused(card, swept, workspace):
    """Catches: a baseline that any model passes: zero cells, cells without numbers, a model twice, unlike models."""
    broken = {name: replace(e, status=("raised Boom",) * len(e.strengths)) for name, e in swept.items()}
    first, second = accepted(swept, 2)
    clean = {"clean": second.swept["clean"]}
    other = {"clean": of_subject(clean["clean"], factory="a:b")}
    for models, said in [
        ([], "the run has no cells to accept"),
        ([AcceptedModel({"weights": "w"}, {})], "the run has no cells to accept"),
        ([AcceptedModel({"weights": "w"}, broken)], r"has numbers \(raised Boom\)"),
        ([first, first], "weights w0 appear more than once"),
        (
            [first, AcceptedModel(second.about, clean)],
            r"number 2 were not swept under the same conditions(.|\n)*sweeps.normal",
        ),
        (
            [AcceptedModel({"weights": "a"}, clean), AcceptedModel({"weights": "b"}, other)],
            r"model.factory: .* and a:b",
        ),
    ]:
        with pytest.raises(GateError, match=said):
            take(card, models, workspace.store)
    assert not card.baseline.exists()


def test_runs_that_are_not_whole_are_refused_and_the_baseline_stays(tmp_path, card, workspace):
    """Catches: half a run, or evidence that was made anew since, in the place of what was accepted."""
    run = report(tmp_path, card, workspace)
    keep(card, run, workspace.store)
    before, text = card.baseline.read_bytes(), run.read_text()

    def changed(sweep, **evidence):
        document = json.loads(text)
        of = document["models"][0]["sweeps"][sweep]
        of["evidence"] = of["evidence"] | evidence if evidence else None
        return json.dumps(document)

    for content, said in [
        (changed(1, digest="0" * 64), "was recomputed after the run"),
        (changed(0, key="ab" * 32), "cannot be read"),
        (changed(0), "stored no evidence"),
        (text[:100], "not a readable JSON report"),
        ("[1]", "format must be"),
        (report(tmp_path, card, workspace, complete=False).read_text(), "the run is incomplete"),
    ]:
        run.write_text(content)
        with pytest.raises(RobustnessError, match=said):
            keep(card, run, workspace.store)
    with pytest.raises(RobustnessError, match="No such file"):
        keep(card, tmp_path / "absent.json", workspace.store)
    run.write_text(text)
    with pytest.raises(GateError, match="no model 'huge'; its models: tiny"):
        accept.accepted_from_report(run, "huge", workspace.store)
    assert card.baseline.read_bytes() == before
    assert baseline.read(card.baseline).accepted[0]["weights"] == workspace.weights_hash(card)


def test_accepting_while_a_run_writes(tmp_path, card, workspace):
    """
    A run keeps writing its report and its evidence while several processes' worth of accepts go on.

    Catches: a baseline of half a run; packs that an accept takes away from another; files that are left behind.
    """
    run = report(tmp_path, card, workspace)
    path = workspace.store.path("evidence", workspace.evidence(card, "normal").provenance["key"])
    content, text, stop = path.read_bytes(), run.read_bytes(), threading.Event()

    def write():
        while not stop.is_set():
            workspace.store.write(path, content)
            workspace.store.write(run, text)

    def accept_again():
        store = Store(workspace.store.root)
        for _ in range(5):
            keep(card, run, store)
            baseline.read(card.baseline)

    with ThreadPoolExecutor(4) as pool:
        writer = pool.submit(write)
        accepting = [pool.submit(accept_again) for _ in range(3)]
        wait(accepting)
        stop.set()
    for done in (writer, *accepting):
        done.result()
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


# ------------------------------------------------------------------ the retraining gate


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
    theirs = [one.swept["normal"] for one in accepted(swept, count)]
    right = np.array([(e.predictions == e.labels).mean(1) for e in theirs])
    assert rows["normal:mean:accuracy"]["mean"] == pytest.approx(right.mean())
    drawn = [row for row in decision.table["strengths"] if row["sweep"] == "normal"]
    assert [row["strength"] for row in drawn] == ["0.2", "0.8"]
    for name, due in (("mean", right.mean(0)), ("least", right.min(0)), ("most", right.max(0))):
        assert [row[name] for row in drawn] == pytest.approx(due)


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
    card = gated(card, "paired", "margin = 0.1\nmetrics = ['accuracy', 'f1', 'recall[3]']\n")
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
    card = gated(card, "paired", "margin = 0.15\nmargins = { normal = [0.9, 0.001] }\n")
    baseline.write(card.baseline, "tiny", accepted(swept, 1))
    cells = decide(card, trained(swept, 0.3, 701).__getitem__).table["cells"]
    assert [(cell["cell"], cell["margin"], cell["verdict"]) for cell in cells][1:] == [
        ("normal:0.2:accuracy", 0.9, "passed"), ("normal:0.8:accuracy", 0.001, "failed")
    ]  # fmt: skip
