"""The table of all papers: that it is what the result files say."""

import json

import numpy as np
import pytest

from reports import overview
from reports.commands import DOCS, OUTPUT
from reports.writing import inserted


def committed(pattern):
    """Yield the committed result files of a paper, as they are."""
    for file in sorted(OUTPUT.glob(pattern)):
        yield json.loads(file.read_text(encoding="utf-8"))


def cells(pattern, **wanted):
    """Return the accuracies of the rows that have these values, straight from the files."""
    found = []
    for result in committed(pattern):
        for row in result["rows"]:
            named = dict(zip(result["columns"], row, strict=True))
            if all(named.get(column) == value for column, value in wanted.items()):
                found.append(named["accuracy"])
    return found


@pytest.fixture(scope="module")
def rows():
    return list(overview.rows(OUTPUT))


def test_the_committed_page_is_what_the_files_say(rows):
    text = (DOCS / overview.PAGE).read_text(encoding="utf-8")
    assert inserted(text, overview.MODULE, overview.body(rows)) == text, "run `python -m reports.overview`"


def test_every_committed_result_has_a_row(rows):
    """Catches: a paper, a data set or a scale that is left out."""
    wanted = {
        (result["paper"], result.get("source"), result["scale"]) for result in committed("*.json") if "paper" in result
    }
    assert {(row.paper, row.result.get("source"), row.result["scale"]) for row in rows} == wanted
    assert len({row.paper for row in rows}) == 5
    assert all((DOCS / f"{row.paper}.md").is_file() for row in rows)


def test_numbers_are_those_of_the_files(rows):
    """Against the files' own rows. Catches: another system, the white-box row for the published one, another head."""
    by_paper = {row.paper: row for row in rows}
    clean = cells("eyes_parseval_*.json", system="wrn-adv", sweep="clean")
    under = cells("eyes_parseval_*.json", system="wrn-adv", sweep="twin-snr", strength="33")
    assert by_paper["eyes-parseval"].measured == f"{np.mean(clean):.3f}, {np.mean(under):.3f}"
    assert by_paper["eyes-parseval"].published == "0.692, 0.652"
    heads = [
        [
            cells("hybrid_gan_*.json", model=f"cifar10-{head}-{name}", images="hybrid", kind="all", sweep="clean")[0]
            for name in ("vgg19_bn", "shufflenet", "repvgg_a2", "resnet50")
        ]
        for head in ("classify", "detect")
    ]
    shown = [f"{min(values):.3f} to {max(values):.3f}" for values in heads]
    assert by_paper["hybrid-gan"].measured == f"ten classes {shown[0]}; real or adversarial {shown[1]}"
    assert by_paper["hybrid-gan"].published == "0.938 to 0.959"
    assert by_paper["digits-noise"].published == "0.2567"


def test_a_row_says_seeds_data_device_and_versions(rows):
    text = overview.body(rows)
    for row in rows:
        about = row.result["provenance"]
        line = next(
            line for line in text.splitlines() if f"[{row.paper}]" in line and f"**{row.result['scale']}**" in line
        )
        assert f"torch {about['versions']['torch']}" in line
        assert about["device"] in line
        assert ", ".join(map(str, row.result.get("seeds") or about["seeds"])) in line
    assert "eyes32 test 1,452 in 10 parts" in text


def test_data_sets_of_one_name_are_added_once():
    """Catches: an official test set that every fold names counted for each fold."""
    part = {"name": "a", "n": 3, "fingerprint": "x"}
    other = {"name": "a", "n": 4, "fingerprint": "y"}
    data = {"0": part, "1": other, "test": {"name": "b", "n": 5, "fingerprint": "z"}, "again": dict(part)}
    assert overview._data({"provenance": {"data": data}}) == "a 7 in 2 parts; b 5"
