"""The HTML page: its numbers against the JSON's, what text from elsewhere cannot do to it, what is never green."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import found_models
import numpy as np
import pytest
import test_reporting as made
from PIL import Image
from pydantic import ValidationError
from sklearn.metrics import confusion_matrix

from robustness.errors import StoreError
from robustness.reporting import misclassifications, writers
from robustness.reporting.gate_report import GateReport
from robustness.reporting.html import gallery, heatmaps
from robustness.reporting.html.curves import BOTTOM, TOP, curves
from robustness.reporting.report import KnownDoubt, RunReport, WaiverReport
from robustness.reporting.report_types import RED
from robustness.reporting.results import ClaimOutcome, ModelResult
from robustness.reporting.run_info import Skip
from robustness.reporting.sweep_report import EvidenceReference, NumberReport, Pictures, SweepReport
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

load_card = made.load_card
page = writers.FORMS[".html"]
NOTHING = Workspace(Store(Path()), Path())
VOID = {"meta", "img", "line", "rect", "path", "circle", "polyline", "polygon", "br", "wbr"}


class Tree(HTMLParser):
    """Every tag with its attributes, the text of the whole, and what each <data> says beside its value."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.data, self.open, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], "tags that are not closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "data":
            self.data.append((dict(attributes), []))

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text.append(text)
        if "data" in self.open:
            self.data[-1][1].append(text)

    def of(self, tag, **wanted):
        return [a for t, a in self.tags if t == tag and wanted.items() <= a.items()]

    def values(self, kind):
        return [(float(a["value"]), "".join(said)) for a, said in self.data if a.get("class") == kind]


def report(load_card, **how):
    doubtful = made.evidence(("0",), (0.97,), doubts=["labels look shuffled"])
    document = made.report(load_card(), {"clean": doubtful, "normal": beside(made.NORMAL)}, **how)
    picture = gallery.picture(np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8))
    for entry in document.models[0].sweeps[1].gallery:
        entry.pictures = Pictures(clean=picture, perturbation=picture, perturbed=picture, magnified=5)
    return document


def beside(evidence, clean=made.CLEAN):
    return replace(evidence, clean=clean)


# ------------------------------------------------------------------ numbers


def test_every_claim_has_its_numbers(load_card):
    """Catches: a table shifted by a row, a rounded value in place of the JSON's, an end of an interval exchanged."""
    document = report(load_card)
    tree, claims = Tree(page(document)), document.models[0].claims
    assert [a["data-claim"] for a in tree.of("tr") if "data-claim" in a] == [claim.id for claim in claims]
    for kind in ("value", "low", "high"):
        shown = tree.values(kind)
        assert [value for value, _ in shown] == [getattr(claim.numbers, kind) for claim in claims]
        assert all(float(said) == pytest.approx(value, abs=5.1e-5) for value, said in shown)
    assert [value for value, _ in tree.values("threshold")] == [claim.threshold for claim in claims]


def test_curves_are_where_their_numbers_are(load_card):
    """Catches: an axis upside down, an interval of another strength, a threshold drawn as if it were measured."""
    model = report(load_card).models[0]
    accuracy, precision = curves(model, model.sweeps[1])
    assert (accuracy.metric, precision.metric) == ("accuracy", "precision")
    cells = [model.sweeps[0].cells[0], *model.sweeps[1].cells]
    for point, cell in zip(accuracy.points, cells, strict=True):
        numbers = cell.metrics["accuracy"]
        due = [BOTTOM - (BOTTOM - TOP) * end for end in (numbers.value, numbers.low, numbers.high)]
        assert [point.y, point.low, point.high] == pytest.approx(due)
        threshold = cell.claims["accuracy"].threshold if "accuracy" in cell.claims else None
        assert point.threshold == (None if threshold is None else pytest.approx(BOTTOM - (BOTTOM - TOP) * threshold))
    apart = np.diff([point.x for point in accuracy.points])
    assert apart == pytest.approx(apart[0])  # 0, 0.1, …, 0.4: places by size, the clean pass at 0
    assert [point.failed for point in accuracy.points] == [False, False, False, True, False]
    shown = Tree(page(report(load_card))).of("g", **{"class": "point"})
    assert [float(a["data-value"]) for a in shown[:5]] == [cell.metrics["accuracy"].value for cell in cells]


