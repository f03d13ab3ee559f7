"""The table of all papers: that it shows the result files."""

import json

import numpy as np
import pytest

from reports import overview
from reports.overview import PAPERS
from reports.paper import DOCS, MEASURED
from reports.writing import inserted

RESULTS = [(paper, result) for paper in PAPERS for result in paper.results(MEASURED)]


def committed(pattern):
    """Yield the committed result files of a paper, as they are."""
    for file in sorted(MEASURED.glob(pattern)):
        yield json.loads(file.read_text(encoding="utf-8"))


def cells(pattern, **wanted):
    """Return the accuracies of the rows that have these values, straight from the files."""
    numbers = []
    for result in committed(pattern):
        for row in result["rows"]:
            named = dict(zip(result["columns"], row, strict=True))
            if all(named.get(column) == value for column, value in wanted.items()):
                numbers.append(named["accuracy"])
    return numbers


def test_the_committed_page_shows_the_files():
    text = (DOCS / overview.PAGE).read_text(encoding="utf-8")
    assert inserted(text, overview.MODULE, overview.body()) == text, "run `python -m reports.overview`"


def test_every_committed_result_has_a_row():
    """Catches: a paper, a data set or a scale that is left out."""
    wanted = {
        (result["paper"], result["source"], result["scale"]) for result in committed("*.json") if "paper" in result
    }
    assert {(paper.name, result["source"], result["scale"]) for paper, result in RESULTS} == wanted
    assert len({paper.name for paper, _ in RESULTS}) == 5
    assert overview.body().count("\n| [") == len(RESULTS)


def test_numbers_are_those_of_the_files():
    """Against the files' own rows. Catches: another system, the white-box row for the published one, another head."""
    shown = {paper.name: paper.headline(result)[1:] for paper, result in RESULTS}
    clean = cells("eyes_parseval_*.json", system="wrn-adv", sweep="clean")
    under = cells("eyes_parseval_*.json", system="wrn-adv", sweep="twin-snr", strength="33")
    assert shown["eyes-parseval"] == ("0.692, 0.652", f"{np.mean(clean):.3f}, {np.mean(under):.3f}")
    heads = [
        [
            cells("hybrid_gan_*.json", model=f"cifar10-{head}-{name}", images="hybrid", kind="all", sweep="clean")[0]
            for name in ("vgg19_bn", "shufflenet", "repvgg_a2", "resnet50")
        ]
        for head in ("classify", "detect")
    ]
    ranges = [f"{min(values):.3f} to {max(values):.3f}" for values in heads]
    expected = f"ten classes {ranges[0]}; real or adversarial {ranges[1]}"
    assert shown["hybrid-gan"] == ("0.938 to 0.959", expected)
    assert shown["digits-noise"][0] == "0.2567"


@pytest.mark.parametrize(("paper", "result"), RESULTS, ids=lambda value: getattr(value, "name", ""))
def test_a_row_names_seeds_data_device_and_versions(paper, result):
    origin, row = result["provenance"], overview.row(paper, result)
    assert row[2] == f"**{result['scale']}**"
    assert row[3].startswith(", ".join(map(str, result["seeds"])))
    assert origin["device"] in row[4]
    assert f"torch {origin['versions']['torch']}" in row[4]
    if paper.name == "eyes-parseval":
        assert row[1] == "eyes32 test 1,452 in 10 parts"


def test_data_sets_of_one_name_are_added_once():
    """Catches: an official test set that every fold names counted for each fold."""
    part = {"name": "a", "n": 3, "fingerprint": "x"}
    other = {"name": "a", "n": 4, "fingerprint": "y"}
    data = {"0": part, "1": other, "test": {"name": "b", "n": 5, "fingerprint": "z"}, "again": dict(part)}
    assert overview.data_sets({"provenance": {"data": data}}) == "a 7 in 2 parts; b 5"
