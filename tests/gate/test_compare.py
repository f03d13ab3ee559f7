"""`robustness compare`: what counts as worse, between two runs and against a baseline; its formats and exit codes."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from scipy import stats

from robustness.cli import compare
from robustness.cli.main import main
from robustness.gate.cell_changes import CellChange, Comparison, Weights, by_intervals, judged
from robustness.reporting.sweep_report import NumberReport

ACCEPT = ["baseline", "accept", "first.json", "--model", "tiny"]


def cell(strength, before, after, p=None, **settings):
    return CellChange("net", "fgsm", strength, "accuracy", before, after, p=p, **settings)


def compared(*cells, **settings):
    weights = [Weights("net", "the card's (aa)", "new.pt (bb)", "digits test", 200)]
    return Comparison("first.json: passed", "second.json: passed", weights, judged(cells), **settings)


def lines(form, result):
    return "\n".join(compare.FORMS[form](result))


def test_what_counts_as_worse():
    """Catches: a lost number or a fallen claim that is no loss; a difference that chance explains called worse."""
    cells = {
        "worse": cell("0.1", 0.9, 0.8, p=0.0001),
        "better": cell("0.2", 0.8, 0.9, p=0.0001),
        "within chance": cell("0.3", 0.9, 0.8, p=0.04),  # alone it would be worse
        "equal": cell("0.4", 0.9, 0.9, p=1.0, lost=0, gained=0),
        "not tested": cell("0.5", 0.9, 0.1),
        "no numbers": cell("0.6", None, None),
    }
    result = compared(*cells.values())
    assert {change: one.strength for change, each in cells.items() for one in result.of(change)} == {
        change: each.strength for change, each in cells.items()
    }
    assert result.worse
    for change, each in cells.items():
        assert compared(each, cells["equal"]).worse == (change == "worse")
    assert compared(cells["within chance"]).worse
    assert compared(cell("1", 0.9, None)).worse
    assert not compared(cell("1", None, 0.9)).worse
    assert compared(cell("1", 0.9, 0.9, claims=("passed", "failed"))).worse
    assert not compared(cell("1", 0.9, 0.9, claims=("failed", "failed"))).worse
    assert compared(cells["equal"], missing=["other"]).worse
    assert not compared(cells["equal"], added=["other"]).worse
    loss = replace(cell("1", 0.1, 0.2, p=0.001), metric="loss")
    assert compared(loss).worse
    assert not compared(replace(loss, before=0.2, after=0.1)).worse


def test_what_got_worse_most_stands_first():
    """Catches: cells in the order of the card, where the one that matters is on the second page."""
    cells = [cell(f"{i}", 0.9, 0.9 - i / 100, p=1e-9 if i % 2 else 1.0) for i in range(10)]
    result = compared(*cells, cell("x", 0.9, 0.95, p=1e-9))
    assert [each.strength for each in result.cells[:6]] == ["9", "7", "5", "3", "1", "x"]
    assert result.summary.startswith("worse: 11 cells: 5 worse, 1 better, ")
    assert "most of all net fgsm:9:accuracy, 0.9000 → 0.8100" in result.summary


def test_two_numbers_without_their_images_are_compared_by_their_intervals():
    """Catches: half a width taken for a standard error; an interval about nothing taken for certainty."""
    before, after = NumberReport(value=0.9, low=0.86, high=0.94), NumberReport(value=0.8, low=0.75, high=0.85)
    one = by_intervals(cell("1", 0.9, 0.8), before, after)
    error = ((0.04 / 1.959964) ** 2 + (0.05 / 1.959964) ** 2) ** 0.5
    assert one.p == pytest.approx(2 * stats.norm.sf(0.1 / error), rel=1e-5)
    assert (one.low, one.high) == pytest.approx(stats.norm.interval(0.9, -0.1, error), rel=1e-5)
    assert by_intervals(cell("1", 0.9, 0.8), before, NumberReport(value=0.8)).p is None


HOSTILE = "<script>x</script> | @team **b** \n::error::"


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("form", compare.FORMS)
def test_names_cannot_write_markup(form):
    """Catches: a sweep's name that breaks the table, notifies a team or runs a script."""
    hostile = replace(cell("1", 0.9, 0.8, p=0.0), sweep=HOSTILE, model=HOSTILE)
    result = Comparison(HOSTILE, HOSTILE, [Weights(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 2)], judged([hostile]))
    page = lines(form, replace(result, missing=[HOSTILE], notes=[HOSTILE]))
    if form == "json":
        assert json.loads(page)["cells"][0]["sweep"] == HOSTILE
    elif form == "html":
        assert "script" not in Tags(page).tags
        assert "<script>x</script>" in Tags(page).text
    elif form == "text":
        assert "\n::error" not in page
    else:
        assert "<script>" not in page
        assert "@team" not in page
        assert "**b**" not in page
        (row,) = (line for line in page.splitlines() if line.startswith("| ▼"))
        assert len(re.findall(r"(?<!\\)\|", row)) == 8 + 1 - 1


