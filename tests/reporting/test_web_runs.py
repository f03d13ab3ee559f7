"""The HTML report of runs of pytest, and of `robustness report` afterwards: pictures, rebuilt pages, edited JSON."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from robustness import cards
from robustness.cli import main
from robustness.workspace.examples import examples
from robustness.workspace.store import Store
from robustness.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("own_path")

ALL = "suites"
BOTH = ("--robustness-report=report.html", "--robustness-report=report.json")


def galleries(document):
    return [entry for model in document["models"] for sweep in model["sweeps"] for entry in sweep["gallery"]]


def shown(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.fixture
def ran(project, monkeypatch):
    """The tiny project after a run that left run.json, and the command to call in it."""
    assert project.fill().plain(ALL, "--robustness-report=run.json").ret == 0
    monkeypatch.chdir(project.root)
    return project


@pytest.fixture
def call(capsys):
    def run(*arguments):
        capsys.readouterr()
        code = main.main([*map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def edited(project, change, name="run.json"):
    """Edit a report, and leave out its checksum, as those of the first versions."""
    document = json.loads((project.root / "run.json").read_text())
    del document["checksum"]
    change(document)
    (project.root / name).write_text(json.dumps(document))


# ------------------------------------------------------------------ pytest


def test_pictures_are_those_of_the_sweep(project):
    """Catches: pictures of other images, strengths or draws than the predictions beside them; a JSON without them."""
    before = project.fill().entries()
    run = project.plain(ALL, *BOTH)
    assert run.ret == 0
    document = run.report
    assert document["notices"] == []
    page = (project.root / "report.html").read_text()
    card = cards.load(project.card)
    workspace = Workspace(Store(project.store), project.root / "data", threads=1)
    entries = galleries(document)
    assert entries
    assert all(entry["pictures"] for entry in entries)
    for sweep in document["models"][0]["sweeps"][1:]:
        found = examples(workspace, card, sweep["name"], [entry["image"] for entry in sweep["gallery"]])
        for i, entry in enumerate(sweep["gallery"]):
            row = found.evidence.index(entry["strength"])
            said, pair = entry["pictures"], (found.clean[i, 0], found.perturbed[row, i, 0])
            for name, image in zip(("clean", "perturbed"), pair, strict=True):
                assert np.array_equal(shown(said[name]), (image * 255).round().astype(np.uint8))
                assert said[name] in page
            change = np.clip(0.5 + said["magnified"] * (pair[1] - pair[0]), 0, 1)
            assert np.array_equal(shown(said["perturbation"]), (change * 255).round().astype(np.uint8))
    assert project.entries() == before


def test_a_json_alone_loads_no_model(ran):
    """Catches: pictures made for those who asked for none, at the price of torch."""
    document = json.loads((ran.root / "run.json").read_text())
    assert galleries(document)
    assert all(entry["pictures"] is None for entry in galleries(document))
    assert ran.logged("modules") == []


def test_a_model_that_fails_in_pictures_fails_nothing_else(project):
    """Catches: a report lost, or an exit code changed, by what is only to be looked at."""
    project.fill().edit(project.card, ("accuracy = 0.7", "accuracy = 0.7"))
    (project.root / "conftest.py").write_text(
        (project.root / "conftest.py").read_text() + "\nfrom robustness.workspace import examples\n"
        "def pytest_sessionstart():\n"
        "    def broken(*given): raise RuntimeError('no <pictures> today')\n"
        "    examples.examples, examples._kept = broken, examples.examples\n"
        "def pytest_unconfigure():\n"
        "    examples.examples = examples._kept\n"
    )
    run = project.plain(ALL, *BOTH)
    assert run.ret == 0
    assert any("no pictures of tiny under normal: no <pictures> today" in notice for notice in run.report["notices"])
    page = (project.root / "report.html").read_text()
    assert "no &lt;pictures&gt; today" in page
    assert "<img" not in page


def test_a_red_run_has_a_page(project):
    project.fill().edit(project.card, ("accuracy = 0.8", "accuracy = 0.999"))
    run = project.plain(ALL, *BOTH)
    assert run.ret == 1
    assert '<header class="verdict failed">' in (project.root / "report.html").read_text()


# ------------------------------------------------------------------ robustness report


def test_rebuilt_is_what_the_run_would_have_written(ran, call):
    """Catches: numbers made anew, pictures of another seed, anything swept, trained or lost on the way."""
    before = ran.entries(), ran.entries("weights"), ran.logged("trainings")
    code, out, err = call("report", "run.json")
    assert (code, out, err) == (0, "report: run.html\n", "")
    assert ran.plain(ALL, *BOTH).ret == 0
    times = re.compile(r"<dd>[^<]*</dd>|known as|[-\d]+T[:\d]+\+00:00")
    pages = [times.sub("", (ran.root / name).read_text()) for name in ("run.html", "report.html")]
    assert pages[0] == pages[1]
    assert pages[0].count("<img") >= 3
    assert (ran.entries(), ran.entries("weights"), ran.logged("trainings")) == before


def test_several_runs_and_other_forms(ran, call):
    edited(ran, lambda document: None, "other.json")
    assert call("report", "run.json", "other.json")[1] == "report: run.html\nreport: other.html\n"
    assert call("report", "run.json", "--output", "a/b.md")[0] == 0
    assert (ran.root / "a" / "b.md").read_text().startswith("# Robustness report: GO: ")
    code, _, err = call("report", "run.json", "other.json", "--output", "c.html")
    assert (code, (ran.root / "c.html").exists()) == (2, False)
    assert "--output takes one run, got 2" in err
    code, _, err = call("report", "run.json", "--output", "run.json")
    assert code == 2
    assert "another file than the run" in err


def test_without_its_evidence_the_numbers_are_the_reports(ran, call, tmp_path):
    """Another machine has the JSON alone: everything but the pictures."""
    code, _, _ = call("--store", tmp_path / "empty", "report", "run.json")
    page = (ran.root / "run.html").read_text()
    assert code == 0
    assert "<img" not in page
    assert "no pictures of tiny under normal: its weights are missing" in page
    assert page.count('<data class="value"') == 7
    assert ran.logged("trainings") == []


def test_a_card_that_has_changed_shows_no_pictures(ran, call):
    """Catches: pictures of a model that is not the one that was measured; a sweep started by looking at a report."""
    before = ran.entries()
    ran.edit(ran.card, ("strengths = [0.3, 0.6]", "strengths = [0.3, 0.6, 0.9]"), ("accuracy = [0.7, 0.5]", ""))
    ran.edit(ran.card, ('precision = [0.7, "no claim possible"]', ""), ("[claims.normal]", ""))
    assert call("report", "run.json")[0] == 0
    page = (ran.root / "run.html").read_text()
    assert "no pictures of tiny under normal: card, weights, data or code have changed" in page
    assert "<img" in page  # of the other sweep
    assert ran.entries() == before


def test_a_card_that_cannot_be_read_is_told(ran, call):
    ran.write("models/other.toml", "name = 3")
    ran.card.unlink()
    assert call("report", "run.json")[0] == 0
    page = (ran.root / "run.html").read_text()
    assert "other.toml: " in page
    assert "its card is not among the given ones; add it with --card" in page


RED_GATE = {"outcome": "failed", "message": "", "table": {}}


def better(document):
    document["models"][0]["sweeps"][1]["cells"][0]["metrics"]["accuracy"]["value"] = 0.999


def greener(document):
    document["counts"]["failed"], document["counts"]["passed"] = 1, 6


def worse(document):
    """A red claim under a green head: what nobody notices who reads the first line."""
    model = document["models"][0]
    claim = next(c for c in model["claims"] if c["id"] == "tiny:normal:0.6:accuracy")
    cell = next(cell for cell in model["sweeps"][1]["cells"] if cell["strength"] == "0.6")
    claim["outcome"] = cell["claims"]["accuracy"]["outcome"] = "failed"


def lucky(document):
    claim = next(c for c in document["models"][0]["claims"] if c["id"] == "tiny:normal:0.6:accuracy")
    claim["numbers"]["value"] = 0.1


@pytest.mark.parametrize(
    "change",
    [better, lambda document: document["notices"].append("x"), lambda document: document["run"].update(seed=7)],
)
@pytest.mark.parametrize("command", [["report"], ["merge", "-o", "out.json"], ["compare", "whole.json"]])
def test_a_report_that_was_edited_anywhere_is_refused(ran, call, change, command):
    """Catches: a number or a sentence put into a report by hand that contradicts nothing else in it."""
    document = json.loads((ran.root / "run.json").read_text())
    (ran.root / "whole.json").write_text(json.dumps(document))
    change(document)
    (ran.root / "run.json").write_text(json.dumps(document))
    first, *others = command
    code, _, err = call(first, "run.json", *others)
    assert code == 2
    assert "its checksum does not match its content" in err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (better, "accuracy at 0.3 is 0.999, but "),
        (greener, "its verdict is 'passed', but its counts say 'failed'"),
        (worse, "its counts of tiny are 7 passed, but its claims say 6 passed, 1 failed"),
        (lucky, "tiny:normal:0.6:accuracy passed, but 0.1 is not at least 0.5"),
        (lambda document: document["models"][0].update(gate=RED_GATE), "but its models have 1 failed"),
        (lambda document: document["counts"].update(claims=8), "it counts 8 claims as claims"),
        (lambda document: document["counts"]["models"][0].update({"not selected": -1}), "but has 7"),
        (lambda document: document["counts"]["models"].clear(), "its counts do not match its models"),
        (
            lambda document: document.update(format="other/1"),
            "format must be pytest-robustness/report/2, got 'other/1'",
        ),
        (
            lambda document: document.update(format="pytest-robustness/report/1"),
            "a report of an older version (pytest-robustness/report/1); this one reads pytest-robustness/report/2",
        ),
        (lambda document: document.pop("counts"), "not a complete report (edited?): counts: missing"),
        (lambda document: document["models"][0].pop("claims"), "models.0.claims: missing"),
        (lambda document: document.update(models=3), "models = 3: "),
    ],
)
def test_an_edited_report_is_refused(ran, call, change, said):
    """Catches: a page that lends its looks to numbers that no run has measured; a traceback; a page left before."""
    edited(ran, change)
    (ran.root / "run.html").write_text("as it was")
    code, out, err = call("report", "run.json")
    assert (code, out) == (2, "")
    assert said in err
    assert (ran.root / "run.html").read_text() == "as it was"


@pytest.mark.parametrize("content", ["", '{"format": ', "[]", "\x00"])
def test_a_torn_file_is_refused(ran, call, content):
    (ran.root / "run.json").write_text(content)
    code, _, err = call("report", "run.json")
    assert code == 2
    assert "run.json: " in err
    assert not (ran.root / "run.html").exists()


def test_a_report_of_the_first_versions(ran, call):
    """What it does not have yet is measured again from its evidence."""

    def older(document):
        for model in document["models"]:
            del model["known_doubts"], model["factory"]
            for sweep in model["sweeps"]:
                del sweep["confusion"], sweep["gallery"], sweep["source"]
                for cell in sweep["cells"]:
                    del cell["attractors"]

    assert call("report", "run.json")[0] == 0
    due = (ran.root / "run.html").read_text()
    edited(ran, older)
    assert call("report", "run.json")[0] == 0
    assert (ran.root / "run.html").read_text() == due.replace(
        "<dt>factory</dt><dd><code>tiny_net:net</code></dd>\n", ""
    )
