"""What holds for all five papers: their committed results and pages, and their command at the smoke scale."""

import json
from itertools import chain

import pytest

from reports import paper as papers
from reports.overview import PAPERS
from reports.paper import DOCS, MEASURED
from reports.rows import unpacked
from reports.verdicts import JUDGED
from reports.writing import dumped, inserted
from robustness.errors import RobustnessError

FILES = sorted(MEASURED.glob("*.json"))
DATA = {"digits-noise": "mnist", "signs-adversarial": "gtsrb32.npz.xz", "label-2n": "gtsrb32.npz.xz"}
DATA |= {"eyes-parseval": "eyes32.npz", "hybrid-gan": "cifar10.npz.xz"}

each_paper = pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)


def read(folder):
    return {file.name: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}


def contents(folder, *patterns):
    return {path: path.read_bytes() for pattern in patterns for path in sorted(folder.glob(pattern))}


# Committed results


def data_sets(value):
    """Yield every data set that a provenance names."""
    if isinstance(value, dict):
        if {"name", "n", "fingerprint"} <= set(value):
            yield value
        for item in value.values():
            yield from data_sets(item)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_result_file_names_data_seeds_scale_device_and_versions(file):
    """Catches: a report whose numbers cannot be attributed, such as one that leaves out its seeds."""
    result = json.loads(file.read_text(encoding="utf-8"))
    origin = result["provenance"]
    assert result["scale"] in {"smoke", *JUDGED}
    sets = list(data_sets(origin["data"]))
    assert sets
    assert all(record["name"] and record["n"] > 0 and record["fingerprint"] for record in sets)
    assert result["seeds"]
    assert all(isinstance(seed, int) for seed in result["seeds"])
    assert origin["device"]
    assert origin["cores"] > 0
    assert {"python", "pytest-robustness", "torch", "numpy"} <= set(origin["versions"])
    assert all(origin["versions"].values())
    assert dumped(result) == file.read_text(encoding="utf-8")


@each_paper
def test_committed_pages_show_the_results(paper):
    """Catches: a page that was edited by hand, or written before the results that lie beside it."""
    results = paper.results(MEASURED)
    pages = paper.pages(results)
    assert results
    assert f"{paper.name}.md" in pages
    for name, body in pages.items():
        text = (DOCS / name).read_text(encoding="utf-8")
        assert inserted(text, paper.module, body) == text, f"run `python -m {paper.module} --render`"


@each_paper
def test_committed_figures_are_drawn_from_the_results(paper, tmp_path):
    """Catches: a figure of an older result."""
    for result in paper.results(MEASURED):
        for file in paper.draw(result, tmp_path):
            assert file.read_bytes() == (DOCS / "figures" / file.name).read_bytes()


def test_every_committed_result_is_judged_by_the_rule():
    """Catches: a paper whose scale does not reach the rule, a criterion that none of the results could ever decide."""
    judged = [(result["scale"], paper.verdicts(result)) for paper in PAPERS for result in paper.results(MEASURED)]
    for scale, verdicts in judged:
        for verdict in verdicts:
            assert verdict.kind in ("level", "ordering")
            if scale != "full" and verdict.kind == "level":
                assert verdict.outcome == "not testable here", verdict
    orderings = [v for v in chain.from_iterable(verdicts for _, verdicts in judged) if v.kind == "ordering"]
    assert {"reproduced", "not reproduced"} <= {verdict.outcome for verdict in orderings}


@each_paper
def test_a_page_without_results_says_so(paper, tmp_path):
    assert paper.pages([], tmp_path)[f"{paper.name}.md"] == "Nothing has been measured yet.\n"


def test_a_page_without_marks_is_rejected():
    with pytest.raises(RobustnessError, match="measured: begin"):
        inserted("# no marks", PAPERS[0].module, "")


# The command


@each_paper
def test_a_smoke_run_is_not_compared_with_the_paper(paper, smoke):
    text = (smoke(paper) / f"{paper.name}.md").read_text(encoding="utf-8")
    assert "not testable here" in text
    assert "**reproduced**" not in text