def test_no_line_leads_over_a_strength_without_a_number(load_card):
    document = made.report(load_card(), {"clean": made.CLEAN, "normal": made.SICK})
    model = document.models[0]
    accuracy = curves(model, model.sweeps[1])[0]
    assert [point.y is None for point in accuracy.points] == [False, False, True, True, False]
    assert [len(run) for run in accuracy.stretches()] == [2, 1]
    assert [len(line.split()) for line in accuracy.line("y")] == [2, 1]
    assert Tree(page(document)).of("path", **{"class": "cross"})


def test_what_was_not_asked_for_is_no_failure(load_card):
    """Catches: a cross, as for a crash, where a metric is claimed at other strengths alone."""
    model = report(load_card).models[0]
    del model.sweeps[0].cells[0].metrics["precision"]
    precision = curves(model, model.sweeps[1])[1]
    assert [point.strength for point in precision.points] == list(made.STRENGTHS)
    assert [name for _, name in precision.across] == ["clean", *made.STRENGTHS]


WAIVER = WaiverReport(
    claim="clean:0:accuracy", cell=None, owner="the owner", reason="its reason", expires="2030-01-31", expired=False
)


def gate(strength="0.3"):
    """A paired gate as the document has it: one cell of the first noise, whose accepted accuracy was one half."""
    cell = {
        "cell": f"normal:{strength}:accuracy", "sweep": "normal", "strength": strength, "metric": "accuracy",
        "margin": 0.01, "baseline": 0.5, "candidate": 0.4375, "drop": 0.0625, "low": 0.031, "high": 0.0942,
        "losses": 30, "gains": 5, "lost": [4, 17], "gained": [8], "mcnemar": 0.0001, "smallest_drop": 0.02,
        "images_needed": 1234, "verdict": "failed",
    }  # fmt: skip
    table = {"kind": "paired", "cells": [cell], "notes": ["a note"], "passes_if_equal": 0.87}
    return GateReport(outcome="failed", message="at worst normal is worse", table=table)


@pytest.mark.parametrize("kind", ["paired", "retraining"])
def test_a_baseline_is_drawn_where_the_document_has_one(load_card, kind):
    """Catches: the number of the accepted model, or the mean of its retrainings, drawn elsewhere or not at all."""
    document = report(load_card)
    sweep = document.models[0].sweeps[1]
    row = {"sweep": "normal", "strength": sweep.cells[1].strength, "metric": "accuracy", "mean": 0.5}
    row |= {"least": 0.4, "most": 0.6}
    strengths = [row, row | {"sweep": "uniform", "mean": 0.1}, row | {"metric": "recall", "mean": 0.2}]
    table = {"kind": kind, "cells": [], "strengths": strengths}
    means = GateReport(outcome="passed", message="fine", table=table)
    document.models[0].gate = gate(strength=row["strength"]) if kind == "paired" else means
    accuracy = curves(document.models[0], sweep)[0]
    middle = pytest.approx((TOP + BOTTOM) / 2)
    assert [point.baseline for point in accuracy.points] == [None, None, middle, None, None]
    assert len(Tree(page(document)).of("path", **{"class": "diamond"})) == 1


def test_confusion_is_scikit_learns():
    """Catches: rows and columns exchanged, the matrix of another strength."""
    draws = np.random.default_rng(0)
    labels = np.arange(90) % 3
    rows = np.stack([np.where(draws.random(90) < share, draws.integers(0, 3, 90), labels) for share in (0.1, 0.5, 0.9)])
    found = beside(
        replace(made.evidence(("1", "2", "3"), (1,) * 3, n=90), labels=labels, predictions=rows),
        made.evidence(("0",), (1.0,), n=90),
    )
    said = misclassifications.confusion(found)
    shares = [float((row == labels).mean()) for row in rows]
    due = next(i for i, share in enumerate(shares) if share <= (1 + min(shares)) / 2)
    assert said.strength == found.strengths[due]
    assert said.matrix == confusion_matrix(labels, rows[due]).tolist()
    drawn = [(each.label, each.images) for each in misclassifications.attractors(found, 2)]
    assert drawn == sorted(
        ((name, int(((rows[2] == c) & (labels != c)).sum())) for c, name in enumerate(made.CLASSES)),
        key=lambda each: -each[1],
    )