def test_a_comment_for_github_is_short_and_can_be_found_again():
    """Catches: a comment over GitHub's limit; a second comment on every push; equal cells before those that fell."""
    cells = [cell(f"{i}", 0.9, 0.8, p=1e-9) for i in range(50)] + [cell(f"e{i}", 0.9, 0.9, p=1.0) for i in range(2000)]
    page = lines("github", compared(*cells))
    first, second, *_ = page.splitlines()
    assert first == compare.MARKER
    assert second.startswith("### ❌ Robustness: worse: 2050 cells: 50 worse, 2000 equal")
    shown, hidden = page.split("<details>")
    assert shown.count("\n| ▼ |") == compare.ROWS
    assert hidden.count("\n| ▼ |") == 20
    assert "And 1820 more" in hidden
    assert hidden.count("</details>") == 1
    assert len(page) < 65_536
    same = lines("github", compared(cell("1", 0.9, 0.9, p=1.0)))
    assert "✅ Robustness: not worse: 1 cell: 1 equal" in same
    assert "No cell differs." in same


@pytest.fixture
def two(project, capsys):
    """The report of a run, first.json, and of one with another bias, second.json."""
    project.fill().run("suites")
    (project.root / "report.json").rename(project.root / "first.json")
    project.edit(project.net, ("-(means**2).sum(1) / 2", "-(means**2).sum(1) / 20")).run("suites")
    (project.root / "report.json").rename(project.root / "second.json")
    capsys.readouterr()
    return project


def test_two_runs(two, capsys):
    """Catches: flips the wrong way round; unlike runs side by side; a worse run with exit code 0."""
    code = main(["compare", "first.json", "second.json"])
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.startswith("normal:0.6:accuracy"))
    _, was, now, difference, _, _, lost, gained, _, _, change, *_ = row.split()
    assert float(now) - float(was) == pytest.approx(float(difference), abs=1e-4)
    assert (int(gained) - int(lost)) / 200 == pytest.approx(float(difference), abs=1e-4)
    assert code == int(float(difference) < 0)
    assert change == "worse"
    assert shown.splitlines()[-1].startswith("worse: 8 cells: ")
    weights = [
        json.loads((two.root / f"{run}.json").read_text())["models"][0]["weights"] for run in ("first", "second")
    ]
    assert f"weights: the card's ({weights[0][:12]}), then the card's ({weights[1][:12]})" in shown
    assert main(["compare", "first.json", "first.json"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "not worse: 8 cells: 8 equal"

    other = json.loads((two.root / "first.json").read_text())
    del other["checksum"]  # as reports of before there was one
    other["models"][0]["seed"], other["models"][0]["data"]["n"] = 7, 12
    (two.root / "other.json").write_text(json.dumps(other))
    assert main(["compare", "first.json", "other.json"]) == 2
    said = capsys.readouterr().err
    assert "seed: 0 and 7" in said
    assert "data.images: 200 and 12" in said


def test_a_run_and_its_baseline(two, capsys):
    """Catches: another verdict on the same two models; a baseline that is taken for the newer one."""
    assert main(ACCEPT) == 0
    capsys.readouterr()
    assert main(["compare", "first.json", "second.json", "--format", "json"]) == 1
    runs = json.loads(capsys.readouterr().out)
    for files in (["models/baselines/tiny.json", "second.json"], ["second.json", "--card", "models/tiny.toml"]):
        assert main(["compare", *files, "--format", "json"]) == 1
        against = json.loads(capsys.readouterr().out)
        expected = {(c["sweep"], c["strength"], c["metric"]): c for c in runs["cells"] if c["metric"] != "loss"}
        assert len(against["cells"]) == len(expected) == 7
        for each in against["cells"]:
            twin = expected[each["sweep"], each["strength"], each["metric"]]
            for key in ("before", "after", "lost", "gained"):
                assert each[key] == pytest.approx(twin[key], abs=1e-9)
        assert "1 accepted model (" in against["weights"][0]["before"]
    assert main(["compare", "models/baselines/tiny.json", "first.json"]) == 0
    capsys.readouterr()
    for files, said in (
        (["first.json", "models/baselines/tiny.json"], "name the baseline first"),
        (["models/baselines/tiny.json"], "is a baseline; name the report of a run too"),
        (["first.json"] * 3, "takes one or two files, got 3"),
    ):
        assert main(["compare", *files]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["c.md", "c.json", "c.html", "c.txt"])
def test_output(two, capsys, name):
    """Catches: a file in another format than its suffix; a result on the terminal that is only in the file."""
    assert main(["compare", "first.json", "second.json", "-o", name]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("worse: 8 cells")
    assert out[1] == f"written: {name}"
    begins = {"md": "### ❌", "json": "{", "html": "<!doctype html>", "txt": "first.json: "}[name.partition(".")[2]]
    written = (two.root / name).read_text(encoding="utf-8")
    assert written.startswith(begins)
    assert out[0].partition(":")[0] in written
    assert main(["compare", "first.json", "second.json", "-o", "c.xlsx"]) == 2
    assert "--output must end in one of .txt, .md, .json, .html" in capsys.readouterr().err