@each_paper
def test_a_measured_unit_is_not_measured_again(paper, smoke, command, tmp_path, capsys):
    """With an empty store. Catches: units that only a store remembers, a page that changes without a run."""
    folder = smoke(paper)
    before = contents(folder, "*.json", "*.md", "figures/*.svg")
    capsys.readouterr()
    assert command(paper, folder, store=tmp_path) == 0
    assert capsys.readouterr().err.count("is measured") == len(read(folder))
    assert not list(tmp_path.rglob("*.safetensors"))
    assert contents(folder, "*.json", "*.md", "figures/*.svg") == before


@pytest.mark.parametrize("paper", [p for p in PAPERS if p.name != "hybrid-gan"], ids=lambda paper: paper.name)
def test_a_lost_result_is_taken_from_the_store(paper, smoke, command, tmp_path):
    """Catches: cards, keys or trainings that differ from run to run."""
    assert command(paper, tmp_path) == 0
    for name, first in read(smoke(paper)).items():
        again = read(tmp_path)[name]
        assert not any(record["in_this_run"] for record in again["evidence"].values())
        digests = [{name: part["digest"] for name, part in each["evidence"].items()} for each in (first, again)]
        assert digests[0] == digests[1]
        for key in ("rows", "models", "made_of"):
            assert again[key] == first[key]


@each_paper
def test_pages_and_figures_come_from_the_result_files_alone(paper, smoke, tmp_path):
    folder = smoke(paper)
    for file, content in contents(folder, "*.json").items():
        (tmp_path / file.name).write_bytes(content)
    assert paper.main(["--render", "--output", str(tmp_path)]) == 0
    for file, content in contents(folder, "*.md", "figures/*.svg").items():
        assert (tmp_path / file.relative_to(folder)).read_bytes() == content


@each_paper
def test_missing_data_are_one_sentence(paper, tmp_path, capsys):
    assert paper.main(["--data", str(tmp_path), "--store", str(tmp_path / "s"), "--output", str(tmp_path / "out")]) == 2
    assert DATA[paper.name] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_unknown_engine_is_one_sentence(tmp_path, capsys):
    """Catches: a traceback of the parser's, for its own kinds of errors are all that it turns into a sentence."""
    options = ["--data-set", "digits", "--scale", "smoke", "--engine", "rays", "--output", str(tmp_path)]
    assert PAPERS[0].main(options) == 2
    assert "`engine` must be local or ray[=ADDRESS], got 'rays'" in capsys.readouterr().err


@pytest.mark.parametrize("units", ["-1", "one", ""])
@each_paper
def test_units_that_do_not_exist_are_rejected(paper, units, capsys):
    with pytest.raises(SystemExit) as ended:
        paper.main([f"--{paper.unit}s={units}"])
    assert ended.value.code == 2
    assert f"--{paper.unit}s" in capsys.readouterr().err


def test_units_are_one_result():
    """Each unit from another machine. Catches: a unit lost or counted twice, a device that is not named."""
    label = next(paper for paper in PAPERS if paper.name == "label-2n")
    result = label.results(MEASURED)[-1]
    parts = [
        json.loads(file.read_text(encoding="utf-8")) for file in sorted(MEASURED.glob("label_2n_gtsrb_short_*.json"))
    ]
    assert result["folds"] == len(parts) == 3
    rows = [row for part in parts for row in unpacked(part)]
    assert sorted(row["fold"] for row in unpacked(result)) == sorted(row["fold"] for row in rows)
    assert len(result["models"]) == 40
    moved = {**parts[1], "provenance": {**parts[1]["provenance"], "device": "cuda:H200", "made": "2026-12-24"}}
    other = papers.merged([parts[0], moved])
    assert other["folds"] == 2
    assert other["provenance"]["device"] == "cpu-avx512f and cuda:H200"
    assert {row["fold"] for row in unpacked(other)} == {0, 1}