def test_many_classes_are_gathered():
    """Catches: images lost or counted twice where classes are put together, a page that grows with their square."""
    classes = tuple(f"class {i}" for i in range(1000))
    labels = np.arange(3000) % 1000
    predictions = np.where(labels < 5, 7, labels)[None]
    found = replace(made.evidence(("1",), (1,), n=3000), labels=labels, classes=classes, predictions=predictions)
    said = misclassifications.confusion(found)
    assert len(said.classes) == misclassifications.CLASSES
    assert said.classes[-1] == misclassifications.OTHERS
    assert {f"class {i}" for i in (0, 1, 2, 3, 4, 7)} <= set(said.classes)
    matrix = np.array(said.matrix)
    assert matrix.sum() == 3000
    seven = said.classes.index("class 7")
    assert matrix[:, seven].sum() == 18
    assert matrix.sum() - matrix.trace() == 15


def test_heat_maps_show_the_documents_counts(load_card):
    document = report(load_card)
    sweep = document.models[0].sweeps[1]
    tree = Tree(page(document))
    counts = [(float(a["value"]), "".join(said)) for a, said in tree.data if "class" not in a]
    shown = [int(value) for value, said in counts if said == f"{value:g}"]
    matrix = [n for row in sweep.confusion.matrix for n in row]
    assert str(matrix)[1:-1] in str(shown)
    rows = heatmaps.attractors(document.models[0], sweep).rows
    assert [name for name, _ in rows] == ["clean", *made.STRENGTHS]
    for (name, shades), wrong in zip(rows, (3, 10, 18, 45, 60), strict=True):
        assert sum(shade.value for shade in shades) == wrong, name
        assert sum(shade.share for shade in shades) == pytest.approx(1)


def test_the_gallery_shows_what_was_misled():
    """Each at the weakest strength that misleads it, right when clean, of several classes, of one batch."""
    found = beside(made.evidence(made.STRENGTHS, (0.9, 0.8, 0.5, 0.4), batch_size=20))
    chosen = misclassifications.gallery(found)
    assert len(chosen) == misclassifications.PICTURED
    assert {entry.true for entry in chosen} == set(made.CLASSES)
    assert len({entry.image // 20 for entry in chosen}) == 1
    for entry in chosen:
        image, row = entry.image, found.index(entry.strength)
        right = found.predictions[:, image] == found.labels[image]
        assert made.CLEAN.predictions[0, image] == found.labels[image]
        assert not right[row]
        assert right[:row].all()
        assert entry.perturbed.label == made.CLASSES[found.predictions[row, image]]
        assert entry.perturbed.probability == pytest.approx(float(found.confidence[row, image]))


def test_the_gallery_of_what_holds_shows_that():
    held = beside(made.evidence(made.STRENGTHS, (1,) * 4), made.evidence(("0",), (1,)))
    [entry] = misclassifications.gallery(held)
    assert (entry.image, entry.strength) == (0, "0.4")
    assert entry.perturbed.label == entry.true
    assert misclassifications.gallery(made.NORMAL) == []  # nothing to compare with


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (2, 9, 9), (3, 300, 200)])
def test_pictures_are_the_images(shape):
    """Catches: channels exchanged, rows for columns, a picture larger than it need be."""
    image = np.random.default_rng(0).random(shape, np.float32)
    kind, _, content = gallery.picture(image).partition(",")
    read = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))), np.float32) / 255
    step = 3 if shape[1] == 300 else 1
    due = image[:, ::step, ::step]
    due = due.mean(0) if shape[0] == 2 else due.transpose(1, 2, 0).squeeze()
    assert read.shape == due.shape
    assert kind == ("data:image/jpeg;base64" if shape[1] == 300 else "data:image/png;base64")
    assert np.abs(read - due).mean() < (0.06 if step > 1 else 0.003)


