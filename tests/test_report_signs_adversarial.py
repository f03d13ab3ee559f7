"""The signs-adversarial report on two small networks in the box, and its verdicts on made-up numbers."""

import json

import numpy as np
import pytest

from reports.commands import DOCS, OUTPUT, ROOT
from reports.signs_adversarial import page
from reports.signs_adversarial.__main__ import main
from reports.writing import inserted
from robustness.store import Store

CARD = """
name = "{name}"
scale = "smoke"
[model]
factory = "models.small:small"
arguments = {{ width = 0.5 }}
[recipe]
callable = "models.defences.{recipe}:fit"
arguments = {{ epochs = 4, batch_size = 32, optimizer = "adamw", learning_rate = 0.003 }}
[data]
name = "digits"
split = {{ kind = "balanced", per_class = 60 }}
[sweeps.fgsm]
kind = "fgsm"
strengths = [0.0157, 0.0314, 0.1]
[sweeps.pgd]
kind = "pgd"
steps = 3
strengths = [0.0157, 0.0314]
"""


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """Run the report on two networks; give the folder of the store and of the result."""
    folder = tmp_path_factory.mktemp("signs")
    # Beside the shipped cards' project, so that `models` can be imported.
    (folder / "models").symlink_to(ROOT / "models")
    (folder / "pyproject.toml").write_text("", encoding="utf-8")
    for name, recipe in (("before", "plain"), ("after", "adversarial")):
        (folder / f"{name}.toml").write_text(CARD.format(name=f"digits-{name}", recipe=recipe), encoding="utf-8")
    assert command(folder) == 0
    return folder


def command(folder, *more):
    cards = [word for name in ("before", "after") for word in (f"--{name}", str(folder / f"{name}.toml"))]
    places = ["--store", str(folder / "store"), "--output", str(folder / "out")]
    return main([*cards, *places, "--few", "50", "--workers", "1", *more])


def read(folder):
    return json.loads((folder / "out/signs_adversarial.json").read_text(encoding="utf-8"))


def test_numbers_are_those_of_the_evidence(smoke):
    """Catches: one network's numbers for the other's, PGD on all images or FGSM on a few."""
    result = read(smoke)
    for key, about in result["evidence"].items():
        name, _, sweep = key.partition(":")
        evidence, reason = Store(smoke / "store").evidence(about["key"], smoke)
        assert not reason
        assert len(evidence) == (50 if sweep == "pgd" else 600)
        rows = [row for row in result["rows"] if (f"digits-{row['role']}", row["sweep"]) == (name, sweep)]
        right = (evidence.predictions == evidence.labels).mean(1)
        assert [row["accuracy"] for row in rows] == pytest.approx(list(right), abs=1e-6)
        assert all(row["interval"][0] <= row["accuracy"] <= row["interval"][1] for row in rows)
        assert [row["strength"] for row in rows] == list(evidence.strengths)


def test_the_page_says_what_was_measured(smoke):
    text = (smoke / "out/signs-adversarial.md").read_text(encoding="utf-8")
    assert "Scale **smoke**: tested on 600 images" in text
    for row in read(smoke)["rows"]:
        assert f"{row['accuracy']:.4f} [" in text
    assert command(smoke, "--render") == 0
    assert (smoke / "out/signs-adversarial.md").read_text(encoding="utf-8") == text


def numbers(before, after, plain, trained):
    """A result in which both attacks have the same effect at 8/255."""
    rows = [("before", "clean", "0", before), ("after", "clean", "0", after)]
    rows += [(role, sweep, e, value) for sweep in ("fgsm", "pgd") for e in ("0.0314", "0.1")
             for role, value in (("before", plain), ("after", trained))]  # fmt: skip
    return {
        "scale": "full",
        "rows": [dict(zip(("role", "sweep", "strength", "accuracy"), row, strict=True)) for row in rows],
    }


@pytest.mark.parametrize(
    ("given", "due"),
    [
        ((0.97, 0.96, 0.30, 0.80), [True] * 6),
        ((0.94, 0.93, 0.30, 0.80), [False, *[True] * 5]),
        ((0.97, 0.90, 0.30, 0.80), [True, False, *[True] * 4]),
        ((0.97, 0.96, 0.60, 0.90), [True, True, False, True, False, True]),
        ((0.97, 0.96, 0.30, 0.40), [True, True, True, False, True, False]),
        ((None, 0.96, 0.30, 0.80), [False] * 6),
    ],
)
def test_verdicts(given, due):
    """Catches: the two roles exchanged, the largest ε for the usual one, a missing number that holds something."""
    assert [verdict.outcome == "reproduced" for verdict in page.verdicts(numbers(*given))] == due


def test_a_strength_that_failed_is_shown_as_such(smoke):
    result = read(smoke)
    broken = next(row for row in result["rows"] if row["sweep"] == "pgd" and row["role"] == "after")
    broken |= {"accuracy": None, "status": "no gradient"}
    del broken["interval"]
    assert "– (no gradient)" in page.body(result)
    assert np.isnan(page.accuracy(result, "after", "pgd", broken["strength"]))


def test_what_is_committed_is_shown_as_it_is():
    file = OUTPUT / "signs_adversarial.json"
    if not file.is_file():
        pytest.skip("no result is committed yet")
    text = (DOCS / "signs-adversarial.md").read_text(encoding="utf-8")
    body = page.body(json.loads(file.read_text(encoding="utf-8")))
    assert inserted(text, page.MODULE, body) == text


def test_errors_are_one_sentence(tmp_path, capsys):
    assert main(["--before", str(tmp_path / "none.toml"), "--store", str(tmp_path / "store")]) == 2
    assert "none.toml" in capsys.readouterr().err