def test_a_report_has_room_for_so_many_pictures(load_card, monkeypatch):
    """Catches: a file that grows with every sweep; pictures left out without a word."""
    document = made.report(load_card(), {"clean": made.CLEAN, "normal": beside(made.NORMAL)})
    document.models[0].sweeps *= 2
    tried = []

    def fill(entries, *given):
        tried.append(entries)
        return 10

    monkeypatch.setattr(gallery, "_render_pictures", fill)
    monkeypatch.setattr(gallery, "ROOM", 10)
    gallery.add_gallery(document, NOTHING, [])
    assert len(tried) == 1
    assert document.notices == ["no pictures of mlp under normal, nor of the following: the pictures before fill 0 MiB"]


def test_ctrl_c_among_the_pictures_loses_no_report(load_card, monkeypatch):
    document = made.report(load_card(), {"clean": made.CLEAN, "normal": beside(made.NORMAL)})

    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(gallery, "_render_pictures", interrupted)
    gallery.add_gallery(document, NOTHING, [])
    assert document.notices == ["no pictures of mlp under normal, nor of the following: interrupted"]
    assert page(document)


def crossed(document, models):
    """Make a document of several models attacked by each other; of (source, target) the value."""
    some = document.models[0]
    document.models = []
    for target in dict.fromkeys(t for _, t in models):
        model = some.model_copy(update={"name": target, "claims": []}, deep=True)
        template = model.sweeps.pop(1)
        for (source, of), value in models.items():
            about = {"name": f"from {source}", "source": source if source != of else None}
            sweep = template.model_copy(update=about, deep=True)
            metric = "transferability" if source != of else "attack_success_rate"
            for cell in sweep.cells:
                cell.metrics[metric] = NumberReport(value=value, low=None, high=None, note="")
            if of == target:
                model.sweeps.append(sweep)
        document.models.append(model)
    return document


def test_the_transfer_matrix(load_card):
    """Catches: source and target exchanged, the diagonal mixed up with transfer."""
    values = {("a", "b"): 0.2, ("b", "a"): 0.7, ("a", "a"): 0.9, ("b", "b"): 0.4, ("a", "c"): 0.1}
    document = crossed(report(load_card), values)
    matrices = list(heatmaps.transfers(document))
    assert [caption for caption, _ in matrices] == [f"transferability of gaussian at {s}" for s in made.STRENGTHS]
    found = {
        (source, target): shade.value
        for source, shades in matrices[0][1].rows
        for target, shade in zip(matrices[0][1].columns, shades, strict=True)
    }
    assert {pair: value for pair, value in found.items() if value is not None} == values
    assert "transferability of gaussian at 0.3" in page(document)


def test_corruptions_are_a_map_of_severities(load_card):
    """Catches: severities in the order of their texts, a sweep's numbers in another's row, "—" for 0, one row alone."""
    document = report(load_card)
    model = document.models[0]
    template = model.sweeps.pop()
    assert heatmaps.corruptions(model) is None
    for name, values in (("fog", {"1": 0.9, "10": 0.0}), ("snow", {"2": 0.5, "1": None})):
        sweep = template.model_copy(update={"name": name, "kind": "corruption", "gallery": []}, deep=True)
        sweep.cells = sweep.cells[: len(values)]
        for cell, (severity, value) in zip(sweep.cells, values.items(), strict=True):
            cell.strength, cell.metrics["accuracy"].value = severity, value
        model.sweeps.append(sweep)
    heat = heatmaps.corruptions(model)
    assert heat.columns == ["1", "2", "10"]
    assert {name: [cell.text for cell in cells] for name, cells in heat.rows} == {
        "fog": ["0.900", "—", "0.000"],
        "snow": ["—", "0.500", "—"],
    }
    assert heat.rows[0][1][2].share == 1
    assert len(Tree(page(document)).of("table", **{"class": "heat corruptions"})) == 1


# ------------------------------------------------------------------ verdict


def test_the_verdict_comes_first(load_card):
    tree = Tree(page(report(load_card)))
    words = "".join(tree.text)
    assert "Robustness report: NO-GO: mlp, 2024-05-01" in words.partition("{")[0]
    assert tree.of("header")[0]["class"] == "verdict failed"
    shown = words.rpartition("}")[2].split("\n")
    start = shown.index("✗ NO-GO: mlp")
    assert shown[start + 1] == "FAILED: 8 claims on 1 model: 5 passed, 3 failed"


@pytest.mark.parametrize("fate", RED)
def test_nothing_is_green_where_all_is_red(load_card, fate):
    card = load_card()
    document = made.report(card, {}, [made.outcome(card, i, fate, "Boom") for i in range(8)])
    tree = Tree(page(document))
    assert tree.of("header")[0]["class"] == "verdict failed"
    assert not [a for _, a in tree.tags if "passed" in str(a.get("class")) or a.get("class") == "passed"]
    assert "Boom" in " ".join(tree.text)


def test_what_is_not_passed_looks_so(load_card):
    """Catches: green for want of claims, for a run that was interrupted, or for a verdict that nobody knows."""
    empty = Tree(page(made.built([])))
    assert empty.of("header")[0]["class"] == "verdict failed"
    assert "no claim ran" in " ".join(empty.text)
    interrupted = page(made.report(load_card(""), outcomes=[], run=made.RUN | {"complete": False}))
    assert "This run was interrupted, so the report is partial." in interrupted
    unknown = report(load_card).model_copy(update={"verdict": "inconclusive"})
    assert Tree(page(unknown)).of("header")[0]["class"] == "verdict open"


def test_waivers_and_gates_are_shown(load_card):
    document = report(load_card)
    model = document.models[0]
    model.waivers, model.gate = [WAIVER], gate()
    text = " ".join(" ".join(Tree(page(document)).text).split())
    assert "mlp: Waiver (in force until 2030-01-31, the owner): claim clean:0:accuracy: its reason" in text
    assert "Gate (paired): failed" in text
    assert "Gate: at worst normal is worse." in text
    assert "passes in 87% of cases" in text
    assert "0.0625 [0.0310, 0.0942]" in text
    assert f"Gate: lost in {model.gate.table.cells[0].cell}: images 4, 17, …, counted from 0." in text
    assert "1,234 images" in text


# ------------------------------------------------------------------ text from elsewhere

PAYLOAD = "\"'></style></title></svg></data><x-evil onload=alert(1)>{{ 7 * 7 }}|\n\u202e" + "y" * 300
WORDS = (".format", ".verdict", ".outcome", ".bound", ".run.started")
"""Ends of places where no other text can stand."""
CHOSEN = re.compile(r"(cells\[\]\.(metrics|claims)|parameters|versions)$")


def poisoned(value, target, place=""):
    """Put the payload in every text at one place of a document, or for the names of keys there."""
    if isinstance(value, list):
        return [poisoned(each, target, f"{place}[]") for each in value]
    if isinstance(value, dict):
        chosen = CHOSEN.search(place)
        return {
            (PAYLOAD if chosen and target == f"{place}.*" else key): poisoned(
                each, target, f"{place}.{'_' if chosen else key}"
            )
            for key, each in value.items()
        }
    return PAYLOAD if place == target and isinstance(value, str) else value


def places(value, place=""):
    if isinstance(value, list):
        for each in value:
            yield from places(each, f"{place}[]")
    elif isinstance(value, dict):
        chosen = CHOSEN.search(place)
        if chosen:
            yield f"{place}.*"
        for key, each in value.items():
            yield from places(each, f"{place}.{'_' if chosen else key}")
    elif isinstance(value, str):
        yield place


def whole(load_card):
    """A document with something at every place that the page shows."""
    document = report(load_card, run=made.RUN | {"problems": ["a problem"]}, notices=["a notice"])
    model = document.models[0]
    model.known_doubts = [KnownDoubt(doubt="a doubt", reason="a reason")]
    model.waivers, model.gate = [WAIVER], gate()
    document.counts.skips = [Skip(model="m", reason="no data", claims=1)]
    return document


def test_no_text_is_markup_anywhere(load_card):
    """Catches: any one place of the document that a template writes without escaping, in text or in an attribute."""
    document = whole(load_card)
    known = {tag for tag, _ in Tree(page(document)).tags}
    keys = {key for _, attributes in Tree(page(document)).tags for key in attributes}
    plain = document.as_json()
    tried, shown = sorted(set(places(plain))), []
    for target in tried:
        try:
            text = page(RunReport.model_validate(poisoned(plain, target)))
        except ValidationError:
            assert target.endswith(WORDS)
            continue
        tree = Tree(text)
        assert {tag for tag, _ in tree.tags} <= known, target
        assert {key for _, attributes in tree.tags for key in attributes} <= keys, target
        assert "\u202e" not in text, target
        shown += [target] if "x-evil" in " ".join(tree.text) else []
    assert len(tried) > 60
    for place in ("[].name", "[].description", "sweeps[].name", "cells[].strength", "[].message", "gallery[].true"):
        assert any(target.endswith(place) for target in shown), place


def test_the_page_needs_nothing_else(load_card):
    """Catches: a script, a font or a picture from a network, a page that allows one."""
    tree = Tree(page(whole(load_card)))
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in tree.tags}
    for _, attributes in tree.tags:
        assert not any(key.startswith("on") for key in attributes)
        for key in ("src", "href"):
            assert attributes.get(key, "#").startswith(("#", "data:image/"))
    assert tree.of("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"].startswith("default-src 'none'")


def test_links_lead_somewhere(load_card):
    document = report(load_card)
    document.models.append(document.models[0].model_copy(update={"name": "other"}))
    document.counts.models.append(document.counts.models[0].model_copy(update={"name": "other"}))
    tree = Tree(page(document))
    ids = [a["id"] for _, a in tree.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"].removeprefix("#") for a in tree.of("a")} <= set(ids)
    assert len(tree.of("section", **{"class": "model"})) == 2


def test_one_sided_evidence(load_card):
    """Without evidence there is the claims' own numbers, and no gallery that pretends."""
    card = load_card()
    outcomes = made.judged(card, {"clean": made.CLEAN, "normal": made.NORMAL})
    tree = Tree(page(made.report(card, {"clean": made.CLEAN, "normal": None}, outcomes)))
    assert [value for value, _ in tree.values("value")] == [o.numbers["value"] for o in outcomes]
    assert not tree.of("img")


def test_two_claims_on_one_cell(load_card):
    """Catches: a claim told twice in the list of what is red, or not at all."""
    card = load_card()
    outcomes = [ClaimOutcome(claim, "failed", f"message {i}", {}, "t::t") for i, claim in enumerate(card.claims())]
    text = page(made.built([ModelResult(card, {}, outcomes)]))
    red = text.partition('<section id="red">')[2].partition("</section>")[0]
    assert [red.count(f"message {i}") for i in range(8)] == [1] * 8


def test_pictures_of_a_model_with_random_weights(tmp_path):
    """Catches: pictures that a card with a seed never gets, and advice to train what has no recipe."""
    net = "from torch import nn\ndef Net(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))"
    card = found_models.card(tmp_path, 'factory = "net_of_pictures:Net"', "seed = 0", net_of_pictures=net)
    workspace = found_models.open_workspace(tmp_path)
    evidence = workspace.evidence(card, "normal")
    named = EvidenceReference(key=workspace.key(card, "normal"), digest=evidence.digest)
    said = SweepReport.model_construct(name="normal", evidence=named)
    assert gallery.verified_evidence(workspace, card, said).digest == evidence.digest
    workspace.weights(card).unlink()
    with pytest.raises(StoreError, match=f"random weights are not in this store; run the suites with {card.path}"):
        gallery.verified_evidence(workspace, card, said)
